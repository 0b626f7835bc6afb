"""The embedded queue: the contract, and what only a file has to bear."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from queue_contract import PATIENCE_S, QueueContract, QueueHarness, pull

from nightreel_queue import sqlite
from nightreel_queue.base import Backlog, Message
from nightreel_queue.errors import LeaseLost, QueueUnavailable
from nightreel_queue.sqlite import SqliteQueue

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()
LEASE_S = 60.0


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out/.nightreel/queue.db"


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def open_queue(path: Path) -> Iterator[Callable[[Callable[[], float]], SqliteQueue]]:
    opened: list[SqliteQueue] = []

    def open_another(clock: Callable[[], float]) -> SqliteQueue:
        opened.append(SqliteQueue(path, lease_s=LEASE_S, clock=clock))
        return opened[-1]

    yield open_another
    for queue in opened:
        queue.close()


@pytest.fixture
def harness(path: Path, open_queue: Callable[[Callable[[], float]], SqliteQueue]) -> QueueHarness:
    ahead_s = Clock(0.0)  # of real time, which the other processes go by
    source = (
        "from pathlib import Path\n"
        "from nightreel_queue.sqlite import SqliteQueue\n"
        f"queue = SqliteQueue(Path({str(path)!r}), lease_s={LEASE_S})"
    )
    return QueueHarness(lambda: open_queue(lambda: time.time() + ahead_s.now), source, LEASE_S, ahead_s.advance)


@pytest.fixture
def queue(open_queue: Callable[[Callable[[], float]], SqliteQueue], clock: Clock) -> SqliteQueue:
    return open_queue(clock)


class TestSqliteQueue(QueueContract):
    pass


def make_database(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


# What only this queue promises


def test_the_backlog_is_counted_exactly(queue: SqliteQueue, clock: Clock) -> None:
    assert queue.backlog() == Backlog()

    # Given a message in each state
    queue.publish([Message(str(number).encode()) for number in range(5)])
    pull(queue)
    pull(queue).release(10)
    pull(queue).dead_letter("broken")

    # Then each is counted where it belongs, and it says when the next one is due
    assert queue.backlog() == Backlog(ready=2, delayed=1, leased=1, dead=1, next_ready_s=10)
    assert queue.backlog().total == 4

    # And what is due is ready
    clock.advance(10)
    assert queue.backlog() == Backlog(ready=3, delayed=0, leased=1, dead=1, next_ready_s=LEASE_S - 10, oldest_s=10)
    clock.advance(LEASE_S)
    assert queue.backlog() == Backlog(ready=4, dead=1, oldest_s=10 + LEASE_S)


def test_the_backlog_says_how_old_the_oldest_ready_message_is_and_how_many_are_urgent(
    queue: SqliteQueue, clock: Clock
) -> None:
    # Given an old message that somebody holds, one that came later, and two urgent ones, of which one is held
    queue.publish([Message(b"old", "old")])
    pull(queue)
    clock.advance(5)
    queue.publish([Message(b"later")])
    clock.advance(2)
    queue.publish([Message(b"urgent", urgent=True), Message(b"urgent too", urgent=True)])
    pull(queue)

    # Then only those count that a pull would get
    clock.advance(1)
    backlog = queue.backlog()
    assert (backlog.ready, backlog.oldest_s, backlog.urgent) == (2, 3, 1)

    # And a message that comes back is as old as it was when it was published
    clock.advance(LEASE_S)
    assert queue.backlog().oldest_s == 8 + LEASE_S


def test_a_lease_lasts_to_the_second(queue: SqliteQueue, clock: Clock) -> None:
    queue.publish([Message(b"x")])
    pull(queue)

    clock.advance(LEASE_S - 0.001)
    assert queue.pull() is None
    clock.advance(0.001)
    assert pull(queue).delivery_attempt == 2


def test_a_lease_that_ran_out_can_be_used_while_nobody_else_took_the_message(queue: SqliteQueue, clock: Clock) -> None:
    # Given a laptop that slept for a day with two jobs in work
    queue.publish([Message(b"1"), Message(b"2")])
    first, second = pull(queue), pull(queue)
    clock.advance(86400)

    # Then both go on
    first.ack()
    second.extend()
    assert queue.pull() is None
    assert queue.backlog() == Backlog(leased=1, next_ready_s=LEASE_S)


@pytest.mark.parametrize("settle", ["ack", "release", "dead_letter"])
def test_a_delivery_is_settled_once(queue: SqliteQueue, settle: str) -> None:
    queue.publish([Message(b"x")])
    delivery = pull(queue)
    getattr(delivery, settle)(*["reason"][: settle == "dead_letter"])
    before = queue.backlog()

    for use in (delivery.extend, delivery.ack, delivery.release, lambda: delivery.dead_letter("again")):
        with pytest.raises(LeaseLost):
            use()

    assert queue.backlog() == before


def test_a_message_is_dropped_while_one_of_its_key_waits_or_is_leased(queue: SqliteQueue) -> None:
    queue.publish([Message(b"first", "key"), Message(b"twice in one go", "key")])
    queue.publish([Message(b"while it waits", "key")])
    delivery = pull(queue)
    queue.publish([Message(b"while it is leased", "key")])
    delivery.release(10)
    queue.publish([Message(b"while it is delayed", "key"), Message(b"other", "other key")])

    assert delivery.body == b"first"
    assert queue.backlog() == Backlog(ready=1, delayed=1, next_ready_s=10)


def test_publishing_is_all_or_none(queue: SqliteQueue) -> None:
    # Given a message that cannot be stored, behind some that can
    unstorable: bytes = object()  # type: ignore[assignment]
    with pytest.raises(QueueUnavailable):
        queue.publish([Message(b"1"), Message(b"2"), Message(unstorable)])

    assert queue.backlog().total == 0
    queue.publish([Message(b"3")])
    assert queue.backlog().total == 1


def test_dead_letters_are_kept_with_reason_and_time(queue: SqliteQueue, clock: Clock) -> None:
    queue.publish([Message(b"1"), Message(b"2")])
    pull(queue).dead_letter("not a job")
    clock.advance(60)
    pull(queue).dead_letter("no such model: flux")

    noon = dt.datetime.fromtimestamp(NOON, dt.UTC)
    assert [(letter.body, letter.reason, letter.at) for letter in queue.dead()] == [
        (b"1", "not a job", noon),
        (b"2", "no such model: flux", noon + dt.timedelta(minutes=1)),
    ]


def test_a_released_message_keeps_its_place(queue: SqliteQueue) -> None:
    queue.publish([Message(b"1"), Message(b"2")])

    pull(queue).release()

    assert pull(queue).body == b"1"


def test_closing_ends_a_pull_that_waits(queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pull that has found nothing, and looks again in ten seconds
    waits = threading.Event()

    class Closed(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    monkeypatch.setattr(sqlite, "POLL_S", (PATIENCE_S, PATIENCE_S))
    monkeypatch.setattr(queue, "_closed", Closed())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.pull, 2 * PATIENCE_S)
        assert waits.wait(PATIENCE_S / 2)

        # When another thread closes the queue, then the pull ends instead of looking at a closed file
        queue.close()
        assert waiting.result() is None


def test_a_closed_queue_says_so(queue: SqliteQueue) -> None:
    queue.close()

    with pytest.raises(QueueUnavailable, match="closed"):
        queue.backlog()


# The file


def test_a_commit_is_on_the_disk_when_it_returns(queue: SqliteQueue) -> None:
    (synchronous,) = queue._db.execute("PRAGMA synchronous").fetchone()
    (mode,) = queue._db.execute("PRAGMA journal_mode").fetchone()

    assert (synchronous, mode) == (2, "wal")  # 2 is FULL


def test_a_file_says_what_it_is(queue: SqliteQueue, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("PRAGMA application_id").fetchone() == (sqlite.APPLICATION_ID,)


@pytest.mark.parametrize("version", [0, 2])
def test_a_file_of_another_format_is_left_alone_and_the_mend_is_named(path: Path, version: int) -> None:
    make_database(
        path,
        f"PRAGMA application_id = {sqlite.APPLICATION_ID}",
        f"PRAGMA user_version = {version}",
        "CREATE TABLE messages (other)",
    )
    before = path.read_bytes()

    with pytest.raises(QueueUnavailable) as caught:
        SqliteQueue(path)

    assert str(caught.value) == (
        f"{path} was written by Nightreel's queue format {version}, this version reads 1: finish it with the version"
        " that wrote it, or move the file away and enqueue again; videos already made are not made again"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("statement", ["CREATE TABLE bookmarks (url)", "PRAGMA user_version = 1"])
def test_another_programs_database_is_left_alone(path: Path, statement: str) -> None:
    make_database(path, statement)
    before = path.read_bytes()

    with pytest.raises(QueueUnavailable, match=r"queue\.db is a database of another program: name another file"):
        SqliteQueue(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"jobs", b"jobs: []\n" * 1000], ids=["short", "long"])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(QueueUnavailable, match=r"queue\.db is not a queue .* name another file"):
        SqliteQueue(path)

    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_queue(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()

    with closing(SqliteQueue(path)) as queue:
        assert queue.backlog() == Backlog()


def test_a_folder_in_the_way_is_named(path: Path) -> None:
    path.mkdir(parents=True)

    with pytest.raises(QueueUnavailable, match=r"queue\.db is a folder: name a file in it"):
        SqliteQueue(path)


def test_a_place_that_cannot_be_made_is_named(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")

    with pytest.raises(QueueUnavailable, match=f"{path.parent} cannot be made .* may write to"):
        SqliteQueue(path)


def test_a_place_that_cannot_be_written_is_named(path: Path, queue: SqliteQueue) -> None:
    # Given a queue on a disk that is mounted read-only
    queue.close()
    read_only = ("unshare", "-rm", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')
    folder = str(path.parent)
    try:
        subprocess.run([*read_only, folder, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs `unshare -rm` (Linux with user namespaces) for a disk that cannot be written")
    script = """
