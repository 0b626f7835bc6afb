"""What every queue must do: the sentences of Queue's and Delivery's docstrings as tests.

An implementation's test module subclasses QueueContract and gives it a fixture `harness`, new and empty for each test,
that closes what it opened. No test waits for time to pass by itself: it asks the harness to `advance`.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from nightreel_queue.base import Delivery, Message, Queue
from nightreel_queue.errors import LeaseLost

PATIENCE_S = 10.0  # how long a pull may wait for a message that is there; only a failure takes so long


@dataclass(frozen=True, slots=True)
class QueueHarness:
    """One empty queue, and ways to reach it and to make time pass."""

    open: Callable[[], Queue]
    """Another handle to the same queue."""
    source: str
    """Python source that opens it in another process, as `queue`."""
    lease_s: float
    advance: Callable[[float], None]
    """Let seconds pass for the queue."""


def pull(queue: Queue) -> Delivery:
    delivery = queue.pull(PATIENCE_S)
    assert delivery is not None
    return delivery


def pull_all(queue: Queue, count: int) -> list[Delivery]:
    return [pull(queue) for _ in range(count)]


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def extend(delivery: Delivery) -> None:
    delivery.extend()


def ack(delivery: Delivery) -> None:
    delivery.ack()


def release(delivery: Delivery) -> None:
    delivery.release()


def release_later(delivery: Delivery) -> None:
    delivery.release(30)


def dead_letter(delivery: Delivery) -> None:
    delivery.dead_letter("broken")


class QueueContract:
    @pytest.fixture
    def queue(self, harness: QueueHarness) -> Queue:
        return harness.open()

    # Publishing and pulling

    def test_a_message_arrives_as_it_was_published(self, queue: Queue, harness: QueueHarness) -> None:
        body = bytes(range(256))
        queue.publish([Message(body, "nightly/harbour/2", {"round": "2"})])

        delivery = pull(queue)

        assert delivery.body == body
        assert delivery.attributes["round"] == "2"
        assert delivery.delivery_attempt == 1
        assert delivery.lease_s == harness.lease_s

    def test_an_empty_queue_gives_nothing(self, queue: Queue) -> None:
        assert queue.pull() is None
        assert queue.pull(0.01) is None

    def test_a_waiting_pull_gets_what_is_published_meanwhile(self, harness: QueueHarness) -> None:
        # Given a pull that waits
        with ThreadPoolExecutor(1) as pool:
            pulled = pool.submit(harness.open().pull, PATIENCE_S)

            # When another handle publishes
            harness.open().publish([Message(b"late")])

            # Then it gets the message
            delivery = pulled.result()
        assert delivery is not None
        assert delivery.body == b"late"

    def test_publishing_nothing_is_no_trouble(self, queue: Queue) -> None:
        queue.publish([])

        assert queue.pull() is None

    def test_a_thousand_messages_published_at_once_arrive_wholly(self, queue: Queue) -> None:
        published = [str(number).encode() for number in range(1000)]
        queue.publish([Message(body, key=body.decode()) for body in published])

        assert sorted(bodies(pull_all(queue, 1000))) == sorted(published)
        assert queue.pull() is None

    def test_urgent_messages_come_first_then_the_oldest(self, queue: Queue) -> None:
        for body, urgent in [(b"1", False), (b"2", True), (b"3", False), (b"4", True)]:
            queue.publish([Message(body, urgent=urgent)])

        assert bodies(pull_all(queue, 4)) == [b"2", b"4", b"1", b"3"]

    def test_messages_published_together_come_in_their_order(self, queue: Queue) -> None:
        published = [str(number).encode() for number in range(20)]
        queue.publish([Message(body) for body in published])

        assert bodies(pull_all(queue, 20)) == published

    def test_a_message_without_key_is_never_taken_for_another(self, queue: Queue) -> None:
        queue.publish([Message(b"same"), Message(b"same")])

        assert bodies(pull_all(queue, 2)) == [b"same", b"same"]

    @pytest.mark.parametrize("settle", [ack, dead_letter])
    def test_a_key_counts_no_more_once_its_message_has_ended(
        self, queue: Queue, settle: Callable[[Delivery], None]
    ) -> None:
        queue.publish([Message(b"first", "key")])
        settle(pull(queue))

        queue.publish([Message(b"second", "key")])

        assert pull(queue).body == b"second"

    # Leases

    def test_a_leased_message_is_nobody_elses(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        pull(queue)

        assert queue.pull() is None
        assert harness.open().pull() is None

    def test_a_message_whose_lease_ended_comes_back_as_the_next_attempt(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x", "key", {"round": "1"})])
        first = pull(queue)

        # When its worker is silent for longer than the lease
        harness.advance(harness.lease_s * 1.1)

        # Then somebody else gets it, and can tell
        second = pull(harness.open())
        assert (second.body, second.attributes["round"], second.delivery_attempt) == (b"x", "1", 2)
        assert second.published_at == first.published_at

    def test_a_message_says_when_it_was_published(self, queue: Queue) -> None:
        queue.publish([Message(b"x")])

        published_at = pull(queue).published_at

        assert published_at.tzinfo == dt.UTC
        assert abs(published_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=10)

    def test_a_lease_that_is_extended_in_time_is_kept(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        delivery = pull(queue)

        # When it is extended again and again, for more than two leases
        for _ in range(4):
            harness.advance(harness.lease_s * 0.6)
            delivery.extend()
            assert queue.pull() is None

        # Then the message is still its worker's, who can settle it
        delivery.ack()
        harness.advance(harness.lease_s * 1.1)
        assert queue.pull() is None

    def test_an_extended_lease_ends_too(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        delivery = pull(queue)
        delivery.extend()

        harness.advance(harness.lease_s * 1.1)

        assert pull(queue).delivery_attempt == 2

    @pytest.mark.parametrize("use", [extend, ack, release, release_later, dead_letter])
    def test_a_worker_that_lost_its_lease_is_told_and_changes_nothing(
        self, harness: QueueHarness, use: Callable[[Delivery], None]
    ) -> None:
        # Given a message that passed to another worker
        queue = harness.open()
        queue.publish([Message(b"x")])
        late = pull(queue)
        harness.advance(harness.lease_s * 1.1)
        other = pull(harness.open())

        # When the first one comes back
        with pytest.raises(LeaseLost):
            use(late)

        # Then the message is still the other's, who can settle it
        assert queue.pull() is None
        other.extend()
        other.ack()
        harness.advance(harness.lease_s * 1.1)
        assert queue.pull() is None

    # Settling

    def test_an_acked_message_never_comes_back(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])

        pull(queue).ack()

        harness.advance(harness.lease_s * 1.1)
        assert queue.pull() is None
        assert queue.backlog().total == 0

    def test_a_released_message_comes_back_at_once_to_anyone(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        first = pull(queue)

        first.release()

        second = pull(harness.open())
        assert (second.body, second.delivery_attempt) == (b"x", 2)
        assert second.published_at == first.published_at

    def test_a_message_released_with_a_delay_does_not_come_before_its_time(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        pull(queue).release(12)

        assert queue.pull() is None
        harness.advance(9)
        assert queue.pull() is None
        harness.advance(3.5)
        assert pull(queue).delivery_attempt == 2

    @pytest.mark.parametrize("delay_s", [-1.0, 600.5, float("nan")])
    def test_a_delay_that_no_queue_can_promise_is_refused(self, queue: Queue, delay_s: float) -> None:
        queue.publish([Message(b"x")])
        delivery = pull(queue)

        with pytest.raises(ValueError, match="600"):
            delivery.release(delay_s)

        delivery.release(600)
        assert queue.pull() is None

    def test_a_dead_letter_is_not_delivered_again(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"poison"), Message(b"x")])

        pull(queue).dead_letter("cannot be rendered")

        assert pull(queue).body == b"x"
        harness.advance(harness.lease_s * 1.1)
        assert pull(queue).body == b"x"
        assert queue.pull() is None

    # Closing, threads and processes

    def test_what_was_published_outlives_the_handle(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        queue.close()

        assert pull(harness.open()).body == b"x"

    def test_a_handle_closed_twice_is_closed(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.close()

        queue.close()

    def test_what_was_not_settled_before_closing_comes_back_when_its_lease_ends(self, harness: QueueHarness) -> None:
        queue = harness.open()
        queue.publish([Message(b"x")])
        pull(queue)
        queue.close()

        other = harness.open()
        assert other.pull() is None
        harness.advance(harness.lease_s * 1.1)
        assert pull(other).delivery_attempt == 2

    def test_threads_share_a_handle_without_getting_a_message_twice(self, queue: Queue) -> None:
        queue.publish([Message(str(number).encode()) for number in range(60)])
        together = threading.Barrier(4)

        def work(_: int) -> list[bytes]:
            together.wait()
            done = []
            while delivery := queue.pull():
                delivery.extend()
                done.append(delivery.body)
                delivery.ack()
            return done

        with ThreadPoolExecutor(4) as pool:
            done = Counter(body for bodies in pool.map(work, range(4)) for body in bodies)

        assert done == Counter(str(number).encode() for number in range(60))

    def test_two_processes_share_the_messages_and_ack_none_twice(self, harness: QueueHarness) -> None:
        # Given 200 messages and two workers that hold one each
        queue = harness.open()
        queue.publish([Message(str(number).encode()) for number in range(200)])
        script = f"""{harness.source}
