"""The dispatcher's entrances for programs, asked over HTTP: a real server, a real store and queue."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from house import House, until
from serving import SERVE, Served, manifest, serving

import nightreel_dispatcher
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.batches import Batches

FUNCTION = (
    *(sys.executable, "-m", "functions_framework", "--asgi", "--target", "nightreel", "--host", "127.0.0.1"),
    *("--source", str(Path(nightreel_dispatcher.__path__[0]) / "function.py")),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One dispatcher for all tests that leave it as it is."""
    with (
        contextlib.closing(House(tmp_path_factory.mktemp("served"))) as house,
        serving(house, dispatcher_max_manifest_mb="0.1") as served,
    ):
        yield served


def messages(response: httpx.Response) -> list[str]:
    return [": ".join(filter(None, problem.values())) for problem in response.json()["problems"]]


def test_a_manifest_that_was_posted_is_rendered_and_told_as_done(served: Served) -> None:
    answer = served.drop("id,prompt,duration\none,a boat,0.5\ntwo,a tent,0.5", "films.csv")

    assert answer.status_code == 202
    batch = answer.json()["batch"]
    assert batch.startswith("films-")
    assert answer.json()["jobs"] == ["one", "two"]
    assert answer.headers["location"] == answer.json()["status"] == f"/batches/{batch}"

    # While it waits
    before = served.client.get(f"/jobs/{batch}/one").json()
    assert (before["state"], before["receipt"], before["where"]) == ("waiting", None, "")
    assert served.client.get(f"/batches/{batch}").json()["open"] == 2

    assert served.house.work_all().code == 0

    after = served.client.get(f"/jobs/{batch}/one").json()
    assert (after["state"], after["receipt"]["state"]) == ("done", "done")
    assert after["where"].endswith("one.mp4")
    whole = served.client.get(f"/batches/{batch}").json()
    assert (whole["count"], whole["open"], whole["title"]) == (2, 0, "films.csv")
    assert whole["ended"] == {"done": 2, "failed": 0, "cancelled": 0}
    assert whole["jobs"] == [{"job": "one", "state": "done"}, {"job": "two", "state": "done"}]


@pytest.mark.parametrize(
    ("content_type", "text", "count"),
    [
        ("application/json", '{"shots": ["a boat"]}', 1),
        ("application/json; charset=utf-8", '{"jobs": [{"shots": ["a boat"]}, {"shots": ["a tent"]}]}', 2),
        ("application/x-ndjson", '{"shots": ["a boat"]}\n{"shots": ["a tent"]}\n', 2),
        ("application/yaml", "shots: [a boat]", 1),
        ("text/csv", "prompt\na boat\n", 1),
        ("text/tab-separated-values", "prompt\tduration\na boat\t2\n", 1),
        ("text/plain", "a boat\na tent\n", 2),
    ],
)
def test_a_manifest_is_read_as_what_its_type_says(served: Served, content_type: str, text: str, count: int) -> None:
    answer = served.client.post("/jobs", content=text, headers={"Content-Type": content_type})

    assert answer.status_code == 202, answer.text
    assert len(answer.json()["jobs"]) == count


def test_the_same_request_again_is_answered_alike_and_publishes_nothing_twice(served: Served) -> None:
    first, second = (served.post(manifest("again"), name="again.json") for _ in range(2))

    assert first.json() == second.json()
    batch = Batches(served.house.store).read(first.json()["batch"])
    assert batch is not None
    assert batch.count == 1
    assert isinstance(served.house.queue, SqliteQueue)
    before = served.house.queue.backlog().total
    served.post(manifest("again"), name="again.json")
    assert served.house.queue.backlog().total == before


