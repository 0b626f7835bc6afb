"""Who wants to hear how jobs ended: told after the ack, signed, best effort; and nobody's deafness costs a job anything."""

from __future__ import annotations

import base64
import json
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from house import House, finish, job, until
from hypothesis import given, settings
from hypothesis import strategies as st
from pubsub_emulator import Emulator
from structlog.testing import capture_logs
from web_servers import Connection, FakeNetwork, Reply, Server, drips_headers, hangs, make_certificate, says

from nightreel_queue.base import Message
from nightreel_queue.errors import QueueUnavailable
from nightreel_queue.job import Job, Notify
from nightreel_queue.pubsub import Address, Clients
from nightreel_queue.topics import Topic, open_topic
from nightreel_storage.receipts import Receipt, utc_now
from nightreel_worker.errands import FAILURES_IN_A_ROW, MAX_WAITING, THREADS_A_PLACE, TRIES
from nightreel_worker.errors import Refused
from nightreel_worker.notices import Notice
from nightreel_worker.notify import Notifier
from nightreel_worker.web import Web
from nightreel_worker.webhooks import signed_headers, webhook_keys

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, exact").decode()
KEYS = webhook_keys(SECRET)
PAGE = (Path(__file__).parent.parent / "docs/how-to/notifications.md").read_text(encoding="utf-8")
NIGHTREEL = (sys.executable, "-m", "nightreel")
LONG_S = 60.0  # that a test gives what should end much sooner


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """By the lines on the page, and nothing else."""
    [snippet] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102  # our own page: what is printed there must work
    return bool(names["is_genuine"](secret, headers, body))


def wanting(id_: str, *prompts: str, **notify: str) -> Job:
    return job(id_, *prompts, notify=notify)


def receipt(id_: str = "film", **fields: Any) -> Receipt:
    return Receipt.model_validate(
        {"state": "done", "batch": "b", "job": id_, "fingerprint": "f", "ended_at": utc_now()} | fields
    )


def told(server: Server, count: int) -> list[dict[str, Any]]:
    """What a receiver was told, by job."""
    return sorted((json.loads(each.body) for each in server.wait_for(count)), key=lambda body: str(body["data"]["job"]))


def closed_port() -> str:
    with Server(says(200)) as server:
        return server.host


# What is told


