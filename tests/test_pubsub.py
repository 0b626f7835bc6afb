"""Google Pub/Sub: the contract on the real emulator, and what only a queue far away has to bear."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from house import House, job
from proxy import Proxy
from pubsub_emulator import Emulator
from queue_contract import QueueContract, QueueHarness, pull, pull_all

from nightreel_queue import pubsub_queue
from nightreel_queue.base import Backlog, Message, Queue
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import InvalidJob, LeaseLost, QueueUnavailable
from nightreel_queue.pubsub import Address, Clients, PullResponse
from nightreel_queue.pubsub_queue import OPEN_PULL_S, PubSubQueue
from nightreel_queue.pubsub_setup import check, setup

PROJECT = "demo"
LEASE_S = 2.0  # leases really run out here


@pytest.fixture
def lease_s() -> float:
    return LEASE_S


@pytest.fixture
def address(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Address:
    """A name on the emulator that nothing was made for yet."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    return Address(PROJECT, f"q{uuid.uuid4().hex[:12]}")


@pytest.fixture
def made(address: Address) -> Address:
    """A queue of its own, empty."""
    setup(address.url)
    return address


@pytest.fixture
def connect(lease_s: float) -> Iterator[Callable[[Address], PubSubQueue]]:
    opened: list[PubSubQueue] = []

    def connect(address: Address, retry_s: float = 10.0) -> PubSubQueue:
        opened.append(PubSubQueue(address, lease_s=lease_s, retry_s=retry_s))
        return opened[-1]

    yield connect
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(made: Address, connect: Callable[..., PubSubQueue]) -> PubSubQueue:
    return connect(made)


@pytest.fixture
def relay(emulator: Emulator) -> Iterator[Proxy]:
    relay = Proxy(lambda: emulator.port)
    yield relay
    relay.close()


