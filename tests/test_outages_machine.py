"""The worker's own machine: it sleeps past its leases, its disks fill up, its clock is set. Real workers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from far import hooked
from house import House, finish, job, until, verdict

from nightreel_pipelines.errors import BadVideo, FilmFailed, Unrenderable
from nightreel_queue.base import Delivery
from nightreel_queue.errors import LeaseLost
from nightreel_worker.scratch import lacks_room

DISK_BYTES = 1 << 20
PAGE_BYTES = 4096

# A worker that does something, once, right before a step: of the parts `module:Class.method` and a statement.
BEFORE = """
import contextlib, importlib, os, pathlib, signal, threading
module, _, path = {place!r}.partition(":")
owner = importlib.import_module(module)
*owners, name = path.split(".")
for each in owners:
    owner = getattr(owner, each)
original, todo = getattr(owner, name), [1]

def step(*args, **options):
    if todo:
        todo.clear()
        {do}
    return original(*args, **options)

setattr(owner, name, step)
"""
KEYFRAME, VIDEO, RECEIPT = (
    "nightreel_storage.keyframes:Keyframes.put",
    "nightreel_worker.commit:Committer._put",
    "nightreel_storage.receipts:Receipts.commit",
)
STEPS = pytest.mark.parametrize("place", [KEYFRAME, VIDEO, RECEIPT], ids=["keyframe", "video", "receipt"])


# Not in the middle of a transaction, which would lock the queue's file for everybody; and this thread at once: a signal
# to the whole process may leave it the time for its step.
FALL_ASLEEP = """
        import gc
        from nightreel_queue.sqlite import SqliteQueue
        with contextlib.ExitStack() as stack:
            for each in [each for each in gc.get_objects() if isinstance(each, SqliteQueue)]:
                stack.enter_context(each._lock)
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
"""


def before(place: str, do: str) -> tuple[str, ...]:
    return hooked(BEFORE.format(place=place, do=do))


def sleeps(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# Leases


@STEPS
def test_a_worker_that_wakes_after_another_has_done_its_job_writes_nothing(any_house: House, place: str) -> None:
    """It sleeps after it has made sure of its lease, right before it writes: only the store can stop it."""
    any_house.enqueue(job("film", "one"))
    sleeper = any_house.start(*before(place, FALL_ASLEEP))
    until(lambda: sleeps(sleeper), "the worker to fall asleep", sleeper)

    # When its lease has run out, and another worker has done the job
    assert any_house.work_all().code == 0
    receipt = any_house.receipt("film")
    sleeper.send_signal(signal.SIGCONT)
    run = finish(sleeper)

    # Then it leaves everything as it is
    assert run.code == 0, run.err
    assert any_house.receipt("film") == receipt
    assert any_house.attempts("film")[0].end == "lost", run.err
    verdict(any_house, "film", again={"one": int(place == KEYFRAME)})


def test_a_worker_whose_message_somebody_else_has_puts_nothing(any_house: House) -> None:
    # Given a worker that falls asleep over a film that it has yet to put, and somebody who takes its message meanwhile
    any_house.enqueue(job("film", "one"))
    sleeper = any_house.start(*before("nightreel_worker.commit:check", FALL_ASLEEP))
    until(lambda: sleeps(sleeper), "the worker to fall asleep", sleeper)
    taken: list[Delivery] = []

    def take() -> list[Delivery]:
        if delivery := any_house.queue.pull(1.0):
            taken.append(delivery)
        return taken

    until(take, "the lease to run out")

    sleeper.send_signal(signal.SIGCONT)
    until(lambda: any_house.attempts("film")[0].end, "the attempt's end", sleeper)

    assert any_house.attempts("film")[0].end == "lost"
    assert any_house.store.head("b/film.mp4") is None
    with contextlib.suppress(LeaseLost):  # on a slow machine it has come back by itself
        taken[0].release()
    assert finish(sleeper).code == 0
    assert any_house.work_all().code == 0
    verdict(any_house, "film")


# Disks


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of 1 MB on a folder of the house that is still to be made."""
    mounted: list[Path] = []

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount a disk in memory: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave_pages: int = 0) -> Path:
    """Fill a disk with one file; returns that."""
    state = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(state.f_bavail * state.f_frsize - leave_pages * PAGE_BYTES))
    return filler