def test_a_receiver_verifies_a_webhook_with_the_lines_on_the_page(house: House, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem", "127.0.0.1")
    with Server(says(200), tls=certificate.server()) as server:
        house.environment |= {"SSL_CERT_FILE": str(certificate.file)}
        house.enqueue(wanting("film", "x", webhook=f"{server.url}films?token=t"))
        run = house.work(webhook_secret=SECRET, trusted_hosts=server.host)

    # Then the receipt was posted, and is genuine
    assert run.code == 0, run.err
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/films?token=t")
    assert request.headers["content-type"] == "application/json"
    assert is_genuine(SECRET, request.headers, request.body)
    body = json.loads(request.body)
    stored = house.receipt("film").model_dump(mode="json")
    assert stored.pop("request") == ""
    assert body == {"type": "job.done", "timestamp": stored["ended_at"], "data": stored}
    assert (run.report["notified"], run.report["not_notified"]) == (1, 0)

    # And nothing else would be
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    later = {**request.headers, "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) + 1)}
    assert not is_genuine(other, request.headers, request.body)
    assert not is_genuine(SECRET, request.headers, request.body + b" ")
    assert not is_genuine(SECRET, later, request.body)
    assert not is_genuine(SECRET, {**request.headers, "webhook-id": "msg_0"}, request.body)
    old = signed_headers(KEYS, "msg_0", round(time.time()) - 301, request.body)
    assert not is_genuine(SECRET, old, request.body)


def test_jobs_that_fail_or_are_cancelled_are_told_of_too(house: House) -> None:
    with Server(says(200)) as server:
        jobs = [wanting(name, prompt, webhook=server.url) for name, prompt in [("bad", "refuse"), ("unwanted", "x")]]
        house.enqueue(*jobs)
        assert house.work(*NIGHTREEL, "cancel", "b", "unwanted").code == 0
        run = house.work(webhook_secret=SECRET, trusted_hosts=server.host)
        bad, unwanted = told(server, 2)

    assert run.code == 0, run.err
    assert (bad["type"], bad["data"]["job"]) == ("job.failed", "bad")
    assert bad["data"]["reason"].startswith("shots[0].prompt: refused")
    assert "request" not in bad["data"]
    assert house.receipt("bad").request
    assert (unwanted["type"], unwanted["data"]["job"]) == ("job.cancelled", "unwanted")
    assert run.report["notified"] == 2


def test_who_is_told_twice_knows_it_by_the_id(house: House) -> None:
    with Server(says(200)) as server:
        film = wanting("film", "x", webhook=server.url)
        house.enqueue(film)
        for _ in range(2):  # the second time it is found ended
            assert house.work(webhook_secret=SECRET, trusted_hosts=server.host).code == 0
            house.queue.publish([Message.of(film)])
        first, second = server.wait_for(2)

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert is_genuine(SECRET, second.headers, second.body)
    assert house.rendered() == ["x"]


def test_each_round_of_each_job_has_an_id_of_its_own() -> None:
    ended = utc_now()
    same = {"ended_at": ended}
    ids = [
        Notice.of(receipt("a", **same)).id,
        Notice.of(receipt("b", **same)).id,
        Notice.of(receipt("a", batch="c", **same)).id,
        Notice.of(receipt("a", round=2, **same)).id,
    ]

    assert len(set(ids)) == 4
    assert Notice.of(receipt("a", **same, reason="told in other words")).id == ids[0]
    assert all(re.fullmatch(r"msg_[0-9a-f]{32}", each) for each in ids)


@settings(deadline=None)  # a busy machine is no reason to fail
@given(st.binary(max_size=100), st.binary(min_size=24, max_size=64), st.binary(min_size=24, max_size=64))
def test_while_a_secret_is_replaced_both_the_old_and_the_new_one_verify(body: bytes, old: bytes, new: bytes) -> None:
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in (new, old)]

    headers = signed_headers(webhook_keys(",".join(secrets)), "msg_1", round(time.time()), body)

    assert all(is_genuine(secret, headers, body) for secret in secrets)


def test_the_signature_is_that_of_the_specification() -> None:
    """By the example that its reference libraries are tested with."""
    headers = signed_headers(
        webhook_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# What is not done


@pytest.mark.parametrize(
    ("notify", "given", "why"),
    [
        ({"webhook": "https://example.com/"}, {}, "notify.webhook: this worker sends no webhooks"),
        ({"webhook": "https://10.0.0.1/"}, {"webhook_secret": SECRET}, "notify.webhook: 10.0.0.1 is not a public"),
        ({"webhook": "https://[::1]/"}, {"webhook_secret": SECRET}, "notify.webhook: ::1 is not a public"),
        ({"webhook": "http://example.com/"}, {"webhook_secret": SECRET}, "notify.webhook: example.com: only https"),
        ({"webhook": "https://metadata.google.internal/"}, {"webhook_secret": SECRET}, "inside somebody's network"),
        ({"topic": "spring"}, {}, "notify.topic: this worker has no topic spring for jobs (it has none)"),
    ],
)
def test_a_job_that_asks_for_what_this_worker_does_not_do_fails_before_it_is_rendered(
    house: House, notify: dict[str, str], given: dict[str, str], why: str
) -> None:
    house.enqueue(wanting("film", "x", **notify))

    run = house.work(**given)

    assert run.code == 0, run.err
    assert house.receipt("film").state == "failed"
    assert why in house.receipt("film").reason
    assert house.places.dead_letters(house.queue) == [house.receipt("film").reason]
    assert house.attempts("film") == ()
    assert house.rendered() == []
    assert run.events("renderer_started") == []
    assert [event["reason"] for event in run.events("not_notified")] == [house.receipt("film").reason]


def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_asked() -> None:
    with Server(says(200)) as server:
        network = FakeNetwork(server.port, hooks_example_com=["10.0.0.1"])
        notifier = Notifier(Web(network=network), keys=KEYS)
        url = "https://hooks.example.com/secret-path"
        notifier.check(wanting("film", "x", webhook=url))  # its text is above suspicion

        with capture_logs() as log:
            notifier.tell(receipt(), Notify(webhook=url))
            notifier.finish(time.monotonic() + LONG_S)

        assert server.clients == 0
        assert network.looked_up == ["hooks.example.com"]  # once: another try would not help
    [line] = [line for line in log if line["event"] == "not_notified"]
    assert (line["to"], line["job"]) == ("https://hooks.example.com", "film")
    assert "leads to 10.0.0.1, which is not a public address" in line["reason"]


def test_neither_the_secret_nor_a_token_in_an_address_is_seen_anywhere_else(house: House) -> None:
    """Not by the renderer, not in logs, not in what is kept of a job that was made."""
    program = """
import sys
from pathlib import Path
from nightreel_worker.renderer import Renderer
render = Renderer.render
def noted(self, spec, order, **rest):
    Path("order").write_text(order.job)
    return render(self, spec, order, **rest)
Renderer.render = noted
sys.argv = ["nightreel", "work"]
from nightreel.main import main
main()
"""
    with Server(says(500)) as server:
        house.enqueue(wanting("film", "environment", webhook=f"{server.url}t0ken"))
        run = house.work(
            sys.executable, "-c", program, webhook_secret=SECRET, trusted_hosts=server.host, log_level="debug"
        )

    assert run.code == 0, run.err
    assert run.events("not_notified")
    assert "NIGHTREEL_WEBHOOK_SECRET" not in (house.folder / "environment").read_text()
    assert "environment" in (house.folder / "order").read_text()
    assert "t0ken" not in (house.folder / "order").read_text() + run.err + run.out
    seen = [run.err, run.out] + [path.read_text(errors="replace") for path in house.folder.rglob("*") if path.is_file()]
    assert not any(SECRET.removeprefix("whsec_")[:20] in text for text in seen)


# Receivers that are deaf


def test_receivers_that_hang_cost_no_job_anything(house: House) -> None:
    """Told one after the other, or waited for, they would keep this run for longer than any test waits."""
    with Server(hangs) as deaf, Server(says(200)) as good:
        names = [f"film{number:02}" for number in range(12)]
        house.enqueue(
            *(wanting(name, name, webhook=deaf.url) for name in names), wanting("last", "x", webhook=good.url)
        )
        run = house.work(webhook_secret=SECRET, trusted_hosts=f"{deaf.host},{good.host}")

        # Then every job is made, at its first attempt, and the receiver that listens has heard of its own
        assert run.code == 0, run.err
        assert [house.receipt(name).state for name in (*names, "last")] == ["done"] * 13
        assert [event["earlier"] for event in run.events("job_ended")] == [False] * 13
        assert run.events("returned") == run.events("lease_lost") == []
        assert [body["data"]["job"] for body in told(good, 1)] == ["last"]
        # And the deaf one was asked a few times in all
        assert deaf.clients < FAILURES_IN_A_ROW + THREADS_A_PLACE
    # And each that was not told is a line with the reason, and counted
    assert sorted(event["job"] for event in run.events("not_notified")) == names
    assert all(event["reason"] and event["to"] == f"http://{deaf.host}" for event in run.events("not_notified"))
    assert (run.report["notified"], run.report["not_notified"]) == (1, 12)
    assert house.places.is_empty(house.queue)


@pytest.mark.parametrize("reply", [None, drips_headers, says(503)], ids=["refused", "drips", "503"])
def test_a_run_ends_without_a_receiver_that_is_out_of_order(house: House, reply: Reply | None) -> None:
    with Server(reply or says(200)) as server, Server(says(200)) as good:
        host = server.host if reply else closed_port()
        house.enqueue(wanting("dead", "x", webhook=f"http://{host}/"), wanting("good", "y", webhook=good.url))
        run = house.work(webhook_secret=SECRET, trusted_hosts=f"{host},{good.host}")
        [body] = told(good, 1)

    assert run.code == 0, run.err
    assert (house.receipt("dead").state, body["data"]["job"]) == ("done", "good")
    assert [event["job"] for event in run.events("not_notified")] == ["dead"]
    assert (run.report["notified"], run.report["not_notified"]) == (1, 1)


def test_a_worker_that_is_told_to_leave_does_not_wait_for_a_receiver_that_hangs(house: House) -> None:
    # Given a worker that tells of one job while it renders the next one
    with Server(hangs) as deaf:
        house.enqueue(wanting("film", "x", webhook=deaf.url), job("long", "first", "slow once"))
        process = house.start(webhook_secret=SECRET, trusted_hosts=deaf.host)
        until(lambda: house.has_ended("film") and deaf.requests, "the webhook", process)
        until(lambda: "first" in house.rendered(), "the next job", process)

        process.send_signal(signal.SIGTERM)
        run = finish(process)

    # Then it leaves before the receiver's time is over, and says whom it has not told
    assert run.code == 0, run.err
    [line] = run.events("not_notified")
    assert (line["job"], line["reason"]) == ("film", "the run ended before it could be told")
    assert house.queue.backlog().ready == 1
    assert house.processes() == []


@pytest.mark.parametrize(("drain_s", "notified"), [("1", 0), ("8", 1)])
def test_a_worker_that_is_told_to_leave_waits_for_a_slow_receiver_only_within_its_drain(
    house: House, drain_s: str, notified: int
) -> None:
    """Of its drain, the last second is for giving deliveries back: with one second, nobody is waited for."""
    leaving = threading.Event()

    def slow(connection: Connection) -> None:
        leaving.wait()
        time.sleep(1.5)  # less than the two seconds that a run stays
        connection.answer(200)

    with Server(slow) as server:
        house.enqueue(wanting("film", "x", webhook=server.url))
        process = house.start(
            webhook_secret=SECRET, trusted_hosts=server.host, drain_s=drain_s, idle_timeout_s=str(LONG_S)
        )
        until(lambda: server.requests, "the webhook", process)
        process.send_signal(signal.SIGTERM)
        leaving.set()
        run = finish(process)

    assert run.code == 0, run.err
    assert (run.report["notified"], run.report["not_notified"]) == (notified, 1 - notified)


def test_a_run_stays_for_what_is_being_told(house: House) -> None:
    def slow(connection: Connection) -> None:
        time.sleep(0.5)
        connection.answer(200)

    with Server(slow) as server:
        house.enqueue(wanting("film", "x", webhook=server.url))
        run = house.work(webhook_secret=SECRET, trusted_hosts=server.host)

    assert run.code == 0, run.err
    assert (run.report["notified"], run.report["not_notified"]) == (1, 0)


@pytest.mark.parametrize(
    ("step", "prompt"),
    [
        ("nightreel_queue.sqlite:SqliteDelivery.ack", "x"),
        ("nightreel_queue.sqlite:SqliteDelivery.dead_letter", "refuse"),
    ],
)
def test_after_a_worker_was_killed_before_its_ack_the_next_one_tells(house: House, step: str, prompt: str) -> None:
    with Server(says(200)) as server:
        given = {"webhook_secret": SECRET, "trusted_hosts": server.host}
        house.enqueue(wanting("film", prompt, webhook=server.url))
        died = house.work(*killed_at(step), **given)
        assert died.code == -signal.SIGKILL
        assert house.has_ended("film")
        assert server.requests == []  # not told before the ack

        run = house.work_all(**given)
        [body] = told(server, 1)

    assert run.code == 0, run.err
    assert run.report["earlier"] == 1
    assert body["data"]["job"] == "film"
    assert body["type"] == f"job.{house.receipt('film').state}"


def killed_at(place: str) -> tuple[str, ...]:
    """A worker that is killed when it is about to call `module:Class.method`."""
    module, _, method = place.partition(":")
    program = f"""
import os, signal, sys, {module}
{module}.{method} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["nightreel", "work"]
from nightreel.main import main
main()
"""
    return sys.executable, "-c", program


# Tries, and when they end


@pytest.fixture
def make_notifier() -> Iterator[Callable[..., Notifier]]:
    """A notifier that trusts the servers; it is finished with the test."""
    made = []

    def make(*servers: Server, **topics: Topic) -> Notifier:
        made.append(Notifier(Web([server.host for server in servers]), topics=topics, keys=KEYS))
        return made[-1]

    yield make
    for each in made:
        each.finish(time.monotonic())


def tell(notifier: Notifier, server: Server, *names: str) -> None:
    for name in names:
        notifier.tell(receipt(name), Notify(webhook=server.url))


def in_turn(*statuses: int) -> Reply:
    """One status after the other; the last one stays."""
    left = list(statuses)
    return lambda connection: connection.answer(left.pop(0) if len(left) > 1 else left[0])


def test_a_receiver_that_is_down_for_a_moment_is_tried_again(make_notifier: Callable[..., Notifier]) -> None:
    with Server(in_turn(503, 500, 204)) as server:
        notifier = make_notifier(server)
        tell(notifier, server, "film")
        notifier.finish(time.monotonic() + LONG_S)

        assert (notifier.notified, notifier.not_notified) == (1, 0)
        assert len({each.headers["webhook-id"] for each in server.requests}) == 1
        assert len(server.requests) == 3


def test_after_three_tries_a_notice_is_given_up(make_notifier: Callable[..., Notifier]) -> None:
    with Server(says(503)) as server:
        notifier = make_notifier(server)
        with capture_logs() as log:
            tell(notifier, server, "film")
            notifier.finish(time.monotonic() + LONG_S)

        assert len(server.requests) == TRIES == 3
    [line] = [line for line in log if line["event"] == "not_notified"]
    assert line["reason"] == f"http://{server.host}: answered 503: look into its logs"
    assert (notifier.notified, notifier.not_notified) == (0, 1)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 429])
