"""How all jobs of a batch stand. Counting takes a listing, seconds for ten thousand jobs, so a count is kept for a while.

The pages show single jobs as they are at the moment; only what is said of a whole batch may be some seconds old: ten times
as old as counting takes.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import structlog

from nightreel_storage.attempts import Attempt, Attempts
from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError
from nightreel_storage.receipts import Receipts, Standing

from .catalogue import Listed

log = structlog.get_logger()

FRESH_S = 2.0  # a count is good for this long at least
FRESH_TIMES = 10  # and for so many times as long as it took
AT_ONCE = 8  # requests to a store, which wait for its answers most of the time
POSTERS = 8
KEPT_FAILURES = 50_000  # what is known of failed jobs, in all batches
QUICK_JOBS = 500  # a batch of so few is counted while the page waits
_FIGURES = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Failed:
    """What a failed job's receipt says of it."""

    job: str
    reason: str
    key: str
    """The same for reasons that are alike."""
    run: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Jobs that failed for one reason; figures and names in it may differ."""

    reason: str
    """Of the first of them."""
    key: str
    """The same for all of them."""
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Count:
    """A batch at one moment."""

    standings: Mapping[str, Standing]
    """Of the jobs that have a receipt, by id."""
    failed: Sequence[Failed]
    started: Mapping[str, Attempt]
    """Attempts that have not ended, by job."""
    posters: tuple[tuple[str, str], ...]
    """The newest: job and sha256."""
    total: int

    @cached_property
    def states(self) -> Counter[str]:
        """How many are done, failed, cancelled, started, waiting."""
        found: Counter[str] = Counter(standing.state for standing in self.standings.values() if standing.ended)
        open_ = max(0, self.total - found.total())
        started = min(open_, len(self.started))
        found.update(started=started, waiting=open_ - started)
        return found

    @property
    def open(self) -> int:
        return self.states["waiting"] + self.states["started"]

    @cached_property
    def failures(self) -> list[Failures]:
        """By reason, the most frequent first."""
        found: dict[str, list[Failed]] = {}
        for each in self.failed:
            found.setdefault(each.key, []).append(each)
        groups = [Failures(jobs[0].reason, key, tuple(one.job for one in jobs)) for key, jobs in found.items()]
        return sorted(groups, key=lambda group: -len(group.jobs))

    def state_of(self, job: str) -> str:
        standing = self.standings.get(job)
        if standing and standing.ended:
            return standing.state
        return "started" if job in self.started else "waiting"


@dataclass(slots=True)
class _Kept:
    count: Count
    at: float
    """By the monotonic clock."""
    took_s: float

    def is_fresh(self, now: float) -> bool:
        return now - self.at < max(FRESH_S, FRESH_TIMES * self.took_s)


class Census:
    """Counts of one store's batches. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._kept: dict[str, _Kept] = {}
        self._failures: dict[tuple[str, str, int], Failed | None] = {}
        self._lock = threading.Lock()
        self._counting: dict[str, threading.Lock] = {}
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="census")

    def count(self, batch: Listed, *, patient: bool = False) -> Count | None:
        """A count; None when there is none yet and counting takes long, unless the caller is `patient`.

        A large batch's count that is too old is given all the same, and made anew behind the scenes.
        """
        kept = self._kept.get(batch.name)
        if kept and kept.is_fresh(self._clock()) and kept.count.total == len(batch.jobs):
            return kept.count
        if len(batch.jobs) <= QUICK_JOBS or (patient and kept is None):
            return self._recount(batch)
        self._behind.submit(self._recount_calmly, batch)
        return kept.count if kept else None

    def forget(self, batch: str) -> None:
        """Something was changed: what is kept is too old."""
        with self._lock:
            if kept := self._kept.get(batch):
                kept.at = -float("inf")

    def close(self) -> None:
        self._behind.shutdown(wait=False, cancel_futures=True)

    def _recount(self, batch: Listed) -> Count:
        """Whoever comes while somebody counts takes what he finds."""
        with self._lock:
            counting = self._counting.setdefault(batch.name, threading.Lock())
        with counting:
            kept = self._kept.get(batch.name)
            if kept and kept.is_fresh(self._clock()) and kept.count.total == len(batch.jobs):
                return kept.count
            begun = self._clock()
            count = self._counted(batch)
            with self._lock:
                self._kept[batch.name] = _Kept(count, begun, self._clock() - begun)
            return count

    def _recount_calmly(self, batch: Listed) -> None:
        try:
            self._recount(batch)
        except StoreError as exc:
            log.warning("batch_not_counted", batch=batch.name, reason=str(exc))

    def _counted(self, batch: Listed) -> Count:
        entries = list(self._store.list(f"{batch.name}/"))
        standings = Receipts(self._store).standings(batch.name, entries)
        posters = sorted(
            (entry for entry in entries if entry.name.endswith(".jpg") and self._is_job(entry.name, standings)),
            key=lambda entry: -entry.generation,
        )[:POSTERS]
        open_ = [job for job in batch.jobs if not ((at := standings.get(job)) and at.ended)]
        return Count(
            standings,
            self._failed(batch.name, standings),
            self._started(batch.name, open_, standings),
            tuple((_job(entry.name), entry.sha256) for entry in posters),
            len(batch.jobs),
        )

    def _is_job(self, name: str, standings: Mapping[str, Standing]) -> bool:
        standing = standings.get(_job(name))
        return standing is not None and standing.state == "done"

    def _failed(self, batch: str, standings: Mapping[str, Standing]) -> list[Failed]:
        """A round that has failed stays as it is, so its receipt is read once."""
        wanted = [(batch, job, at.round) for job, at in standings.items() if at.state == "failed"]
        new = [key for key in wanted if key not in self._failures]
        if new:
            if len(self._failures) + len(new) > KEPT_FAILURES:
                self._failures, new = {}, wanted
            with ThreadPoolExecutor(min(AT_ONCE, len(new))) as pool:
                self._failures |= zip(new, pool.map(self._read_failed, new), strict=True)
        return [failed for key in wanted if (failed := self._failures.get(key))]

    def _read_failed(self, key: tuple[str, str, int]) -> Failed | None:
        """None for one that was asked for again meanwhile."""
        batch, job, round_ = key
        held = Receipts(self._store).read(batch, job)
        if held is None or (held.receipt.state, held.receipt.round) != ("failed", round_):
            return None
        reason = held.receipt.reason
        return Failed(job, reason, alike(reason, batch, job), held.receipt.run)

    def _started(self, batch: str, open_: Sequence[str], standings: Mapping[str, Standing]) -> dict[str, Attempt]:
        if not open_:
            return {}
        attempts = Attempts(self._store)
        begun = attempts.begun(batch)
        rounds = {job: at.round if (at := standings.get(job)) else 1 for job in open_}
        found = {}
        for job, round_ in rounds.items():
            if (job, round_) in begun:
                history = attempts.history(batch, job, round_)
                if history and history[-1].end == "":
                    found[job] = history[-1]
        return found


def alike(reason: str, batch: str, job: str) -> str:
    """What reasons have in common that differ in their figures, or in the names that they tell."""
    for name in (batch, job):
        reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", reason)
    return _FIGURES.sub("…", reason)


def _job(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".jpg")
