"""Manifests dropped into a bucket: told by Pub/Sub or Eventarc, often, late, out of order; taken once each."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_gcs import FakeGcs
from house import House, until
from places import Places
from pubsub_emulator import Emulator
from serving import Served, manifest_text, serving

from nightreel_dispatcher.bucket_tray import BucketTray
from nightreel_dispatcher.events import BadEvent, Finalized, Ignored, read_event
from nightreel_dispatcher.inbox import MAX_TRIES, Dropped, Mark
from nightreel_dispatcher.replies import Reply
from nightreel_storage.batches import Batches
from nightreel_storage.errors import NotFound
from nightreel_storage.gcs import GcsStore
from nightreel_storage.receipts import utc_now

OBJECT = {"bucket": "films", "name": "nightly/manifests/a.csv", "generation": "1700000000000001", "size": "12"}
ATTRIBUTES = {
    "eventType": "OBJECT_FINALIZE",
    "bucketId": "films",
    "objectId": "nightly/manifests/a.csv",
    "objectGeneration": "1700000000000001",
    "payloadFormat": "JSON_API_V1",
}
PUSH = {"message": {"attributes": ATTRIBUTES, "data": "e30=", "messageId": "1"}, "subscription": "projects/p/s"}
CE = {"specversion": "1.0", "id": "1", "source": "//storage.googleapis.com/projects/_/buckets/films"}
STORED = "google.cloud.storage.object.v1.finalized"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
WANTED = Finalized(bucket="films", name="nightly/manifests/a.csv", generation=1700000000000001)


def binary(kind: str) -> dict[str, str]:
    return {f"ce-{name}": value for name, value in (CE | {"type": kind}).items()}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, PUSH),
        (binary(STORED), OBJECT),
        (binary(PUBLISHED), PUSH),
        (STRUCTURED, CE | {"type": STORED, "data": OBJECT}),
        (STRUCTURED, CE | {"type": STORED, "data_base64": base64.b64encode(json.dumps(OBJECT).encode()).decode()}),
        (STRUCTURED, CE | {"type": PUBLISHED, "data": PUSH}),
    ],
)
def test_each_form_of_the_event_says_the_same(headers: dict[str, str], body: Any) -> None:
    assert read_event(headers, json.dumps(body).encode()) == WANTED


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {"message": {"attributes": ATTRIBUTES | {"eventType": "OBJECT_DELETE"}}}),
        ({}, {"message": {"attributes": {"eventType": "OBJECT_FINALIZE"}}}),
        ({}, {"message": {"data": "e30="}}),
        ({}, {"message": {"attributes": ATTRIBUTES | {"objectGeneration": "-1"}}}),
        (binary("google.cloud.storage.object.v1.deleted"), OBJECT),
        (STRUCTURED, CE | {"type": "com.example.other", "data": None}),
    ],
)
def test_an_event_about_something_else_is_ignored(headers: dict[str, str], body: Any) -> None:
    assert isinstance(read_event(headers, json.dumps(body).encode()), Ignored)


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({}, b"", "not JSON"),
        ({}, b"\xff", "not JSON"),
        ({}, b"[" * 100_000, "not JSON"),
        ({}, b"[]", "the body: "),
        ({}, b"{}", "message: Field required"),
        ({}, b'{"message": "hello"}', "message: "),
        (binary(STORED), b'{"bucket": "films"}', "name: Field required"),
        (binary(STORED) | {"ce-id": ""}, b"{}", "id: "),
        (binary(STORED) | {"ce-specversion": "0.3"}, b"{}", "specversion: "),
        (STRUCTURED, b'{"specversion": "1.0"}', "type: Field required"),
        (STRUCTURED, json.dumps(CE | {"type": STORED, "data_base64": "?"}).encode(), "not base64"),
        ({"content-type": "application/cloudevents-batch+json"}, b"[]", "one by one"),
    ],
)
def test_what_is_no_event_is_refused_with_the_field(headers: dict[str, str], body: bytes, words: str) -> None:
    with pytest.raises(BadEvent, match=words):
        read_event(headers, body)


# With a bucket


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket at the emulator, into which people put files."""

    server: FakeGcs
    store: GcsStore
    name: str

    def drop(self, text: str, key: str) -> dict[str, Any]:
        """Put an object as `gcloud storage cp` does; returns what an event says of it."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": f"films/{key}"})
        url = f"{self.server.url}/upload/storage/v1/b/{self.name}/o?{query}"
        with urllib.request.urlopen(urllib.request.Request(url, text.encode(), {"Content-Type": "text/plain"})) as said:
            found = json.load(said)
        return {"bucket": found["bucket"], "name": found["name"], "generation": found["generation"]}

    def reply(self, name: str) -> Reply | None:
        try:
            data, entry = self.store.get(f"replies/{name}.json")
        except NotFound:
            return None
        return Reply.from_bytes(data, entry.name)


@pytest.fixture
def at_bucket(
    gcs_server: FakeGcs, make_house: Callable[..., House], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[House, Bucket]:
    """A house with an SQLite queue and a bucket."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    name = f"inbox-{uuid.uuid4().hex[:10]}"
    gcs_server.make_bucket(name)
    queue = f"sqlite:///{tmp_path / 'queue.db'}"
    house = make_house(Places(queue, f"gs://{name}/films", {"STORAGE_EMULATOR_HOST": gcs_server.url}))
    assert isinstance(house.store, GcsStore)
    return house, Bucket(gcs_server, house.store, name)


