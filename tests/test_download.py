"""download: every finished video arrives whole, and nothing of anybody else's is replaced."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from finished import end, enqueue, finish, nightreel, videos
from house import House, kill, until
from places import Places

COMMAND = (sys.executable, "-m", "nightreel")
NAMES = ("harbour", "moon", "sun")


@pytest.fixture
def house(make_house: Callable[..., House], store_url: str, tmp_path: Path) -> House:
    """A batch of three videos, in a folder or a bucket."""
    house = make_house(Places(f"sqlite:///{tmp_path / 'queue.db'}", store_url))
    jobs = enqueue(house, *NAMES)
    for name, film in videos(jobs).items():
        finish(house.store, jobs[name], film)
    return house


@pytest.fixture
def on_disk(make_house: Callable[..., House]) -> House:
    """The same in a folder alone: what does not depend on the store."""
    house = make_house()
    jobs = enqueue(house, *NAMES)
    for name, film in videos(jobs).items():
        finish(house.store, jobs[name], film)
    return house


def stored(house: House, name: str) -> bytes:
    return house.store.get(name)[0]


def test_the_videos_of_a_batch_are_copied_and_the_second_time_kept(house: House) -> None:
    first = nightreel(house, "download", "b", "-o", "mine")

    # Then they are there, whole, and nothing else is
    folder = house.folder / "mine/b"
    assert (first.code, first.err) == (0, "")
    assert sorted(first.out.splitlines()) == sorted(
        ["3 of 3 videos of b are in mine/b (3 files copied, 0 were there already)"]
        + [f"mine/b/{name}.mp4" for name in NAMES]
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{name}.mp4": stored(house, f"b/{name}.mp4") for name in NAMES
    }

    # And the second time they are left as they are, and what else belongs to a video may come
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second = nightreel(house, "download", "b", "-o", "mine", "--all")
    assert second.code == 0
    assert second.out.splitlines()[-1] == "3 of 3 videos of b are in mine/b (6 files copied, 3 were there already)"
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for name in NAMES:
        for suffix in ("jpg", "json"):
            assert (folder / f"{name}.{suffix}").read_bytes() == stored(house, f"b/{name}.{suffix}")
    assert len(list(folder.iterdir())) == 9


def test_what_an_interrupted_download_left_is_replaced(on_disk: House) -> None:
    folder = on_disk.folder / "b"
    folder.mkdir()
    (folder / "moon.mp4.part").write_bytes(b"the film")

    run = nightreel(on_disk, "download", "b", "moon")

    assert (run.code, run.err) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["moon.mp4"]
    assert (folder / "moon.mp4").read_bytes() == stored(on_disk, "b/moon.mp4")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("moon.mp4", "file"),
        ("moon.mp4", "link"),
        ("moon.mp4", "folder"),
        ("moon.mp4.part", "link"),
        ("moon.mp4.part", "folder"),
    ],
)
def test_somebody_elses_file_is_never_replaced_and_the_others_come(on_disk: House, place: str, what: str) -> None:
    folder = on_disk.folder / "b"
    folder.mkdir()
    mine = folder / place
    if what == "file":
        mine.write_bytes(b"mine")
    elif what == "link":
        (on_disk.folder / "elsewhere").write_bytes(stored(on_disk, "b/moon.mp4"))
        mine.symlink_to(on_disk.folder / "elsewhere")
    else:
        mine.mkdir()
    before = mine.lstat()

    run = nightreel(on_disk, "download", "b")

    assert run.code == 1
    assert run.err.startswith(f"nightreel: b/moon: b/{place} is ")
    assert ": move it away, or use -o\n" in run.err
    assert run.out.splitlines()[-1] == "2 of 3 videos of b are in b (2 files copied, 0 were there already)"
    assert (mine.lstat().st_ino, mine.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_cannot_be_had_is_told_with_the_reason(house: House) -> None:
    # Given a video that is gone, one that was changed behind the receipt's back, and jobs that made none
    jobs = enqueue(house, "early", "bad", "off")
    end(house.store, jobs["bad"], "failed", "shots[0].prompt: refused")
    end(house.store, jobs["off"], "cancelled", "cancelled by hand")
    for name in ("moon", "sun"):
        entry = house.store.head(f"b/{name}.mp4")
        assert entry is not None
        house.store.delete(entry.name, generation=entry.generation)
    house.store.put("b/sun.mp4", b"the film of sun " * 999 + b"another film....")

    run = nightreel(house, "download", "b")

    assert run.code == 1
    assert run.out.splitlines()[-1] == "1 of 6 videos of b are in b (1 files copied, 0 were there already)"
    lines = dict(line.removeprefix("nightreel: b/").split(": ", 1) for line in run.err.splitlines())
    assert "b/moon.mp4: there is no such object in " in lines.pop("moon")
    assert lines == {
        "sun": "the store's b/sun.mp4 is not what the receipt tells of: it was changed, or is damaged",
        "early": "has not ended yet; see: nightreel status b",
        "bad": "failed: shots[0].prompt: refused; once more: nightreel retry b bad",
        "off": "cancelled: cancelled by hand; once more: nightreel retry b off",
    }
    assert [path.name for path in (house.folder / "b").iterdir()] == ["harbour.mp4"]


def test_a_download_that_is_killed_goes_on_and_two_at_a_time_are_refused(on_disk: House) -> None:
    # Given a batch with a video that takes a while
    large = enqueue(on_disk, "large")["large"]
    finish(on_disk.store, large, os.urandom(1 << 20) * 150)
    part = on_disk.folder / "b/large.mp4.part"

    # When the download is killed on the way
    process = on_disk.start(*COMMAND, "download", "b")
    until(part.exists, "a part", process)
    process.send_signal(signal.SIGSTOP)

    # Then another one meanwhile is refused
    second = nightreel(on_disk, "download", "b")
    assert (second.code, second.out) == (2, "")
    assert "another download into b is running" in second.err
    kill(process)
    assert not (on_disk.folder / "b/large.mp4").exists()

    # And afterwards it brings the rest
    third = nightreel(on_disk, "download", "b")
    assert third.code == 0
    assert not part.exists()
    digest = hashlib.sha256((on_disk.folder / "b/large.mp4").read_bytes()).hexdigest()
    assert digest == hashlib.sha256(stored(on_disk, "b/large.mp4")).hexdigest()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("download", "flims"), "no batch flims; there are b"),
        (("download", "b", "star"), "batch b has no job star; see: nightreel status b"),
        (("download", "b", "-o", "queue.db"), "queue.db/b cannot be made or read (Not a directory)"),
    ],
)
def test_a_download_of_nothing_that_is_there_is_refused(
    on_disk: House, command: tuple[str, ...], complaint: str
) -> None:
    run = nightreel(on_disk, *command)

    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"nightreel: {complaint}")