@pytest.mark.parametrize("pages", [0, 3], ids=["keyframe", "film"])
def test_a_full_scratch_disk_ends_the_run_with_the_mend_and_costs_the_job_nothing(
    make_disk: Callable[[str], Path], make_house: Callable[..., House], pages: int
) -> None:
    # Given a disk without room for the keyframe, or for the film that has 1,440 frames
    filler = fill(make_disk("scratch"), pages)
    house = make_house()
    long = job("film", "one", shots=[{"prompt": "one", "duration": 60, "motion": "still"}])
    house.enqueue(long.model_copy(update={"output": long.output.model_copy(update={"fps": 24})}))

    run = house.work()

    assert run.code == 3, run.err
    assert "make room, or set NIGHTREEL_SCRATCH" in run.err.splitlines()[-1]
    assert [each.end for each in house.attempts("film")] == ["preempted"]
    assert house.queue.backlog().ready == 1

    # When there is room again
    filler.unlink()
    assert house.work_all().code == 0

    verdict(house, "film", again={"one": int(pages == 0)})


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "one.png"), True),
        (FilmFailed("OSError: [Errno 28] No space left on device: 'one.png'"), True),  # as the renderer tells it
        (BadVideo("video.mp4 does not decode: Error writing trailer: No space left on device"), True),
        (OSError(errno.EIO, os.strerror(errno.EIO), "one.png"), False),
        (Unrenderable("no space left on device: No space left on device"), False),  # a prompt may say so
    ],
    ids=repr,
)
def test_a_full_disk_is_known_by_the_errors_that_it_leads_to(error: Exception, lacks: bool) -> None:
    assert lacks_room(error) is lacks


def test_a_scratch_folder_that_cannot_be_made_is_told_in_one_line(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    house.enqueue(job("film", "one"))

    run = house.work(scratch=str(tmp_path / "file/scratch"))

    assert run.code == 3
    assert run.err.splitlines()[-1].startswith("nightreel: the scratch folder cannot be used (")
    assert house.queue.backlog().ready == 1


@STEPS
def test_a_full_store_ends_the_run_with_the_mend_and_the_next_worker_finishes(
    make_disk: Callable[[str], Path], make_house: Callable[..., House], place: str
) -> None:
    store = make_disk("out")
    house = make_house()
    house.enqueue(job("film", "one"))
    filler = store / "filler"
    program = f"disk = os.statvfs({str(store)!r}); size = disk.f_bavail * disk.f_frsize"

    run = house.work(*before(place, f"{program}; pathlib.Path({str(filler)!r}).write_bytes(bytes(size))"))

    assert run.code == 3, run.err
    assert f"no room left in {store}" in run.err.splitlines()[-1]
    assert not house.has_ended("film")

    # When there is room again
    filler.unlink()
    assert house.work_all().code == 0

    verdict(house, "film", again={"one": int(place == KEYFRAME)})


# The clock

# Not for gRPC, which hands its deadlines to a library of its own that cannot be told of the jump.
JUMPS = """
import datetime, grpc._channel, os, time, types
grpc._channel.time = types.SimpleNamespace(**vars(time))
real_time, real_ns = time.time, time.time_ns
jumped_s = lambda: {seconds} if os.path.exists({marker!r}) else 0
time.time = lambda: real_time() + jumped_s()
time.time_ns = lambda: real_ns() + jumped_s() * 10**9
import nightreel_storage.receipts
nightreel_storage.receipts.utc_now = lambda: datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
"""


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_set_in_the_middle_of_a_job_is_seen_in_its_records_alone(
    any_house: House, tmp_path: Path, seconds: int
) -> None:
    """A receipt may then say that its job ended before it was published: records tell the machine's time of day."""
    marker = tmp_path / "jumped"
    any_house.enqueue(job("film", "one", "half a second two"), job("next", "three"), job("last", "four"))
    process = any_house.start(*hooked(JUMPS.format(seconds=seconds, marker=str(marker))))
    until(lambda: list(any_house.store.list(".nightreel/keyframes/")), "the first keyframe", process)

    marker.touch()
    run = finish(process)

    assert run.code == 0, run.err
    for name in ("film", "next", "last"):
        assert "failed" not in [each.end for each in any_house.attempts(name)]
    held = any_house.receipt("film")
    assert held.published_at is not None
    assert abs((held.ended_at - held.published_at).total_seconds() - seconds) < abs(seconds) / 2
    # An SQLite queue that is shared by processes goes by the time of day: it may give a job twice, to one receipt
    verdict(any_house, "film", "next", "last", again=dict.fromkeys(["one", "half a second two", "three"], 1))