def test_every_mistake_of_a_manifest_is_told_and_nothing_of_it_is_taken(served: Served) -> None:
    before = len(list(Batches(served.house.store).list()))

    answer = served.drop("jobs:\n  - shots: [a boat]\n    fps: 3\n  - shots: []\n", "wrong.yaml")

    assert answer.status_code == 422
    assert [problem["place"] for problem in answer.json()["problems"]] == ["wrong.yaml:3", "wrong.yaml:4"]
    assert len(list(Batches(served.house.store).list())) == before


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("shots: [{image: /etc/passwd}]", "a.yaml", "must be an address"),
        ("shots: [{image: ../secret.png}]", "a.yaml", "must be an address"),
        ("vars: rows.csv\njobs: [{shots: ['{a}']}]", "a.yaml", "may name none of this machine"),
    ],
)
def test_a_manifest_from_elsewhere_names_no_files_of_this_machine(
    served: Served, text: str, name: str, words: str
) -> None:
    answer = served.drop(text, name)

    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, 415, "is of type 'image/png': send one of"),
        ({"content": b"x"}, 415, "is of type ''"),
        ({"content": b"x" * 100_001, "params": {"name": "a.txt"}}, 413, "is larger than 0.1 MB: split it"),
        ({"content": iter([b"x"] * 200_001), "params": {"name": "a.txt"}}, 413, "is larger than 0.1 MB: split it"),
        ({"content": b"x", "params": {"name": "../a.txt"}}, 422, "name: String should match pattern"),
        ({"content": b"\xff\xfe\x00", "params": {"name": "a.json"}}, 422, "a.json:1: is not UTF-8"),
        ({"content": b"[" * 5000, "params": {"name": "a.json"}}, 422, "a.json"),
        ({"content": b"", "params": {"name": "a.yaml"}}, 422, "a.yaml: holds nothing"),
        ({"json": {"shots": ["a boat"], "render": {"model": "fualty"}}}, 422, "no model fualty; did you mean faulty?"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_with_the_mend(
    served: Served, request_: dict[str, object], status: int, words: str
) -> None:
    answer = served.client.post("/jobs", **request_)  # type: ignore[arg-type]  # each is another form of the same

    assert answer.status_code == status, answer.text
    assert words in messages(answer)[0]


def test_an_id_that_other_content_has_is_refused(served: Served) -> None:
    assert served.post(manifest("same", batch="taken")).status_code == 202

    answer = served.post({"batch": "taken", "id": "same", "shots": ["something else"]})

    assert answer.status_code == 409
    assert "choose another id or batch" in messages(answer)[0]


def test_a_large_batch_is_told_in_pages(served: Served) -> None:
    names = [f"v{number}" for number in range(7)]
    served.post(manifest(*names, batch="pages"))

    first = served.client.get("/batches/pages", params={"limit": 4}).json()
    second = served.client.get("/batches/pages", params={"limit": 4, "offset": first["next"]}).json()

    assert [line["job"] for line in first["jobs"] + second["jobs"]] == names
    assert second["next"] is None


@pytest.mark.parametrize("path", ["/jobs/no/such", "/batches/no", "/jobs/pages2/x"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_not_there_is_said_to_be_not_there(served: Served, method: str, path: str) -> None:
    answer = served.client.request(method, path)

    assert answer.status_code == 404
    assert messages(answer)[0].startswith("no batch ")


def test_a_cancelled_job_ends_as_cancelled_and_only_once(served: Served) -> None:
    served.post(manifest("a", "b", "c", batch="off"))

    one = served.client.delete("/jobs/off/a")
    again = served.client.delete("/jobs/off/a")
    rest = served.client.delete("/batches/off")

    assert (one.status_code, one.json()) == (200, {"cancelled": 1, "left": 0})
    assert again.status_code == 409
    assert "is cancelled already" in messages(again)[0]
    assert rest.json() == {"cancelled": 2, "left": 0}
    told = served.client.get("/jobs/off/c").json()
    assert (told["state"], told["reason"]) == ("cancelled", "cancelled by hand")
    assert served.client.get("/batches/off").json()["ended"]["cancelled"] == 3


def test_the_overview_is_json_for_a_program_and_leads_a_browser_to_the_console(served: Served) -> None:
    served.post(manifest("x", batch="seen"))

    told = served.client.get("/").json()
    page = served.client.get("/", headers={"Accept": "text/html,*/*"})

    assert told["batches"][0]["batch"] == "seen"
    assert told["queue"]["ready"] > 0
    assert (page.status_code, page.headers["location"]) == (303, "/console/")
    assert '<a href="/console/batches/seen">' in served.client.get("/console/").text


# POST /predict


def test_predict_answers_with_the_receipt_once_the_job_has_ended(served: Served) -> None:
    job = manifest("soon")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(served.post(job, "/predict", wait_s=120)))
    asking.start()
    until(lambda: any("predict" in each.name for each in Batches(served.house.store).list()), "the job")

    assert served.house.work_all().code == 0
    asking.join()

    assert answers[0].status_code == 200
    receipt = answers[0].json()
    assert (receipt["state"], receipt["job"]) == ("done", "soon")
    assert receipt["outputs"][0]["name"].endswith("soon.mp4")

    # Asked again, it is there at once
    assert served.post(job, "/predict", wait_s=0).json() == receipt


def test_predict_says_where_to_look_when_the_wait_is_over(served: Served) -> None:
    answer = served.post(manifest("later"), "/predict", wait_s=0.2)

    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["status"]
    assert served.client.get(answer.json()["status"]).json()["state"] == "waiting"


def test_predict_takes_one_job_and_waits_a_quarter_of_an_hour_at_most(served: Served) -> None:
    many = served.post(manifest("p1", "p2"), "/predict")
    long = served.post(manifest("p1"), "/predict", wait_s=901)

    assert (many.status_code, long.status_code) == (422, 422)
    assert "POST /jobs takes many" in messages(many)[0]
    assert "wait_s" in messages(long)[0]


def test_who_hangs_up_stops_waiting_and_the_job_goes_on(house: House) -> None:
    with serving(house) as served:
        with pytest.raises(httpx.ReadTimeout):
            served.client.post("/predict", json=manifest("left"), params={"wait_s": 900}, timeout=3)
        until(lambda: served.house.queue.backlog().total, "the job")
        time.sleep(4)  # longer than the longest pause between two looks

        run = served.leave()

    assert [line["job"] for line in run.events("caller_hung_up")] == ["left"]
    assert house.queue.backlog().total == 1


def test_many_who_wait_keep_nobody_else_from_being_answered(served: Served) -> None:
    hang_up = threading.Event()

    def wait() -> None:
        with contextlib.suppress(httpx.TransportError):
            served.client.post("/predict", json=manifest("never"), params={"wait_s": 20})
        hang_up.set()

    waiting = [threading.Thread(target=wait) for _ in range(60)]  # more than a thread pool has
    for thread in waiting:
        thread.start()
    time.sleep(1)

    answer = served.client.get("/batches/seen-nothing", timeout=10)

    assert answer.status_code == 404
    assert not hang_up.is_set()
    served.client.delete(served.post(manifest("never"), "/predict", wait_s=0).json()["status"])
    for thread in waiting:
        thread.join()


# Limits, keepers and ends


def test_a_full_queue_takes_no_more(house: House) -> None:
    with serving(house, dispatcher_queue_limit="2") as served:
        assert served.post(manifest("a", "b")).status_code == 202

        refused = served.post(manifest("c"), "/predict")

        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert "2 messages or more wait" in messages(refused)[0]
        assert house.work_all().code == 0
        assert served.post(manifest("c")).status_code == 202


def test_a_queue_that_cannot_be_reached_is_told_and_nothing_is_lost(house: House) -> None:
    with serving(house, queue="sqlite:////proc/no/queue.db") as served:
        answer = served.post(manifest("a"))

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert served.client.get("/healthz").status_code == 200  # no restart would mend it


def test_without_a_token_only_this_machine_may_ask(served: Served) -> None:
    page = served.client.post("/tick", headers={"Origin": "https://elsewhere.example"})
    rebound = served.client.get("/", headers={"Host": "elsewhere.example"})

    assert (page.status_code, rebound.status_code) == (403, 403)
    assert served.client.get("/health", headers={"Host": "elsewhere.example"}).status_code == 200


def test_a_dispatcher_that_keeps_nobody_out_does_not_listen_to_others(house: House) -> None:
    run = house.work(*SERVE, "--host", "0.0.0.0", "--port", "8080")

    assert run.code == 2
    assert run.err.startswith("nightreel: others could reach 0.0.0.0, and nobody would be kept out: set ")
    assert not list(house.store.list())


def test_a_port_that_is_taken_is_said_in_one_line(house: House, served: Served) -> None:
    run = house.work(*SERVE, "--port", str(served.client.base_url.port))

    assert run.code == 2
    [line] = run.err.splitlines()
    assert "choose another --port or --host" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(house: House, number: signal.Signals) -> None:
    with serving(house) as served:
        run = served.leave(number)

    assert run.code == 0, run.err
    assert "Traceback" not in run.err


def test_a_token_opens_and_another_does_not(house: House) -> None:
    with serving(house, dispatcher_token="a-token-of-some-length") as served:
        told = [
            served.client.post("/tick", headers={"Authorization": given}).status_code
            for given in ("", "Bearer another-token-of-some-length", "Basic a-token-of-some-length", "Bearer")
        ]

        assert told == [401] * 4
        assert served.client.post("/tick").status_code == 204
        assert served.client.get("/openapi.json", headers={"Authorization": ""}).status_code == 401
        assert httpx.get(f"{served.client.base_url}/health").json() == {"status": "ok"}
    assert "a-token-of-some-length" not in served.leave().err


def test_it_runs_under_functions_framework_and_is_guarded_there(house: House) -> None:
    refused = house.work(*FUNCTION, "--port", "1")
    assert refused.code != 0
    assert "nobody would be kept out" in refused.err

    with serving(house, command=FUNCTION, dispatcher_token="a-token-of-some-length") as served:
        answer = served.post(manifest("a", batch="f"))
        told = served.client.get("/batches/f").json()
        cancelled = served.client.delete("/jobs/f/a")

        assert answer.status_code == 202, answer.text
        assert told["open"] == 1
        assert cancelled.json()["cancelled"] == 1
        assert served.client.get("/healthz", headers={"Authorization": ""}).status_code == 200
        assert served.client.get("/batches/f", headers={"Authorization": ""}).status_code == 401


def test_two_dispatchers_share_a_store(house: House) -> None:
    with serving(house) as one, serving(house) as other:
        answers = [each.post(manifest("a", "b", batch="both")) for each in (one, other) for _ in range(3)]

        assert {answer.status_code for answer in answers} == {202}
    assert house.queue.backlog().total == 2
    batch = Batches(house.store).read("both")
    assert batch is not None
    assert batch.count == 2
