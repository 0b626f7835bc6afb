"""A watched folder: whole files only, each version once, also what came while nobody looked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from house import House, until
from serving import manifest_text, serving

from nightreel_dispatcher.clock import time_of_day
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.folder_tray import FolderTray
from nightreel_dispatcher.replies import Reply
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_dispatcher.watch import SETTLE_S, Watcher
from nightreel_storage.batches import Batches
from nightreel_worker.settings import Settings

KILLED = """
import os, signal, sys
from nightreel.main import app
from nightreel_queue.sqlite import SqliteQueue
SqliteQueue.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app(["serve", *sys.argv[1:]])
"""


def reply(folder: Path, name: str) -> Reply | None:
    path = folder / "replies" / f"{name}.json"
    return Reply.from_bytes(path.read_bytes(), name) if path.exists() else None


def test_what_is_dropped_is_answered_also_what_came_before_and_after_a_kill(house: House) -> None:
    inbox = house.folder / "inbox"
    inbox.mkdir()
    (inbox / "before.json").write_text(manifest_text("a"))

    # Its end comes between record and publish
    house.environment["NIGHTREEL_DISPATCHER_INTAKE_TIMEOUT_S"] = "0.5"
    with serving(house, "--watch", "inbox", command=(sys.executable, "-c", KILLED)) as doomed:
        doomed.process.wait(60)
        doomed.die()
    assert reply(inbox, "before.json") is None

    with serving(house, "--watch", "inbox"):
        until(lambda: reply(inbox, "before.json"), "the first reply")
        (inbox / "bad.csv").write_text("prompt,fps\nx,99\n")
        until(lambda: reply(inbox, "bad.csv"), "the second reply")

    good, bad = reply(inbox, "before.json"), reply(inbox, "bad.csv")
    assert good is not None
    assert bad is not None
    assert good.ok
    assert not bad.ok
    assert bad.problems[0].place.startswith("bad.csv:1")
    assert house.queue.backlog().total == 1
    assert len(list(Batches(house.store).list())) == 1


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    desk = Desk(Settings(store=str(tmp_path / "out"), model="testcard"), DispatcherSettings())
    return Watcher(desk, FolderTray(tmp_path / "inbox"))


def settle(watcher: Watcher, at: float = 0.0) -> None:
    """Look twice, far enough apart."""
    watcher.look(at)
    watcher.look(at + SETTLE_S)


def test_a_file_is_taken_once_it_has_stayed_as_it_is(watcher: Watcher) -> None:
    inbox = watcher.tray.folder
    with (inbox / "a.txt").open("w") as file:
        for step in range(3):
            print(f"a boat {step}", file=file, flush=True)
            watcher.look(step * SETTLE_S)
            assert reply(inbox, "a.txt") is None
    watcher.look(2 * SETTLE_S + SETTLE_S / 2)
    assert reply(inbox, "a.txt") is None

    watcher.look(3 * SETTLE_S)

    found = reply(inbox, "a.txt")
    assert found is not None
    assert found.jobs == 3


def test_each_version_is_taken_once_and_a_touched_or_renewed_one_anew(watcher: Watcher) -> None:
    inbox = watcher.tray.folder
    (inbox / "a.txt").write_text("a boat\n")
    settle(watcher)
    first = reply(inbox, "a.txt")
    assert first is not None

    # Nothing new, also for one who has just come
    Watcher(watcher.desk, watcher.tray).look(0)
    settle(Watcher(watcher.desk, watcher.tray))
    settle(watcher, 10)
    assert reply(inbox, "a.txt") == first

    (inbox / "new").write_text("a tent\na boat\n")
    (inbox / "new").rename(inbox / "a.txt")
    settle(watcher, 20)
    second = reply(inbox, "a.txt")
    assert second is not None
    assert (second.jobs, second.batch != first.batch) == (2, True)

    # Another content at the same time of change
    times = (inbox / "a.txt").stat()
    (inbox / "a.txt").write_text("a tent\na ship\n")
    os.utime(inbox / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    settle(Watcher(watcher.desk, watcher.tray))
    third = reply(inbox, "a.txt")
    assert third is not None
    assert third.batch not in (first.batch, second.batch)


def test_what_editors_keep_folders_links_and_replies_are_no_manifests(watcher: Watcher, tmp_path: Path) -> None:
    inbox = watcher.tray.folder
    (tmp_path / "secret.txt").write_text("a secret\n")
    (inbox / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inbox / "folder.csv").mkdir()
    for name in (".a.txt", "~a.csv", "#a.txt", "a.txt~", "a.txt.swp", "a.png", "replies/x.json"):
        (inbox / name).write_text("a boat\n")
    os.mkfifo(inbox / "pipe.txt")

    settle(watcher)

    assert [path.name for path in (inbox / "replies").iterdir()] == ["x.json"]
    assert not list(Batches(watcher.desk.store).list())


def test_trouble_with_the_queue_is_over_some_day_and_the_file_is_taken_then(watcher: Watcher) -> None:
    inbox = watcher.tray.folder
    (inbox / "a.txt").write_text("a boat\n")
    store = watcher.desk.store
    queue = Path(watcher.desk.settings.store) / ".nightreel/queue.db"
    queue.write_text("no queue")
    watcher.look(0)
    with pytest.raises(Exception, match="queue"):
        watcher.look(SETTLE_S)
    assert reply(inbox, "a.txt") is None

    queue.unlink()
    watcher.look(2 * SETTLE_S)

    assert reply(inbox, "a.txt") is not None
    assert len(list(Batches(store).list())) == 1


# The clock


@pytest.mark.parametrize("text", ["2:00", "24:00", "02:60", "02", "02:00:00", "nightly", ""])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write HH:MM"):
        time_of_day(text)


def test_a_wrong_hour_ends_the_command_in_one_line(house: House) -> None:
    run = house.work(sys.executable, "-m", "nightreel", "serve", "--nightly", "25:00")

    assert run.code == 2
    assert run.err == (
        "nightreel: setting NIGHTREEL_DISPATCHER_NIGHTLY: Value error, '25:00' is no time of day: write HH:MM, such as"
        " 02:00; found '25:00'\n"
    )