import json, sys
delivery = queue.pull({PATIENCE_S})
print("ready", flush=True)
sys.stdin.readline()
acked = []
while delivery:
    delivery.ack()
    acked.append(int(delivery.body))
    delivery = queue.pull()
queue.close()
print(json.dumps(acked))
"""
        workers = [_start(script) for _ in range(2)]
        for worker in workers:
            assert _line(worker) == "ready"

        # When both pull until nothing is left
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        shares = [json.loads(worker.communicate()[0]) for worker in workers]

        # Then each message was acked once
        assert sorted(number for share in shares for number in share) == list(range(200))
        assert queue.backlog().total == 0

    def test_a_worker_killed_while_it_holds_a_lease_loses_nothing(self, harness: QueueHarness) -> None:
        # Given a worker that acks one message and is killed while it holds the next
        queue = harness.open()
        queue.publish([Message(b"1"), Message(b"2"), Message(b"3")])
        worker = _start(
            f"{harness.source}\nqueue.pull(10).ack()\nheld = queue.pull(10)\nprint(held.body.decode(), flush=True)\n"
            "import time; time.sleep(600)"
        )
        held = _line(worker).encode()
        worker.kill()
        worker.communicate()

        # Then the others are there at once, and the one it held when the lease has ended
        (free,) = {b"2", b"3"} - {held}
        assert pull(queue).body == free
        assert queue.pull() is None
        harness.advance(harness.lease_s * 1.1)
        again = {delivery.body: delivery.delivery_attempt for delivery in pull_all(queue, 2)}
        assert again == {held: 2, free: 2}


def _start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