import sys
from pathlib import Path
from nightreel_queue.errors import QueueUnavailable
from nightreel_queue.sqlite import SqliteQueue
for name in ("queue.db", "new.db"):
    try:
        SqliteQueue(Path(sys.argv[1]) / name)
    except QueueUnavailable as error:
        print(error)
"""

    told = subprocess.run(
        [*read_only, folder, sys.executable, "-c", script, folder], check=True, capture_output=True, text=True
    )

    assert [line.split(" cannot be opened for writing")[0] for line in told.stdout.splitlines()] == [
        f"{folder}/queue.db",
        f"{folder}/new.db",
    ]
    assert told.stdout.count("may write to") == 2


def test_a_file_that_stays_locked_is_named(
    path: Path, open_queue: Callable[[Callable[[], float]], SqliteQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    queue = open_queue(time.time)

    # Given another program that holds the file's lock
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(QueueUnavailable, match=r"queue\.db was locked by another program"):
            queue.publish([Message(b"x")])
        with pytest.raises(QueueUnavailable, match="locked"):
            SqliteQueue(path)

    # Then it works again afterwards
    queue.publish([Message(b"x")])
    assert queue.backlog().ready == 1


def test_a_disk_without_room_loses_nothing_and_is_named(path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from nightreel_queue.base import Message
from nightreel_queue.errors import QueueUnavailable
from nightreel_queue.sqlite import SqliteQueue
queue = SqliteQueue(Path(sys.argv[1]))
queue.publish([Message(b"x")])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    queue.publish([Message(bytes(500_000)) for _ in range(4)])
except QueueUnavailable as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert (queue.backlog().ready, queue.backlog().total) == (1, 1), queue.backlog()
queue.publish([Message(b"y")])
assert queue.pull().body == b"x"
queue.close()
"""
    told = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)

    assert told.stdout.startswith(str(path)) or told.stdout.startswith("no room left for")
    assert told.stdout.count("\n") == 1


def test_processes_that_open_a_new_file_at_once_all_get_the_queue(tmp_path: Path) -> None:
    # Given four processes that open eight new files at the same time, and publish into each
    script = """
import sys
from pathlib import Path
from nightreel_queue.base import Message
from nightreel_queue.sqlite import SqliteQueue
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    queue = SqliteQueue(Path(sys.argv[1]) / str(number) / "queue.db")
    queue.publish([Message(sys.argv[2].encode())])
    queue.close()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mark in "abcd"
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0

    # Then every message is there
    for number in range(8):
        with closing(SqliteQueue(tmp_path / str(number) / "queue.db")) as queue:
            assert sorted(pull(queue).body for _ in range(4)) == [b"a", b"b", b"c", b"d"]
            assert queue.pull() is None


def test_attributes_are_text_whatever_they_say(queue: SqliteQueue) -> None:
    attributes = {"round": "1", 'quote " and \u00fc': json.dumps({"a": 1})}
    queue.publish([Message(b"x", attributes=attributes)])

    assert pull(queue).attributes == attributes
