"""The cloud half, end to end: Google's Pub/Sub emulator and a bucket server, real workers, the commands of the README."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_gcs import FakeGcs
from house import House, Run, finish, job, kill, until
from pubsub_emulator import Emulator

from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import Held, Receipts

NIGHTREEL = (sys.executable, "-m", "nightreel")
IDLE_S = "6"  # longer than a killed worker's leases last
LEASE_S = 3


@dataclass
class Cloud:
    """A house whose queue and store are in the cloud."""

    house: House
    project: str
    subscription: str
    bucket: str

    @property
    def queue_url(self) -> str:
        return f"pubsub://{self.project}/{self.subscription}"

    @property
    def store(self) -> Store:
        return open_store(f"gs://{self.bucket}/films")

    def nightreel(self, *words: str) -> Run:
        return self.house.work(*NIGHTREEL, *words)

    def publish(self, *messages: Message) -> None:
        queue = open_queue(self.queue_url)
        queue.publish(messages)
        queue.close()

    def receipt(self, batch: str, name: str) -> Held:
        held = Receipts(self.store).read(batch, name)
        assert held is not None
        return held

    def is_empty(self) -> bool:
        queue = open_queue(self.queue_url)
        try:
            return queue.pull(1.0) is None
        finally:
            queue.close()


@pytest.fixture
def cloud(emulator: Emulator, gcs_server: FakeGcs, house: House, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Made ready with the commands that an operator uses."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    cloud = Cloud(house, "demo", f"s{uuid.uuid4().hex[:10]}", f"bucket-{uuid.uuid4().hex[:10]}")
    house.environment |= {
        "PUBSUB_EMULATOR_HOST": emulator.host,
        "STORAGE_EMULATOR_HOST": gcs_server.url,
        "NIGHTREEL_QUEUE": f"{cloud.queue_url}?lease_s={LEASE_S}",
        "NIGHTREEL_STORE": f"gs://{cloud.bucket}/films",
        "NIGHTREEL_IDLE_TIMEOUT_S": IDLE_S,
    }
    assert cloud.nightreel("pubsub", "setup", cloud.queue_url).code == 0
    made = cloud.nightreel("gcs", "setup", f"gs://{cloud.bucket}/films", "--project", cloud.project)
    assert made.code == 0, made.err
    return cloud


def test_a_message_that_gcloud_publishes_by_hand_becomes_a_video_in_the_bucket(
    cloud: Cloud, emulator: Emulator
) -> None:
    assert cloud.nightreel("doctor").out.splitlines() == ["Python: fine", "queue: fine", "store: fine"]
    wanted = json.loads(job("by-hand", "x").to_json()) | {"batch": "b"}
    gcloud = ("gcloud", "pubsub", "topics", "publish", cloud.subscription, "--message", json.dumps(wanted))
    published = subprocess.run(
        (*gcloud, f"--project={cloud.project}"),
        env=os.environ
        | {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{emulator.host}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CONFIG": str(cloud.house.folder / "gcloud"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert published.returncode == 0, published.stderr

    run = cloud.house.work()

    assert run.code == 0, run.err
    receipt = cloud.receipt("b", "by-hand").receipt
    content, entry = cloud.store.get("b/by-hand.mp4")
    assert receipt.state == "done"
    assert hashlib.sha256(content).hexdigest() == receipt.outputs[0].sha256 == entry.sha256
    assert entry.content_type == "video/mp4"
    assert cloud.is_empty()
    assert cloud.house.leftovers() == []


def test_a_manifest_is_enqueued_rendered_and_told_with_the_same_commands_as_on_one_machine(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(
        "defaults: {render: {model: faulty}, output: {width: 64, height: 64, fps: 8}, transition: {type: cut}}\n"
        "jobs: [{id: good, shots: [x]}, {id: bad, shots: [refuse]}]\n"
    )

    assert cloud.nightreel("enqueue", "two.yaml").code == 0
    assert cloud.house.work().code == 0
    batches = json.loads(cloud.nightreel("status", "--json").out)["batches"]

    assert [(batch["jobs"], batch["done"], batch["failed"], batch["open"]) for batch in batches] == [(2, 1, 1, 0)]
    assert cloud.receipt(batches[0]["batch"], "bad").receipt.reason.startswith("shots[0].prompt: refused")
    assert cloud.is_empty()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_worker_leaves_behind_the_next_one_finishes(cloud: Cloud, number: signal.Signals) -> None:
    # Given a worker that goes while it makes the second of two keyframes
    cloud.publish(*(Message.of(each) for each in (job("long", "first", "slow once"), job("next", "x"))))
    process = cloud.house.start()
    until(lambda: list(cloud.store.list(".nightreel/keyframes/")), "the first keyframe in the bucket", process)
    if number == signal.SIGKILL:
        kill(process)
    else:
        process.send_signal(number)
        assert finish(process).code == 0
    until(lambda: not cloud.house.processes(), "no process left behind")

    run = cloud.house.work()

    assert run.code == 0
    assert [cloud.receipt("b", name).receipt.state for name in ("long", "next")] == ["done", "done"]
    assert cloud.house.rendered().count("first") == 1
    assert cloud.is_empty()


def test_two_workers_share_a_subscription_and_commit_each_job_once(cloud: Cloud) -> None:
    cloud.publish(*(Message.of(job(f"job{number}", f"half a second {number}")) for number in range(8)))

    runs = [finish(worker) for worker in [cloud.house.start() for _ in range(2)]]

    assert [run.code for run in runs] == [0, 0]
    assert sum(run.report["done"] for run in runs) == 8
    assert [receipt.state for receipt in Receipts(cloud.store).list("b")] == ["done"] * 8
    assert cloud.is_empty()
