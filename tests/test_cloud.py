"""The cloud half, end to end: Google's Pub/Sub emulator and a bucket server, real workers, the commands of the README."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from house import House, Run, finish, job, kill, until, verdict
from places import Places
from pubsub_emulator import Emulator

from nightreel_queue.base import Message
from nightreel_storage.receipts import Receipts

NIGHTREEL = (sys.executable, "-m", "nightreel")


@pytest.fixture
def house(cloud: Callable[[], Places], make_house: Callable[..., House]) -> House:
    """A house in the cloud."""
    return make_house(cloud())


def nightreel(house: House, *words: str) -> Run:
    return house.work(*NIGHTREEL, *words)


def test_the_commands_of_an_operator_make_everything_ready(house: House) -> None:
    queue, bucket = f"pubsub://demo/s{uuid.uuid4().hex[:10]}", f"gs://bucket-{uuid.uuid4().hex[:10]}/films"
    house.environment |= {"NIGHTREEL_QUEUE": queue, "NIGHTREEL_STORE": bucket}

    made = [nightreel(house, "pubsub", "setup", queue), nightreel(house, "gcs", "setup", bucket, "--project", "demo")]

    assert [each.code for each in made] == [0, 0]
    assert nightreel(house, "doctor").code == 0


def test_a_message_that_gcloud_publishes_by_hand_becomes_a_video_in_the_bucket(
    house: House, emulator: Emulator
) -> None:
    assert [line[:11] for line in nightreel(house, "doctor").out.splitlines()[-2:]] == ["ok    queue", "ok    store"]
    wanted = json.loads(job("by-hand", "x").to_json()) | {"batch": "b"}
    address = house.places.address
    gcloud = ("gcloud", "pubsub", "topics", "publish", address.name, "--message", json.dumps(wanted))
    published = subprocess.run(
        (*gcloud, f"--project={address.project}"),
        env=os.environ
        | {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{emulator.host}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CONFIG": str(house.folder / "gcloud"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert published.returncode == 0, published.stderr

    run = house.work()

    assert run.code == 0, run.err
    verdict(house, "by-hand")
    entry = house.store.head("b/by-hand.mp4")
    assert entry is not None
    assert entry.content_type == "video/mp4"


def test_a_manifest_is_enqueued_rendered_and_told_with_the_same_commands_as_on_one_machine(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(
        "defaults: {render: {model: faulty}, output: {width: 64, height: 64, fps: 8}, transition: {type: cut}}\n"
        "jobs: [{id: good, shots: [x]}, {id: bad, shots: [refuse]}]\n"
    )

    assert nightreel(house, "enqueue", "two.yaml").code == 0
    assert house.work().code == 0
    batches = json.loads(nightreel(house, "status", "--json").out)["batches"]

    held = Receipts(house.store).read(batches[0]["batch"], "bad")
    assert [(batch["jobs"], batch["done"], batch["failed"], batch["open"]) for batch in batches] == [(2, 1, 1, 0)]
    assert held is not None
    assert held.receipt.reason.startswith("shots[0].prompt: refused")
    assert house.places.is_empty(house.queue)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_worker_leaves_behind_the_next_one_finishes(house: House, number: signal.Signals) -> None:
    # Given a worker that goes while it makes the second of two keyframes
    house.queue.publish([Message.of(each) for each in (job("long", "first", "slow once"), job("next", "x"))])
    process = house.start()
    until(lambda: list(house.store.list(".nightreel/keyframes/")), "the first keyframe in the bucket", process)
    if number == signal.SIGKILL:
        kill(process)
    else:
        process.send_signal(number)
        assert finish(process).code == 0
    until(lambda: not house.processes(), "no process left behind")

    run = house.work_all()

    assert run.code == 0
    verdict(house, "long", "next", again={"slow once": 1})


def test_two_workers_share_a_subscription_and_commit_each_job_once(house: House) -> None:
    house.queue.publish([Message.of(job(f"job{number}", f"half a second {number}")) for number in range(8)])

    runs = [finish(worker) for worker in [house.start(**house.places.patient) for _ in range(2)]]

    assert [run.code for run in runs] == [0, 0]
    assert sum(run.report["done"] for run in runs) == 8
    verdict(house, *(f"job{number}" for number in range(8)))