def test_a_receiver_that_says_no_is_asked_once(status: int, make_notifier: Callable[..., Notifier]) -> None:
    with Server(says(status, Location="/there")) as server:
        notifier = make_notifier(server)
        with capture_logs() as log:
            tell(notifier, server, "film")
            notifier.finish(time.monotonic() + LONG_S)

        assert [each.target for each in server.requests] == ["/"]
    [line] = [line for line in log if line["event"] == "not_notified"]
    assert f"answered {status}" in line["reason"]


def test_a_host_that_fails_three_times_in_a_row_is_given_up_and_others_are_not(
    make_notifier: Callable[..., Notifier],
) -> None:
    with Server(says(503)) as dead, Server(says(200)) as good:
        notifier = make_notifier(dead, good)
        with capture_logs() as log:
            tell(notifier, dead, *"abcdefgh")
            tell(notifier, good, *"ab")
            until(lambda: notifier.not_notified == 8, "the dead host to be given up")
            tell(notifier, dead, "late")
            tell(notifier, good, "late")
            notifier.finish(time.monotonic() + LONG_S)

        assert len(dead.requests) < FAILURES_IN_A_ROW + THREADS_A_PLACE
        assert sorted(body["data"]["job"] for body in told(good, 3)) == ["a", "b", "late"]
    assert [line["to"] for line in log if line["event"] == "receiver_given_up"] == [f"http://{dead.host}"]
    [late] = [line for line in log if line.get("job") == "late" and line["event"] == "not_notified"]
    assert late["reason"] == f"http://{dead.host} has failed 3 times in a row: it is not asked again in this run"
    assert (notifier.notified, notifier.not_notified) == (3, 9)


