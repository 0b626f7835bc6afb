"""The embedded queue: one SQLite file, shared by the threads and processes of one machine.

A message is a row from its publish to its ack. A lease is a random token in that row and the moment at which the
message can be pulled again; whoever pulls it then writes a token of its own, and that is how the old holder finds out.
All moments are wall-clock time (seconds since 1970), because processes share no other clock.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import Backlog, Message
from .errors import LeaseLost, QueueUnavailable

FORMAT = 1  # PRAGMA user_version of the files that this module reads and writes
APPLICATION_ID = 0x4E725131  # "NrQ1", PRAGMA application_id: the file is a queue of Nightreel's
LEASE_S = 15.0
MAX_DELAY_S = 600.0
BUSY_TIMEOUT_S = 10.0  # how long a statement waits for the other processes' locks
BUSY_PAUSE_S = 0.002  # between two tries; SQLite's own pauses grow to 0.1 s, and a busy neighbour then wins for seconds
AT_ONCE = 0.0  # visible since ever: also after the clock was set back
POLL_S = (0.02, 0.25)  # first and longest pause between two looks at an empty queue

_SCHEMA = (
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of publishing
        body BLOB NOT NULL,
        key TEXT NOT NULL,
        attributes TEXT NOT NULL,  -- a JSON object
        urgent INTEGER NOT NULL,
        published_at REAL NOT NULL,
        visible_at REAL NOT NULL,  -- can be pulled from then on: the end of the lease or of the delay
        delivery_attempt INTEGER NOT NULL DEFAULT 0,
        lease TEXT  -- token of the latest delivery; NULL when nobody holds the message
    )""",
    "CREATE UNIQUE INDEX one_of_a_key ON messages (key) WHERE key <> ''",
    # Covers pull and backlog: they find their rows without reading bodies.
    "CREATE INDEX waiting ON messages (urgent DESC, id, visible_at, lease)",
    "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, body BLOB NOT NULL, reason TEXT NOT NULL, died_at REAL NOT NULL)",
)
_IDENTITY = (  # in one statement: it sees another process's creation of the tables wholly or not at all
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
    " FROM pragma_application_id, pragma_user_version"
)
_NEXT = "FROM messages WHERE visible_at <= ? ORDER BY urgent DESC, id LIMIT 1"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up."""

    body: bytes
    reason: str
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class SqliteDelivery:
    """A leased message. A lease that ran out can still be extended or settled while nobody else has pulled it."""

    queue: SqliteQueue
    id: int
    token: str
    body: bytes
    attributes: Mapping[str, str]
    delivery_attempt: int
    published_at: dt.datetime
    lease_s: float

    def extend(self) -> None:
        with self.queue.leased(self) as (db, now):
            db.execute("UPDATE messages SET visible_at = ? WHERE id = ?", (now + self.lease_s, self.id))

    def ack(self) -> None:
        with self.queue.leased(self) as (db, _):
            db.execute("DELETE FROM messages WHERE id = ?", (self.id,))

    def release(self, delay_s: float = 0.0) -> None:
        """As in the contract. Raises ValueError when the delay is not one of 0 to 600 s."""
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise ValueError(f"a message can be delayed by 0 to {MAX_DELAY_S:g} s, not {delay_s:g}")
        with self.queue.leased(self) as (db, now):
            visible_at = now + delay_s if delay_s else AT_ONCE
            db.execute("UPDATE messages SET lease = NULL, visible_at = ? WHERE id = ?", (visible_at, self.id))

    def dead_letter(self, reason: str) -> None:
        with self.queue.leased(self) as (db, now):
            db.execute(
                "INSERT INTO dead_letters (body, reason, died_at) SELECT body, ?, ? FROM messages WHERE id = ?",
                (reason, now, self.id),
            )
            db.execute("DELETE FROM messages WHERE id = ?", (self.id,))


class SqliteQueue:
    """A queue in the file `path`, which is made with its folders when there is none. Raises QueueUnavailable."""

    def __init__(self, path: Path, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.Lock()  # one connection, one thread at a time: statements are short
        self._closed = threading.Event()
        self._db = _open(path)

    @property
    def empty_after_s(self) -> float:
        return 0.0  # a pull and the backlog see the file as it is

    def publish(self, messages: Sequence[Message]) -> None:
        """As in the contract, all or none; drops a message whose key is that of one which waits or is leased."""
        now = self._clock()
        rows = (
            (message.body, message.key, json.dumps(dict(message.attributes)), message.urgent, now, AT_ONCE)
            for message in messages
        )
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO messages (body, key, attributes, urgent, published_at, visible_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) WHERE key <> '' DO NOTHING",
                rows,
            )

    def pull(self, wait_s: float = 0.0) -> SqliteDelivery | None:
        """As in the contract. Looks without a write lock, and less often the longer nothing comes."""
        deadline = time.monotonic() + wait_s
        pause_s, longest_s = POLL_S
        while True:
            if self._read(f"SELECT 1 {_NEXT}", self._clock()) and (delivery := self._claim()):
                return delivery
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._closed.wait(min(pause_s, left_s)):
                return None
            pause_s = min(2 * pause_s, longest_s)

    def _claim(self) -> SqliteDelivery | None:
        token = uuid.uuid4().hex
        with self._transaction() as db:
            now = self._clock()  # taken here: the lock may have been a long time coming
            row = db.execute(f"SELECT id, body, attributes, delivery_attempt, published_at {_NEXT}", (now,)).fetchone()
            if row is None:  # somebody else was faster
                return None
            id_, body, attributes, attempts, published_at = row
            db.execute(
                "UPDATE messages SET lease = ?, visible_at = ?, delivery_attempt = ? WHERE id = ?",
                (token, now + self._lease_s, attempts + 1, id_),
            )
        return SqliteDelivery(
            self, id_, token, body, json.loads(attributes), attempts + 1, _utc(published_at), self._lease_s
        )

    def backlog(self) -> Backlog:
        """Exact counts. A message whose lease ran out counts as ready."""
        now = self._clock()
        ready, delayed, leased, next_at, first_at, urgent, dead = self._read(
            "SELECT coalesce(sum(visible_at <= ?1), 0), coalesce(sum(visible_at > ?1 AND lease IS NULL), 0),"
            " coalesce(sum(visible_at > ?1 AND lease IS NOT NULL), 0), min(CASE WHEN visible_at > ?1 THEN visible_at END),"
            " (SELECT published_at FROM messages WHERE id = (SELECT min(id) FROM messages WHERE visible_at <= ?1)),"
            " coalesce(sum(visible_at <= ?1 AND urgent), 0),"
            " (SELECT count(*) FROM dead_letters) FROM messages",
            now,
        )[0]
        oldest_s = 0.0 if first_at is None else max(0.0, now - first_at)
        return Backlog(ready, delayed, leased, dead, None if next_at is None else next_at - now, oldest_s, urgent)

    def dead(self) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        rows = self._read("SELECT body, reason, died_at FROM dead_letters ORDER BY id")
        return [DeadLetter(body, reason, _utc(died_at)) for body, reason, died_at in rows]

    def close(self) -> None:
        """As in the contract; a pull that waits in another thread returns None."""
        self._closed.set()
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def leased(self, delivery: SqliteDelivery) -> Iterator[tuple[sqlite3.Connection, float]]:
        """A transaction, and the time, in which `delivery` holds its lease. Raises LeaseLost when it does not."""
        with self._transaction() as db:
            held = "SELECT 1 FROM messages WHERE id = ? AND lease = ?"
            if db.execute(held, (delivery.id, delivery.token)).fetchone() is None:
                raise LeaseLost(
                    f"message {delivery.id}: delivery {delivery.delivery_attempt} is settled, or its lease ended and"
                    " somebody else pulled the message"
                )
            yield db, self._clock()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translated(self._path), self._db:  # commits, or rolls back when an exception passes
            _patiently(self._db, "BEGIN IMMEDIATE")
            yield self._db

    def _read(self, sql: str, *values: float) -> list[Any]:
        with self._lock, _translated(self._path):
            return _patiently(self._db, sql, *values).fetchall()


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a queue file of our format."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QueueUnavailable(
            f"{path.parent} cannot be made ({error.strerror}): the queue's file needs a folder that you may write to"
        ) from error
    if os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir, never raises
        raise QueueUnavailable(f"{path} is a folder: name a file in it, such as {path / 'queue.db'}")
    with _translated(path):
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
        return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    # Nothing is written before the file is known to be ours or empty. Two processes may both find it empty: the
    # second look, behind the write lock, lets only one of them make the tables.
    _is_empty(db, path)
    _switch_to_wal(db, path)
    # NORMAL would not sync the write-ahead log at each commit: after a power cut, messages whose publish had returned
    # could be gone. FULL costs one fsync a commit and loses nothing.
    db.execute("PRAGMA synchronous = FULL")
    with db:
        _patiently(db, "BEGIN IMMEDIATE")  # fails on a file that cannot be written, too
        made = _is_empty(db, path)
        if made:
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
    if made:
        _sync_folder(path.parent)  # SQLite does so for its logs, not for the file itself


def _is_empty(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file has yet to become a queue. Raises QueueUnavailable when it is anything but one of our format."""
    application_id, version, tables = _patiently(db, _IDENTITY).fetchone()
    if (application_id, version, tables) == (0, 0, 0):
        return True
    if application_id != APPLICATION_ID:
        raise QueueUnavailable(f"{path} is a database of another program: name another file for the queue")
    if version != FORMAT:
        raise QueueUnavailable(
            f"{path} was written by Nightreel's queue format {version}, this version reads {FORMAT}: finish it with the"
            " version that wrote it, or move the file away and enqueue again; videos already made are not made again"
        )
    return False


def _switch_to_wal(db: sqlite3.Connection, path: Path) -> None:
    """Lets readers and a writer work at once."""
    (mode,) = _patiently(db, "PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise QueueUnavailable(f"{path} lies on a file system without shared memory: put the queue on a local disk")


def _patiently(db: sqlite3.Connection, sql: str, *values: float) -> sqlite3.Cursor:
    """Execute a statement, waiting for other processes' locks: the first one of a transaction, or one outside any."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return db.execute(sql, values)
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise QueueUnavailable(_sentence(path, error)) from error


def _sentence(path: Path, error: sqlite3.Error) -> str:
    code = _code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return f"{path} is not a queue (not an SQLite file): name another file, or move this one away"
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} was locked by another program for {BUSY_TIMEOUT_S:g} s: end what holds it, and run again"
    if code == sqlite3.SQLITE_FULL:
        return f"no room left for {path}: make room on its disk, and run again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"{path} cannot be opened for writing ({error}): the queue needs a file and a folder that you may write to"
        )
    return f"{path} cannot be used ({error}): look at its disk and at what else uses the file"


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of Python's module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