def tell(client: httpx.Client, event: dict[str, Any]) -> httpx.Response:
    return client.post("/events", json=event, headers=binary(STORED))


def tell_until_taken(client: httpx.Client, event: dict[str, Any]) -> httpx.Response:
    """As Pub/Sub does: again until it is answered with 2xx."""
    answers: list[httpx.Response] = []

    def told() -> bool:
        answers.append(tell(client, event))
        return answers[-1].is_success

    until(told, "the event to be taken")
    return answers[-1]


@pytest.fixture
def open_inbox(at_bucket: tuple[House, Bucket]) -> Iterator[tuple[Served, Bucket]]:
    house, bucket = at_bucket
    with serving(house, dispatcher_intake_timeout_s="1") as served:
        yield served, bucket


def test_a_dropped_manifest_is_taken_and_answered_good_or_bad_with_its_lines(
    open_inbox: tuple[Served, Bucket],
) -> None:
    served, bucket = open_inbox

    good = tell(served.client, bucket.drop(manifest_text("a", "b"), "manifests/clients/good.json"))
    bad = tell(served.client, bucket.drop("jobs:\n  - shots: [x]\n    fps: 3\n", "manifests/bad.yaml"))
    strange = tell(served.client, bucket.drop("MZ", "manifests/setup.exe"))

    assert [answer.status_code for answer in (good, bad, strange)] == [200, 200, 200]
    reply = bucket.reply("clients/good.json")
    assert reply is not None
    assert (reply.ok, reply.jobs) == (True, 2)
    assert served.house.queue.backlog().total == 2
    refused = bucket.reply("bad.yaml")
    assert refused is not None
    assert [problem.place for problem in refused.problems] == ["bad.yaml:3"]
    no = bucket.reply("setup.exe")
    assert no is not None
    assert "ends in '.exe'" in no.problems[0].message

    # A reply is no manifest, nor is what lies elsewhere, or what Nightreel put there itself
    bucket.store.put("manifests/own.json", manifest_text("c").encode())
    own = bucket.store.head("manifests/own.json")
    assert own is not None
    others = [
        bucket.drop(manifest_text("c"), "replies/x.json"),
        bucket.drop(manifest_text("c"), "x.json"),
        {"bucket": bucket.name, "name": "manifests/x.json", "generation": "1"},  # beside the store's prefix
        bucket.drop(manifest_text("c"), "manifests/untold.json") | {"bucket": "another"},
        {"bucket": bucket.name, "name": "films/manifests/", "generation": "1"},
        {"bucket": bucket.name, "name": "films/manifests/own.json", "generation": str(own.generation)},
        {"bucket": bucket.name, "name": "films/manifests/gone.json", "generation": "1"},
    ]
    assert [tell(served.client, event).status_code for event in others] == [204] * len(others)
    assert served.house.queue.backlog().total == 2
    assert {entry.name for entry in bucket.store.list("replies/")} - {"replies/x.json"} == {
        f"replies/{name}.json" for name in ("clients/good.json", "bad.yaml", "setup.exe")
    }


def test_an_event_that_is_told_five_times_out_of_order_makes_one_batch_a_version(
    open_inbox: tuple[Served, Bucket],
) -> None:
    served, bucket = open_inbox
    first = bucket.drop(manifest_text("a"), "manifests/a.json")
    tell_until_taken(served.client, first)
    second = bucket.drop(manifest_text("a", "b"), "manifests/a.json")

    with ThreadPoolExecutor(10) as pool:
        told = pool.map(lambda event: tell_until_taken(served.client, event), [second, first] * 5)

    assert {answer.status_code for answer in told} == {200}
    batches = list(Batches(bucket.store).list())
    assert sorted(batch.count for batch in batches) == [1, 2]
    assert served.house.queue.backlog().total == 3
    reply = bucket.reply("a.json")
    assert reply is not None
    assert (reply.generation, reply.jobs) == (int(second["generation"]), 2)


def test_a_name_that_no_store_keeps_is_answered_all_the_same(open_inbox: tuple[Served, Bucket]) -> None:
    served, bucket = open_inbox

    answer = tell(served.client, bucket.drop(manifest_text("a"), "manifests/été.json"))

    assert answer.status_code == 200
    [entry] = bucket.store.list("replies/")
    reply = Reply.from_bytes(bucket.store.get(entry.name)[0], entry.name)
    assert (reply.ok, reply.manifest) == (False, "été.json")
    assert "use letters, digits" in reply.problems[0].message