@pytest.fixture
def far(
    made: Address, relay: Proxy, connect: Callable[..., PubSubQueue], monkeypatch: pytest.MonkeyPatch
) -> PubSubQueue:
    """A handle to the queue whose connection can be cut; it gives up after a second."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", relay.host)
    far = connect(made, retry_s=1.0)
    assert far.pull() is None
    return far


@pytest.fixture
def clients(address: Address) -> Iterator[Clients]:
    with Clients(address) as clients:
        yield clients


@pytest.fixture
def harness(made: Address, connect: Callable[[Address], PubSubQueue], lease_s: float) -> QueueHarness:
    source = (
        f"from nightreel_queue.connect import open_queue\nqueue = open_queue({f'{made.url}?lease_s={lease_s:g}'!r})"
    )
    return QueueHarness(lambda: connect(made), source, lease_s, time.sleep)


class TestPubSubQueue(QueueContract):
    """A lease of a minute where many messages are held, or other processes start, before the first is settled."""

    @pytest.mark.parametrize("lease_s", [60.0])
    def test_a_thousand_messages_published_at_once_arrive_wholly(self, queue: Queue) -> None:
        super().test_a_thousand_messages_published_at_once_arrive_wholly(queue)

    @pytest.mark.parametrize("lease_s", [60.0])
    def test_two_processes_share_the_messages_and_ack_none_twice(self, harness: QueueHarness) -> None:
        super().test_two_processes_share_the_messages_and_ack_none_twice(harness)


# Messages


def test_a_message_of_another_program_is_pulled_as_it_is(
    emulator: Emulator, made: Address, queue: PubSubQueue, tmp_path: Path
) -> None:
    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{emulator.host}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path),
    }
    command = [
        "gcloud",
        "pubsub",
        "topics",
        "publish",
        made.name,
        f"--project={PROJECT}",
        "--message={ not: JSON",
        "--attribute=a=b",
    ]
    subprocess.run(command, env=environment, check=True, capture_output=True)

    delivery = pull(queue)

    assert (delivery.body, delivery.attributes, delivery.delivery_attempt) == (b"{ not: JSON", {"a": "b"}, 1)


def test_round_and_key_travel_as_attributes(queue: PubSubQueue) -> None:
    queue.publish([Message.of(job("harbour", "x"), round_=3)])

    assert pull(queue).attributes == {"round": "3", "key": "b/harbour/3"}


def test_a_message_larger_than_grpcs_usual_limit_arrives(queue: PubSubQueue) -> None:
    body = os.urandom(6_000_000)
    queue.publish([Message(body)])

    assert pull(queue).body == body


def test_an_urgent_message_does_not_wait_for_the_end_of_a_long_pull(
    made: Address, connect: Callable[[Address], PubSubQueue]
) -> None:
    # Given a pull that waits for a long time
    waiting, other = connect(made), connect(made)
    with ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(waiting.pull, 60)
        time.sleep(0.3)

        # When an urgent message comes while it looks at the others
        other.publish([Message(b"urgent", urgent=True)])

        # Then it is found with the next look
        delivery = pulled.result(timeout=10)
    assert delivery is not None
    assert delivery.body == b"urgent"


def test_ten_thousand_messages_are_published_in_order(queue: PubSubQueue) -> None:
    queue.publish([Message(str(number).encode(), f"b/{number}/1") for number in range(10_000)])

    assert [delivery.body for delivery in pull_all(queue, 20)] == [str(number).encode() for number in range(20)]


@pytest.mark.parametrize(
    ("message", "mistake"),
    [
        (Message(bytes(10_000_000)), "10,000,000 bytes"),
        (Message(b""), "empty"),
        (Message(b"x", attributes={"googlike": "1"}), "'googlike'"),
        (Message(b"x", attributes={"a": "ü" * 600}), "'a'"),
        (Message(b"x", attributes={str(number): "" for number in range(96)}), "96 attributes"),
    ],
    ids=["large", "empty", "reserved", "long", "many"],
)
def test_a_message_that_pubsub_would_not_take_is_refused_before_anything_is_published(
    queue: PubSubQueue, message: Message, mistake: str
) -> None:
    with pytest.raises(InvalidJob, match=mistake) as refused:
        queue.publish([Message(b"fine"), message])

    assert [problem.place for problem in refused.value.problems] == ["row 2"]
    assert queue.pull() is None


def test_the_rows_that_were_not_published_are_named(made: Address, queue: PubSubQueue, clients: Clients) -> None:
    # Given a queue whose topic was deleted, but not that of urgent messages
    clients.publisher.delete_topic(topic=made.topic(made.name))

    # When both kinds are published
    messages = [Message(b"x", urgent=number == 3) for number in range(1, 6)]
    with pytest.raises(QueueUnavailable) as failed:
        queue.publish(messages)

    # Then the error says which are missing, and why; the others are there
    assert str(failed.value).startswith("4 of 5 messages were not published, rows 1-2, 4-5: ")
    assert f"nightreel pubsub setup {made.url}" in str(failed.value)
    assert pull(queue).body == b"x"


# Deliveries


def test_a_delayed_message_is_known_to_come_back_and_does(queue: PubSubQueue) -> None:
    queue.publish([Message(b"x")])
    pull(queue).release(1.5)  # Pub/Sub counts in whole seconds
    released_at = time.monotonic()

    backlog = queue.backlog()
    assert (backlog.delayed, backlog.leased) == (1, 0)
    assert backlog.next_ready_s == pytest.approx(2, abs=0.5)

    assert pull(queue).delivery_attempt == 2
    assert time.monotonic() - released_at > 1.5
    assert queue.backlog().delayed == 0


def test_the_backlog_is_what_this_process_knows(
    made: Address, queue: PubSubQueue, connect: Callable[[Address], PubSubQueue]
) -> None:
    queue.publish([Message(str(number).encode()) for number in range(4)])
    pull(queue).ack()
    pull(queue).dead_letter("broken")
    pull(queue)

    backlog = queue.backlog()
    assert (backlog.ready, backlog.delayed, backlog.leased, backlog.dead) == (0, 0, 1, 1)
    assert backlog.next_ready_s == pytest.approx(LEASE_S, abs=1.0)
    assert connect(made).backlog() == Backlog(oldest_s=None)

    # And a lease that ran out is nobody's
    time.sleep(LEASE_S)
    assert queue.backlog() == Backlog(dead=1, oldest_s=None)


def test_a_lease_is_lost_by_our_own_clock_though_pubsub_does_not_tell(queue: PubSubQueue) -> None:
    queue.publish([Message(b"x")])
    delivery = pull(queue)

    time.sleep(LEASE_S)

    with pytest.raises(LeaseLost, match="outlived its lease"):
        delivery.extend()


def test_a_delivery_is_settled_once(queue: PubSubQueue) -> None:
    queue.publish([Message(b"x")])
    delivery = pull(queue)
    delivery.ack()

    for use in (delivery.extend, delivery.ack, delivery.release):
        with pytest.raises(LeaseLost, match="is settled"):
            use()


def test_a_dead_letter_says_why_and_can_be_pulled(made: Address, queue: PubSubQueue, clients: Clients) -> None:
    queue.publish([Message(b"poison", "key", {"round": "2"})])
    delivery = queue.pull(10)
    assert delivery is not None

    delivery.dead_letter("ü" * 2000)

    letter = clients.pull(made.subscription(made.dead), 5)
    assert letter is not None
    assert letter.message.data == b"poison"
    assert dict(letter.message.attributes) == {
        "round": "2",
        "key": "key",
        "reason": "ü" * 512,  # as much as an attribute holds
        "message_id": delivery.message_id,
        "published_at": delivery.published_at.isoformat(),
        "delivery_attempt": "1",
    }


# Trouble


def test_a_pull_outlives_a_cut_connection(
    emulator: Emulator,
    relay: Proxy,
    made: Address,
    connect: Callable[..., PubSubQueue],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = connect(made)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", relay.host)
    waiting = connect(made, retry_s=30.0)
    with ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(waiting.pull, 60)
        time.sleep(0.5)

        # When Pub/Sub is away for so long that it forgets the pull, and then back with a message
        relay.cut()
        time.sleep(OPEN_PULL_S[1] + 0.5)
        assert not pulled.done()
        relay.mend()
        other.publish([Message(b"x")])

        # Then the pull that waited all the time gets it
        delivery = pulled.result(timeout=20)
    assert delivery is not None
    assert delivery.body == b"x"


def test_who_cannot_reach_pubsub_is_told_where_it_was_looked_for(far: PubSubQueue, relay: Proxy) -> None:
    far.publish([Message(b"x"), Message(b"y")])
    delivery = pull(far)
    relay.cut()

    for use in (far.pull, delivery.extend, lambda: far.publish([Message(b"z")])):
        began = time.monotonic()
        with pytest.raises(QueueUnavailable, match=rf"is the emulator running at {relay.host}"):
            use()
        assert time.monotonic() - began < 5


def test_a_delivery_can_be_settled_when_the_connection_is_back(far: PubSubQueue, relay: Proxy) -> None:
    far.publish([Message(b"x")])
    delivery = pull(far)

    relay.cut()
    with pytest.raises(QueueUnavailable):
        delivery.ack()
    relay.mend()

    delivery.ack()
    time.sleep(LEASE_S)
    assert far.pull() is None


def test_a_queue_that_was_not_set_up_says_how(address: Address, connect: Callable[[Address], PubSubQueue]) -> None:
    queue = connect(address)

    for use in (queue.pull, lambda: queue.publish([Message(b"x")])):
        with pytest.raises(QueueUnavailable, match=re.escape(f"run: nightreel pubsub setup {address.url}")):
            use()


Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Start a service that gives chosen answers to chosen calls, for what the emulator does not do."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)

        def serve(**answers: Answer) -> None:
            calls = {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in answers.items()}
            server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", calls)]
            )
            monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            server.start()

        yield serve
        server.stop(None).wait()


def refuse(status: grpc.StatusCode) -> Answer:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(status, "no")
        raise AssertionError("abort raises")

    return answer


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "grant roles/pubsub.subscriber"),
        (grpc.StatusCode.UNAUTHENTICATED, "gcloud auth application-default login"),
    ],
    ids=str,
)
def test_who_may_not_pull_is_told_what_is_missing(
    status: grpc.StatusCode, mend: str, serve: Callable[..., None], connect: Callable[[Address], PubSubQueue]
) -> None:
    serve(Pull=refuse(status))

    with pytest.raises(QueueUnavailable, match=mend):
        connect(Address(PROJECT, "jobs")).pull()


def test_an_ack_that_exactly_once_delivery_refuses_is_a_lost_lease(
    serve: Callable[..., None], connect: Callable[[Address], PubSubQueue]
) -> None:
    received = {"received_messages": [{"ack_id": "1", "message": {"data": b"x", "message_id": "7"}}]}
    serve(
        Pull=lambda request, context: PullResponse.serialize(PullResponse(received)),
        ModifyAckDeadline=lambda request, context: b"",
        Acknowledge=refuse(grpc.StatusCode.FAILED_PRECONDITION),
    )
    delivery = pull(connect(Address(PROJECT, "jobs")))
    assert delivery.delivery_attempt == 1  # of a subscription that does not count

    with pytest.raises(LeaseLost):
        delivery.ack()


def test_a_message_whose_lease_cannot_be_renewed_at_once_is_had_as_soon_as_it_can(
    serve: Callable[..., None], connect: Callable[[Address], PubSubQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passing trouble right after a pull must not end the run, which a pull's own trouble would not end either."""
    # Given a service that is there for pulls, and for leases only after more tries than an `extend` makes
    monkeypatch.setattr(pubsub_queue, "EXTEND_RETRY_S", 0.0)
    received = {"received_messages": [{"ack_id": "1", "message": {"data": b"x", "message_id": "7"}}]}
    tries = iter([refuse(grpc.StatusCode.UNAVAILABLE)] * 2 + [lambda request, context: b""])
    serve(
        Pull=lambda request, context: PullResponse.serialize(PullResponse(received)),
        ModifyAckDeadline=lambda request, context: next(tries)(request, context),
    )

    assert pull(connect(Address(PROJECT, "jobs"))).body == b"x"