def test_failures_that_are_not_in_a_row_give_up_nobody(make_notifier: Callable[..., Notifier]) -> None:
    with Server(in_turn(503, 503, 200, 503, 503, 200, 503, 503, 200)) as server:
        notifier = make_notifier(server)
        for count, name in enumerate("abc", start=1):
            tell(notifier, server, name)
            until(lambda count=count: notifier.notified == count, name)  # type: ignore[misc]  # a default binds it

        assert notifier.not_notified == 0
        assert len(server.requests) == 9


def test_a_host_that_hangs_keeps_nobody_else_waiting(make_notifier: Callable[..., Notifier]) -> None:
    with Server(hangs) as deaf, Server(says(200)) as good:
        notifier = make_notifier(deaf, good)
        tell(notifier, deaf, *"abcdefgh")
        until(lambda: deaf.clients == THREADS_A_PLACE, "the deaf host to be asked")
        assert all(
            thread.daemon for thread in threading.enumerate() if thread.name == "errands"
        )  # no exit waits for it

        tell(notifier, good, "mine")
        until(lambda: notifier.notified == 1, "the other one to be told")

        assert notifier.not_notified == 0  # not one of the others has come to an end
        assert deaf.clients == THREADS_A_PLACE


def test_what_does_not_fit_in_the_line_is_dropped_and_counted(make_notifier: Callable[..., Notifier]) -> None:
    with Server(hangs) as deaf:
        notifier = make_notifier(deaf)
        tell(notifier, deaf, *"ab")
        until(lambda: deaf.clients == THREADS_A_PLACE, "both to be under way")

        with capture_logs() as log:
            tell(notifier, deaf, *(f"film{number}" for number in range(MAX_WAITING + 5)))
            assert notifier.not_notified == 5
            notifier.finish(time.monotonic())

        assert notifier.not_notified == MAX_WAITING + 7
        reasons = [line["reason"] for line in log if line["event"] == "not_notified"]
        assert reasons[:5] == [f"{MAX_WAITING} others are in line"] * 5
        assert set(reasons[5:]) == {"the run ended before it could be told"}