def test_a_manifest_that_is_overwritten_while_it_is_read_is_not_taken_in_part(
    at_bucket: tuple[House, Bucket],
) -> None:
    _, bucket = at_bucket
    tray = BucketTray(bucket.store)
    event = bucket.drop(manifest_text("old"), "manifests/a.json")
    dropped = Dropped("", "a.json", int(event["generation"]))

    # After it was found, and before it is read
    def overwrite(_: int) -> None:
        bucket.drop(manifest_text("new"), "manifests/a.json")

    assert tray.read(dropped, overwrite) is None

    later = bucket.store.head("manifests/a.json")
    assert later is not None
    data = tray.read(Dropped("", "a.json", later.generation), lambda _: None)
    assert data == manifest_text("new").encode()


def test_a_manifest_that_is_too_large_is_refused_before_it_is_read(at_bucket: tuple[House, Bucket]) -> None:
    house, bucket = at_bucket
    with serving(house, dispatcher_max_manifest_mb="0.001") as served:
        answer = tell(served.client, bucket.drop("x" * 1001, "manifests/a.txt"))

    assert "is larger than 0.001 MB" in answer.json()["problems"][0]["message"]


KILLED = """
import os, signal, sys
from nightreel.main import app
from nightreel_queue.sqlite import SqliteQueue
real = SqliteQueue.publish

def strike(*args):
    if sys.argv[1] == "after":
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)

SqliteQueue.publish = strike
app(["serve", *sys.argv[2:]])
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dispatcher_killed_around_the_publish_loses_nothing_and_doubles_nothing(
    at_bucket: tuple[House, Bucket], when: str
) -> None:
    house, bucket = at_bucket
    event = bucket.drop(manifest_text("a", "b"), "manifests/a.json")
    with serving(house, command=(sys.executable, "-c", KILLED, when), dispatcher_intake_timeout_s="2") as doomed:
        with contextlib.suppress(httpx.TransportError):
            tell(doomed.client, event)
        doomed.process.wait(30)
        doomed.die()
    [batch] = Batches(bucket.store).list()
    assert (batch.count, bucket.reply("a.json")) == (2, None)
    assert house.queue.backlog().total == (2 if when == "after" else 0)

    # Told again, to two others at once
    with (
        serving(house, dispatcher_intake_timeout_s="2") as one,
        serving(house, dispatcher_intake_timeout_s="2") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        list(pool.map(lambda served: tell_until_taken(served.client, event), (one, two)))

    reply = bucket.reply("a.json")
    assert reply is not None
    assert reply.ok
    assert house.queue.backlog().total == 2
    assert len(list(Batches(bucket.store).list())) == 1


def test_pubsub_pushes_a_buckets_notification_and_the_jobs_lie_on_pubsub(
    emulator: Emulator, cloud: Callable[[], Places], gcs_server: FakeGcs, make_house: Callable[..., House]
) -> None:
    house = make_house(cloud())
    assert isinstance(house.store, GcsStore)
    bucket = Bucket(gcs_server, house.store, house.places.store_url.split("/")[2])
    topic = f"told-{uuid.uuid4().hex[:8]}"
    pubsub = httpx.Client(base_url=f"http://{emulator.host}/v1/projects/demo")
    with pubsub, serving(house) as served:
        push = {"pushEndpoint": str(served.client.base_url.join("/events"))}
        pubsub.put(f"/topics/{topic}").raise_for_status()
        wanted = {"topic": f"projects/demo/topics/{topic}", "pushConfig": push}
        pubsub.put(f"/subscriptions/{topic}", json=wanted).raise_for_status()
        event = bucket.drop(manifest_text("a", "b", "c"), "manifests/nightly.json")
        attributes = {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": event["bucket"],
            "objectId": event["name"],
            "objectGeneration": event["generation"],
        }
        noise = {"data": base64.b64encode(b"hello").decode()}
        published = {"messages": [{"attributes": attributes}, noise, *[{"attributes": attributes}] * 4]}
        pubsub.post(f"/topics/{topic}:publish", json=published).raise_for_status()

        until(lambda: bucket.reply("nightly.json"), "the reply")
        time.sleep(1)  # for the others
        pubsub.delete(f"/subscriptions/{topic}")

    found = []
    while delivery := house.queue.pull(2.0):
        found.append(json.loads(delivery.body)["id"])
        delivery.ack()
    assert sorted(found) == ["a", "b", "c"]


def test_a_manifest_that_never_ends_is_refused_in_the_end(at_bucket: tuple[House, Bucket]) -> None:
    house, bucket = at_bucket
    event = bucket.drop(manifest_text("a"), "manifests/a.json")
    dropped = Dropped(f"gs://{bucket.name}/films/manifests/", "a.json", int(event["generation"]))
    mark = Mark(place="", name="a.json", generation=dropped.generation, tries=MAX_TRIES, until=utc_now())
    bucket.store.put(dropped.mark_name, mark.to_bytes())

    with serving(house) as served:
        answer = tell(served.client, event)

    assert answer.status_code == 200
    assert "was begun 5 times and never ended" in answer.json()["problems"][0]["message"]
    assert not list(Batches(bucket.store).list())