def test_who_has_no_credentials_is_told_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PUBSUB_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")

    with pytest.raises(QueueUnavailable, match="gcloud auth application-default login"):
        open_queue("pubsub://demo/jobs")


def test_closing_ends_an_open_pull_and_leaves_no_thread_and_no_message_behind(
    made: Address, connect: Callable[[Address], PubSubQueue]
) -> None:
    before = set(threading.enumerate())
    queue, other = connect(made), connect(made)
    with ThreadPoolExecutor(1) as pool:
        # Given a pull that waits
        pulled = pool.submit(queue.pull, 60)
        time.sleep(0.3)

        # When the queue is closed
        queue.close()
        assert pulled.result(timeout=1) is None
    other.publish([Message(b"x")])

    # Then the pull has ended by itself: it swallows no message that comes later
    delivery = other.pull()
    assert delivery is not None
    assert delivery.delivery_attempt == 1
    assert set(threading.enumerate()) <= before
    with pytest.raises(QueueUnavailable, match="was closed"):
        queue.pull()


def test_closing_ends_a_pull_that_cannot_reach_pubsub(
    relay: Proxy, made: Address, connect: Callable[..., PubSubQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", relay.host)
    queue = connect(made, retry_s=60.0)
    relay.cut()
    with ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(queue.pull, 60)
        time.sleep(0.3)

        queue.close()

        assert pulled.result(timeout=5) is None


# Addresses and setup


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("pubsub://demo", "PROJECT/SUBSCRIPTION"),
        ("pubsub:///jobs", "not the id of a Google Cloud project"),
        ("pubsub://Demo/jobs", "'Demo' is not the id"),
        ("pubsub://demo/jobs/more", "'jobs/more' cannot name a subscription"),
        ("pubsub://demo/googjobs", "'googjobs' cannot name"),
        ("pubsub://demo/jobs?lease_s=0", "lease_s and empty_after_s, from 1 to 600"),
        ("pubsub://demo/jobs?empty_after_s=0", "lease_s and empty_after_s, from 1 to 600"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, mistake: str) -> None:
    with pytest.raises(QueueUnavailable, match=mistake):
        open_queue(url)


def test_setup_makes_what_is_missing_and_nothing_twice(address: Address) -> None:
    assert len(check(address.url)) == 6

    done = setup(address.url)

    names = [address.dead, address.name, f"{address.name}-urgent"]
    assert sorted(done) == sorted(f"created {kind} {name}" for kind in ("topic", "subscription") for name in names)
    assert check(address.url) == []
    assert setup(address.url) == []


def test_setup_mends_what_is_wrong(made: Address, clients: Clients) -> None:
    # Given a subscription that somebody changed
    path = made.subscription(made.name)
    changed = {
        "name": path,
        "ack_deadline_seconds": 10,
        "message_retention_duration": {"seconds": 3600},
        "retry_policy": {"minimum_backoff": {"seconds": 30}},
    }
    fields = ["ack_deadline_seconds", "message_retention_duration", "retry_policy", "dead_letter_policy"]
    clients.subscriber.update_subscription({"subscription": changed, "update_mask": {"paths": fields}})

    wrong = check(made.url)
    assert len(wrong) == 4
    assert "its ack deadline is 10 s, not 60 s: run: nightreel pubsub setup" in wrong[0]

    assert setup(made.url) == [f"mended {line.partition(': run:')[0]}" for line in wrong]
    assert check(made.url) == []


def test_what_setup_cannot_mend_is_named(address: Address, clients: Clients) -> None:
    clients.publisher.create_topic(name=address.topic("elsewhere"))
    clients.subscriber.create_subscription(name=address.subscription(address.name), topic=address.topic("elsewhere"))

    with pytest.raises(QueueUnavailable, match=f"belongs to {address.topic('elsewhere')}.*: delete subscription"):
        setup(address.url)

    assert [line.partition(",")[0] for line in check(address.url)] == [
        f"subscription {address.name} belongs to {address.topic('elsewhere')}"
    ]


# The whole way


def test_a_worker_renders_what_a_topic_holds_and_leaves(made: Address, queue: PubSubQueue, house: House) -> None:
    jobs = [job(f"j{number}", f"prompt {number}") for number in range(3)]
    queue.publish([Message.of(job) for job in jobs])

    house.environment["NIGHTREEL_QUEUE"] = f"{made.url}?lease_s=10&empty_after_s=2"
    run = house.work(idle_timeout_s="3")

    assert run.code == 0, run.err
    assert [house.receipt(f"j{number}").state for number in range(3)] == ["done"] * 3
    assert run.report["done"] == 3
    assert queue.pull(1) is None