def test_what_was_given_up_at_the_end_is_not_counted_again_when_it_comes_to_an_end() -> None:
    answer = threading.Event()

    def late(connection: Connection) -> None:
        answer.wait()
        connection.answer(200)

    with Server(late) as server:
        notifier = Notifier(Web([server.host]), keys=KEYS)
        threads = threading.active_count()
        tell(notifier, server, "film")
        server.wait_for(1)
        notifier.finish(time.monotonic())
        assert (notifier.notified, notifier.not_notified) == (0, 1)

        answer.set()
        until(lambda: threading.active_count() <= threads + 1, "the notifier's thread to leave")  # 1: the server's
        tell(notifier, server, "later")

    assert (notifier.notified, notifier.not_notified) == (0, 2)


# Topics


class Board:
    """A topic in memory."""

    def __init__(self, url: str, error: Exception | None = None) -> None:
        self.url = url
        self.messages: list[tuple[bytes, dict[str, str]]] = []
        self.closed = False
        self._error = error

    def publish(self, body: bytes, attributes: Mapping[str, str]) -> None:
        if self._error:
            raise self._error
        self.messages.append((body, dict(attributes)))

    def check(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


def test_a_topic_and_the_results_topic_hear_the_same_each_once() -> None:
    results, spring = Board("pubsub://demo/results"), Board("pubsub://demo/spring")
    notifier = Notifier(Web(), results=results, topics={"results": results, "spring": spring})

    notifier.tell(receipt("a"), None)
    notifier.tell(receipt("b", state="failed", round=2, request="{}"), Notify(topic="spring"))
    notifier.tell(receipt("c"), Notify(topic="results"))
    notifier.finish(time.monotonic() + LONG_S)
    notifier.close()

    assert sorted(json.loads(body)["data"]["job"] for body, _ in results.messages) == ["a", "b", "c"]
    [(body, attributes)] = spring.messages
    assert attributes == {"type": "job.failed", "batch": "b", "job": "b", "round": "2", "state": "failed"}
    assert (body, attributes) in results.messages
    assert "request" not in json.loads(body)["data"]
    assert results.closed
    assert spring.closed
    assert notifier.notified == 4


@pytest.mark.parametrize("error", [QueueUnavailable("it is gone"), RuntimeError("a mistake of ours")])
def test_a_topic_that_raises_is_a_line_in_the_log(error: Exception) -> None:
    notifier = Notifier(Web(), results=Board("pubsub://demo/results", error))

    with capture_logs() as log:
        notifier.tell(receipt(), None)
        notifier.finish(time.monotonic() + LONG_S)

    [line] = [line for line in log if line["event"] == "not_notified"]
    assert str(error) in line["reason"]
    assert line["to"] == "pubsub://demo/results"


@pytest.mark.parametrize("name", ["autumn", "results"])
def test_only_topics_that_the_operator_lists_may_be_named(name: str) -> None:
    notifier = Notifier(Web(), results=Board("pubsub://demo/results"), topics={"spring": Board("pubsub://demo/spring")})

    notifier.check(wanting("film", "x", topic="spring"))
    with pytest.raises(Refused, match=rf"^notify.topic: .* no topic {name} for jobs \(it has spring\)"):
        notifier.check(wanting("film", "x", topic=name))


def test_what_is_no_topic_cannot_be_opened() -> None:
    with pytest.raises(QueueUnavailable, match="write pubsub://PROJECT/TOPIC"):
        open_topic("sqlite:///jobs.db")


def messages(
    host: str, name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> Sequence[tuple[bytes, dict[str, str]]]:
    """What waits at a subscription."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
    address = Address("demo", name)
    found: list[tuple[bytes, dict[str, str]]] = []
    with Clients(address) as clients:
        subscription = address.subscription(name)
        while len(found) < count and (received := clients.pull(subscription, 5.0)):
            found.append((received.message.data, dict(received.message.attributes)))
            clients.ack(subscription, received.ack_id, retry_s=5.0)
        assert clients.pull(subscription, 0.5) is None
    return found


def test_results_come_to_a_topic_that_the_commands_have_made(
    house: House, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given topics as the page says
    house.environment |= {"PUBSUB_EMULATOR_HOST": emulator.host}
    films, results, spring = (f"{name}{uuid.uuid4().hex[:8]}" for name in ("films", "results", "spring"))
    for name in (results, spring):
        made = house.work(*NIGHTREEL, "pubsub", "setup", f"pubsub://demo/{films}", "--results", name)
        assert made.out.splitlines()[-2:] == [f"created topic {name}", f"created subscription {name}"]
    again = house.work(*NIGHTREEL, "pubsub", "setup", f"pubsub://demo/{films}", "--results", results)
    assert again.out == f"pubsub://demo/{films}: nothing to do\n"
    given = {"results_topic": f"pubsub://demo/{results}", "notify_topics": f"pubsub://demo/{spring}"}
    assert house.work(*NIGHTREEL, "doctor", **given).out.splitlines()[-1].startswith("ok    topics: pubsub://")

    # When a worker ends three jobs
    house.enqueue(wanting("film", "x", topic=spring), job("bad", "refuse"), wanting("odd", "y", topic="other"))
    run = house.work(**given)

    # Then all come to the one, and to the other what asked for it
    assert run.code == 0, run.err
    *heard, (last, said) = messages(emulator.host, results, 4, monkeypatch)
    assert sorted((one["job"], one["type"]) for _, one in heard) == [
        ("bad", "job.failed"),
        ("film", "job.done"),
        ("odd", "job.failed"),
    ]
    [(body, attributes)] = messages(emulator.host, spring, 1, monkeypatch)
    assert (body, attributes) in heard
    stored = house.receipt("film").model_dump(mode="json", exclude={"request"})
    assert json.loads(body) == {"type": "job.done", "timestamp": stored["ended_at"], "data": stored}
    assert spring in house.receipt("odd").reason
    assert (run.report["notified"], run.report["not_notified"]) == (4, 1)

    # And at last how the run ended, and where its page is
    id_, page = run.report["run"], house.store.url(f"reports/{run.report['run']}.html")
    assert said == {"type": "run.ended", "run": id_}
    told = json.loads(last)
    assert told["timestamp"] == run.report["ended_at"]
    known = {name: value for name, value in run.report.items() if name in told["data"]}
    assert told["data"] == {"format": 1, "page": page} | known
    assert {"run", "done", "failed", "usd", "why"} <= told["data"].keys()


def test_a_topic_that_is_missing_is_told_with_the_mend_and_costs_no_job_anything(
    house: House, emulator: Emulator
) -> None:
    house.environment |= {"PUBSUB_EMULATOR_HOST": emulator.host}
    missing = f"missing{uuid.uuid4().hex[:8]}"
    mend = f"does not exist: run: nightreel pubsub setup pubsub://PROJECT/SUBSCRIPTION --results {missing}"
    house.enqueue(job("film", "x"))

    doctor = house.work(*NIGHTREEL, "doctor", results_topic=f"pubsub://demo/{missing}")
    run = house.work(results_topic=f"pubsub://demo/{missing}")

    assert doctor.code == 3
    assert doctor.out.splitlines()[-1] == f"fail  topics: projects/demo/topics/{missing} {mend}"
    assert run.code == 0, run.err
    assert house.receipt("film").state == "done"
    [line] = run.events("not_notified")
    assert (line["to"], line["reason"].endswith(mend)) == (f"pubsub://demo/{missing}", True)


def test_a_queues_own_topics_are_none_for_results(house: House, emulator: Emulator) -> None:
    """Its workers would take each receipt for a job."""
    house.environment |= {"PUBSUB_EMULATOR_HOST": emulator.host}
    films = f"films{uuid.uuid4().hex[:8]}"

    for name in (films, f"{films}-urgent", f"{films}-dead"):
        run = house.work(*NIGHTREEL, "pubsub", "setup", f"pubsub://demo/{films}", "--results", name)

        assert run.code == 3
        assert "belongs to the queue" in run.err
        assert "choose another name" in run.err
