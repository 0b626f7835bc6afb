"""What waits: joined from a queue's own count, from samples that come late, and from what the store knows."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # has no types
import pytest
from fake_run import FakeRun, Fault, running
from house import job

from nightreel_dispatcher.backlog import Backlog, NoFigures, Unacked, look
from nightreel_dispatcher.emptied import CLOCKS_S, Emptied
from nightreel_dispatcher.monitoring import Monitoring
from nightreel_dispatcher.wake import Waiting
from nightreel_dispatcher.workload import GUESSED_SHOTS, Pace, Workload, guessed_job_s, pace_of
from nightreel_pipelines.models import load_models
from nightreel_queue.base import Backlog as Counted
from nightreel_queue.base import Message
from nightreel_queue.job import Job
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Receipt, Receipts, utc_now
from nightreel_worker.history import History
from nightreel_worker.report import RunReport, run_name
from nightreel_worker.settings import Settings

JOB_S = 10.0


class Silent(SqliteQueue):
    """A queue that cannot say what waits, as Pub/Sub cannot."""

    def backlog(self) -> Counted:
        return Counted(oldest_s=None)


@dataclass(slots=True)
class Sampled:
    """Somebody who counts from outside."""

    sample: Unacked | None = None
    trouble: str = ""

    def unacked(self) -> Unacked | None:
        if self.trouble:
            raise NoFigures(self.trouble)
        return self.sample


@dataclass(slots=True)
class Scene:
    store: FolderStore
    queue: SqliteQueue
    figures: Sampled = field(default_factory=Sampled)

    def asks(self, batch: str, *jobs: Job) -> None:
        """As `nightreel enqueue` records it."""
        asked = [Asked(id=str(j.id), fingerprint=j.fingerprint, duration_s=1.0, message=j.to_json()) for j in jobs]
        Batches(self.store).record(batch, "test", utc_now(), asked)

    def ends(self, batch: str, name: str) -> None:
        receipt = Receipt(state="done", batch=batch, job=name, fingerprint="f", ended_at=utc_now())
        Receipts(self.store).commit(receipt, None)

    def look(self, emptied_at: float = 0.0) -> Backlog:
        return look(self.queue, self.store, self.figures, JOB_S, lambda: emptied_at, time.time)

    def waiting(self, emptied_at: float = 0.0) -> tuple[int, int]:
        """Jobs, and how many of them are urgent."""
        found = self.look(emptied_at).waiting
        assert found.work_s == found.jobs * JOB_S
        return found.jobs, found.urgent


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    queue = Silent(tmp_path / "queue.db")
    yield Scene(FolderStore(tmp_path / "out"), queue)
    queue.close()


def ago(s: float) -> float:
    return time.time() - s


# A queue that counts


def test_a_queue_that_counts_is_believed(tmp_path: Path) -> None:
    now = 1000.0
    queue = SqliteQueue(tmp_path / "queue.db", clock=lambda: now)
    queue.publish([Message(b"a"), Message(b"b", urgent=True), Message(b"c")])
    now += 30
    held = queue.pull()
    assert held is not None

    found = look(queue, FolderStore(tmp_path / "out"), None, JOB_S, lambda: 0.0, time.time)

    assert found == Backlog(Waiting(2, 20.0, 30.0, 0), held=True, next_ready_s=15.0)
    queue.close()


# One that does not: samples, and the store


def test_without_a_sample_the_store_tells_what_was_asked_for_and_has_not_ended(scene: Scene) -> None:
    scene.asks("b", job("one", "x"), job("two", "x", priority="urgent"), job("three", "x"))
    scene.asks("c", job("four", "x"))
    scene.ends("b", "three")

    assert scene.waiting() == (3, 1)
    assert 0 <= scene.look().waiting.oldest_s < 60


def test_a_sample_counts_what_was_published_past_us(scene: Scene) -> None:
    """By gcloud, say: no record speaks of it."""
    scene.figures.sample = Unacked(ago(150), 7, 2, 40.0)

    assert scene.waiting() == (7, 2)
    assert scene.look().waiting.oldest_s == pytest.approx(190, abs=5)


def test_nothing_is_counted_twice_and_what_came_after_the_sample_is_counted(scene: Scene) -> None:
    scene.asks("early", job("one", "x"), job("two", "x"))
    time.sleep(0.01)
    scene.figures.sample = Unacked(time.time(), 2, 0, 0.0)
    assert scene.waiting() == (2, 0)

    time.sleep(0.01)
    scene.asks("late", job("three", "x", priority="urgent"))
    assert scene.waiting() == (3, 1)


def test_a_job_that_no_message_asks_for_any_more_wakes_nobody(scene: Scene) -> None:
    """An enqueue was killed between record and publish, or somebody purged the subscription."""
    scene.asks("b", job("lost", "x"))
    scene.figures.sample = Unacked(time.time() + 1, 0, 0, 0.0)

    assert scene.waiting() == (0, 0)


def test_a_sample_from_before_the_queue_was_found_empty_says_nothing_of_now(scene: Scene) -> None:
    """It still counts what that worker has done: three minutes ago ten jobs waited, now none does."""
    scene.figures.sample = Unacked(ago(170), 10, 0, 900.0)

    assert scene.waiting(emptied_at=ago(60)) == (0, 0)
    assert scene.waiting(emptied_at=ago(171)) == (10, 0)


def test_what_was_asked_for_before_the_queue_was_found_empty_is_the_samples_to_tell(scene: Scene) -> None:
    scene.asks("b", job("one", "x"))
    emptied_at = time.time() + 0.005
    time.sleep(0.02)
    assert scene.waiting(emptied_at) == (0, 0)

    # The worker had left before the message came: the first sample after its end has it
    scene.figures.sample = Unacked(time.time(), 1, 0, 5.0)
    assert scene.waiting(emptied_at) == (1, 0)


def test_a_batch_that_grows_is_as_old_as_what_is_news(scene: Scene) -> None:
    """It came a week ago and is done; its new job has waited for seconds."""
    scene.asks("b", job("one", "x"))
    scene.ends("b", "one")
    emptied_at = time.time()
    time.sleep(0.01)
    scene.asks("b", job("one", "x"), job("two", "x"))

    assert scene.waiting(emptied_at) == (1, 0)
    assert scene.look(emptied_at).waiting.oldest_s <= time.time() - emptied_at


def test_figures_that_cannot_be_had_are_told_and_the_store_goes_on_telling(scene: Scene) -> None:
    scene.asks("b", job("one", "x"))
    scene.figures.trouble = "Cloud Monitoring may not be read: grant roles/monitoring.viewer"

    found = scene.look()

    assert found.waiting.jobs == 1
    assert found.remark == (
        "Cloud Monitoring may not be read: grant roles/monitoring.viewer; until then only jobs that came in through"
        " Nightreel count"
    )


# Cloud Monitoring


@pytest.fixture
def run() -> Iterator[FakeRun]:
    with running(FakeRun()) as server:
        yield server


def unacked(run: FakeRun) -> Unacked | None:
    return Monitoring("demo", "films", "films-urgent", run.channel).unacked()


def test_the_latest_sample_of_both_subscriptions_is_read(run: FakeRun) -> None:
    at = round(ago(120))
    run.samples = {"films": (at, 5, 300), "films-urgent": (at - 30, 2, 40), "others": (at, 99, 9999)}

    assert unacked(run) == Unacked(at - 30, 7, 2, 300.0)


def test_a_subscription_that_went_idle_does_not_make_the_other_ones_sample_old(run: FakeRun) -> None:
    at = round(ago(120))
    run.samples = {"films": (at, 5, 300), "films-urgent": (at - 400, 2, 40)}

    assert unacked(run) == Unacked(at, 5, 0, 300.0)


def test_no_samples_are_no_figures_and_no_trouble(run: FakeRun) -> None:
    assert unacked(run) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "may not be read .*: grant roles/monitoring.viewer"),
        (grpc.StatusCode.UNAVAILABLE, "does not answer"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "does not answer"),
    ],
    ids=str,
)
def test_trouble_with_cloud_monitoring_is_told_after_one_call(run: FakeRun, code: grpc.StatusCode, words: str) -> None:
    run.faults["ListTimeSeries"] = Fault(code)

    with pytest.raises(NoFigures, match=words):
        unacked(run)
    assert run.calls["ListTimeSeries"] == 1


# What a job takes


def report(number: int, done: int, wake: str = "", **stages_s: float) -> RunReport:
    taken = json.loads('{"model": "testcard", "source": "s", "revision": "r", "precision": "p", "device": "cpu",'
                       ' "keyframe_size": "64x64", "film_size": "64x64", "motions": ["still"]}')  # fmt: skip
    return RunReport.model_validate(
        {
            "run": f"run-{number}",
            "wake": wake,
            "started_at": utc_now(),
            "ended_at": utc_now(),
            "why": "the queue is empty",
            "unavailable": False,
            "done": done,
            "stages_s": stages_s,
            "taken": [taken],
        }
    )


def test_a_job_takes_what_jobs_of_the_last_runs_took_on_the_workers_own_clock() -> None:
    spec = load_models(None)["testcard"]
    runs = [report(1, 2, start=3.0, load=5.0, render=6.0, film=3.0, upload=1.0, idle=50.0), report(2, 3, start=1.0, load=5.0, render=5.0)]  # fmt: skip

    assert pace_of(History(runs), spec) == Pace(start_s=7.0, job_s=3.0, measured=True)


def test_without_runs_the_models_entry_is_a_guess() -> None:
    models = load_models(None)

    found = pace_of(History([report(1, 0, start=1.0)]), models["flux-schnell"])

    assert not found.measured
    assert found.job_s == guessed_job_s(models["flux-schnell"]) > guessed_job_s(models["testcard"])
    assert GUESSED_SHOTS * 4 * models["flux-schnell"].expected_s < found.job_s < 10 * 60


def test_the_pace_is_read_again_every_few_minutes(tmp_path: Path) -> None:
    store, now = FolderStore(tmp_path), 0.0
    workload = Workload(Settings(model="testcard"), store, lambda: now)
    assert not workload.pace().measured
    store.put(".nightreel/runs/1.json", report(1, 2, render=8.0).to_bytes())

    now = 299.0
    assert not workload.pace().measured
    now = 300.0
    assert workload.pace().job_s == 4.0


# When the queue was found empty


def test_the_last_run_that_found_the_queue_empty_tells_when(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    emptied = Emptied(store)
    assert emptied.at() == 0.0

    def leaves(name: str, minute: int, **fields: object) -> None:
        ended_at = dt.datetime(2026, 3, 2, 12, minute, tzinfo=dt.UTC)
        left = report(1, 1, drain=4.0).model_copy(update={"ended_at": ended_at, **fields})
        entry = store.head(run_name(name))
        store.put(run_name(name), left.to_bytes(), generation=entry.generation if entry else 0)

    leaves("1", 10)
    leaves("2", 5, why="the queue is empty; 1 to be tried again, the next in 300 s: too long to idle for")
    leaves("3", 20, why="on hold: the bill")
    leaves("4", 21, why="SIGTERM asked it to leave")
    leaves("5", 22, unavailable=True)
    leaves("6", 23, state="running")
    at = dt.datetime(2026, 3, 2, 12, 10, tzinfo=dt.UTC).timestamp()
    assert emptied.at() == at - 4 - CLOCKS_S

    # And a run that goes on is looked at again
    leaves("6", 24)
    assert emptied.at() == at + 14 * 60 - 4 - CLOCKS_S
