"""Looks what waits and who works, asks the wake rule, and starts workers. As often as you like: twice is as good as once.

The order keeps it safe. The ledger of starts is read first, then the launcher's list, then the backlog. A decision is recorded
before the launcher is asked, and only if nobody wrote the ledger meanwhile: else everything is looked at again.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from nightreel_storage.base import Store
from nightreel_storage.errors import Conflict
from nightreel_storage.holds import Holds
from nightreel_worker.history import read_report
from nightreel_worker.ledger import Ledger as Spending
from nightreel_worker.ledger import micro, month_of
from nightreel_worker.report import run_name

from .backlog import Backlog, Figures
from .backlog import look as look_at_backlog
from .desk import Desk
from .emptied import Emptied
from .launchers.base import Launcher, LauncherError, LauncherUnavailable, NoneMay, Refused
from .looked import Looked
from .policy_settings import PolicySettings
from .starts import APPEAR_S, CameOf, Ledger, Start, Starts
from .verdict import Verdict, judge, restraint
from .workload import Workload

log = structlog.get_logger()

STEP_S = (
    60.0  # between two looks by the clock, at most: a machine that slept, or whose clock was set, is not late by more
)
CALM_S = 2.0  # between two looks, at least: what comes in meanwhile is looked at together
COUNT_EVERY_S = 15.0  # a count for the queue's limit is good for so long
EARLY = dt.timedelta(minutes=10)  # by which a run's name may be older than its start: clocks differ


Ask = Callable[[Start], Sequence[str]]
"""Starts the workers of a start that is recorded, and says their ids. Raises LauncherError."""


@dataclass(frozen=True, slots=True)
class _ByHand:
    """A worker that a person asks for."""

    ask: Ask
    against: Callable[[], str]


class Waker:
    """Starts workers for one desk. Safe to use from several threads, and beside others of the same store."""

    def __init__(
        self,
        desk: Desk,
        launcher: Launcher,
        settings: PolicySettings,
        figures: Figures | None = None,
        now: Callable[[], float] = time.time,
        *,
        judges: bool = False,
    ) -> None:
        """figures: who counts the messages of a queue that does not. now: seconds since the epoch.

        judges: the launcher knows itself which starts came to nothing, and keeps its own pauses.
        """
        self.launcher = launcher
        self._came_of: CameOf = (lambda start: True) if judges else (lambda start: came_of(desk.store, start))
        self._desk, self._settings, self._figures, self._now = desk, settings, figures, now
        self._lock = threading.Lock()
        self._workload: Workload | None = None  # these two as well are opened when they are needed
        self._emptied: Emptied | None = None
        self._due_at = self._calm_until = self._counted_at = -math.inf  # by the monotonic clock
        self._counted = 0

    @property
    def is_due(self) -> bool:
        """Is it time to look by the clock?"""
        return time.monotonic() >= self._due_at

    def poke(self, why: str) -> None:
        """Something came in: look, unless somebody looks or has just looked; then the clock soon does."""
        if time.monotonic() < self._calm_until or not self._lock.acquire(blocking=False):
            self._due_at = min(self._due_at, time.monotonic() + CALM_S)
            return
        try:
            self._look_again(why)
        finally:
            self._lock.release()

    def look(self, why: str, *, dry_run: bool = False, again: bool = False) -> Looked:
        """Look, decide, and start what was decided. Raises QueueUnavailable, StoreError, InvalidJob.

        dry_run: only say it. again: earlier starts that came to nothing do not count.
        """
        with self._lock:
            return self._look_again(why, dry_run=dry_run, again=again)

    @property
    def max_workers(self) -> int:
        return self._settings.max_workers

    def start_one(self, why: str, ask: Ask | None = None, against: Callable[[], str] = lambda: "") -> Looked:
        """Start a worker because a person asks for one, whether or not the rule would; the words say why none was.

        ask: who is asked for it, instead of the launcher. against: why that would be of no use, as of now. A hold, a month
        whose money is spent, the most workers and the pauses after failures stand. Raises QueueUnavailable, StoreError,
        InvalidJob.
        """
        with self._lock:
            return self._look_again(why, by_hand=_ByHand(ask or self._ask, against))

    def waiting(self) -> int:
        """Messages that count towards the queue's limit; of a queue that does not count itself, as of a moment ago."""
        counted = self._desk.queue.backlog()
        if counted.oldest_s is not None:
            return counted.total
        if time.monotonic() - self._counted_at >= COUNT_EVERY_S:
            self._counted, self._counted_at = self._backlog().waiting.jobs, time.monotonic()
        return self._counted

    def _look_again(
        self, why: str, *, dry_run: bool = False, again: bool = False, by_hand: _ByHand | None = None
    ) -> Looked:
        """Until nobody else wrote the ledger meanwhile."""
        self._due_at = time.monotonic() + STEP_S
        while True:
            try:
                looked = self._look(why, dry_run=dry_run, again=again, by_hand=by_hand)
                break
            except Conflict:
                continue  # somebody else decided something, or noted it
        self._calm_until = time.monotonic() + CALM_S
        self._due_at = time.monotonic() + min(STEP_S, max(CALM_S, looked.look_again_s or STEP_S))
        return looked

    def _look(self, why: str, *, dry_run: bool, again: bool, by_hand: _ByHand | None) -> Looked:
        """Raises Conflict when somebody else wrote the ledger."""
        starts = Starts(self._desk.store)
        stored, generation = starts.read()
        ledger = stored.forgetting() if again else stored
        try:
            executions = self.launcher.executions()
        except LauncherError as exc:
            words = f"cannot see which workers run, so none is started: {exc}"
            looked = self._told(why, Verdict(0, words, trouble=True))
        else:
            ledger = ledger.updated(executions, self._now(), self._came_of)
            backlog = self._backlog()
            running = max(ledger.running(executions, self._now()), int(backlog.held))
            if by_hand:
                verdict = self._judge_by_hand(why, by_hand, backlog, ledger, running)
            else:
                verdict = self._judge(backlog, ledger, running)
            looked = self._told(why, verdict, backlog, running)
            if verdict.start and not dry_run:
                start = _start(verdict, looked)
                starts.write(ledger.with_start(start).model_copy(update={"looked": looked}), generation)
                return self._launch(starts, start, looked, by_hand.ask if by_hand else self._ask)
        if not dry_run and _is_news(stored, ledger, looked):
            starts.write(ledger.model_copy(update={"looked": looked}), generation)
            log.info("looked", **looked.model_dump(mode="json", exclude={"at"}))
        return looked

    def _backlog(self) -> Backlog:
        desk, job_s = self._desk, self._work.pace().job_s
        return look_at_backlog(desk.queue, desk.store, self._figures, job_s, self._empty.at, self._now)

    @property
    def _empty(self) -> Emptied:
        if self._emptied is None:
            self._emptied = Emptied(self._desk.store)
        return self._emptied

    @property
    def _work(self) -> Workload:
        if self._workload is None:
            self._workload = Workload(self._desk.settings, self._desk.store)
        return self._workload

    def _judge(self, backlog: Backlog, ledger: Ledger, running: int) -> Verdict:
        policy = self._settings.policy(self._work.pace().start_s)
        return judge(backlog, ledger, running, policy, self._stop(), self._now())

    def _judge_by_hand(self, why: str, by_hand: _ByHand, backlog: Backlog, ledger: Ledger, running: int) -> Verdict:
        """One worker, unless something stands against it; then the rule has its turn again."""
        against = _against_one(backlog, ledger, running, self.max_workers, self._now())
        if against := self._stop() or against or by_hand.against():
            return Verdict(0, f"{why}: none is started: {against}", CALM_S)
        return Verdict(1, why, CALM_S)

    def _stop(self) -> str | None:
        """What a worker would leave for at once: a hold, or a month whose money is spent."""
        store, monthly_usd = self._desk.store, self._desk.settings.monthly_usd
        if hold := Holds(store).read():
            return f"on hold: {hold.reason}"
        spending = Spending(store)
        month = spending.read(month_of(_utc(self._now())))
        limit = micro(monthly_usd) or month.limit_micro_usd
        if not limit or month.micro_usd < limit:
            return None
        if spending.settle_dead(month.month).micro_usd < limit:  # as a worker would at its start
            return None
        return f"monthly_usd: all {limit / 1e6:.2f} USD of {month.month} are spent or reserved"

    def _told(self, why: str, verdict: Verdict, backlog: Backlog | None = None, running: int = 0) -> Looked:
        waiting = backlog.waiting if backlog else None
        return Looked(
            at=_utc(self._now()),
            why=why,
            words=verdict.words,
            started=verdict.start,
            running=running,
            jobs=waiting.jobs if waiting else 0,
            work_s=round(waiting.work_s, 1) if waiting else 0.0,
            oldest_s=round(waiting.oldest_s, 1) if waiting else 0.0,
            urgent=waiting.urgent if waiting else 0,
            look_again_s=round(verdict.again_s, 1) if math.isfinite(verdict.again_s) else None,
            trouble=verdict.trouble,
        )

    def _ask(self, start: Start) -> Sequence[str]:
        return self.launcher.start(start.count, start.id, start.why)

    def _launch(self, starts: Starts, start: Start, looked: Looked, ask: Ask) -> Looked:
        """Ask for the workers, and record what it said."""
        retry_s, exactly = 0.0, False
        try:
            ids = tuple(ask(start))
            said: dict[str, object] = {"state": "started", "ids": ids}
            looked = looked.model_copy(update={"started": len(ids)})
        except Refused as exc:
            said, retry_s = {"state": "refused", "problem": str(exc)}, exc.retry_s
            exactly = isinstance(exc, NoneMay)
            words = f"{start.why}; but nothing could be started: {exc}"
            looked = looked.model_copy(update={"started": 0, "words": words, "trouble": True})
        except LauncherUnavailable as exc:
            said = {"state": "unclear", "problem": str(exc)}
            words = f"{start.why}; asked {self.launcher.name}, which gave no answer ({exc}): in {APPEAR_S:.0f} s it is clear"
            looked = looked.model_copy(update={"words": words, "trouble": True})
        starts.answered(start.model_copy(update=said), looked, self._now(), retry_s, exactly=exactly)
        log.info(
            "workers_started", wake=start.id, state=said["state"], **looked.model_dump(mode="json", exclude={"at"})
        )
        return looked


def came_of(store: Store, start: Start) -> bool:
    """Did workers of this start end any job, by their reports? Raises StoreUnavailable."""
    earliest = f"{run_name('')}{start.at - EARLY:%Y%m%dT%H%M%S}"
    for entry in store.list(run_name("")):
        if entry.name >= earliest and entry.name.endswith(".json"):
            report = read_report(store, entry.name)
            if report and report.wake == start.id and report.ended_jobs:
                return True
    return False


def _against_one(backlog: Backlog, ledger: Ledger, running: int, most: int, now_s: float) -> str:
    """Why not even a person gets one more worker; empty when nothing is against it."""
    if not backlog.waiting.jobs:
        return "nothing waits, so that it would find nothing to do"
    if running >= most:
        return f"{running} of {most} workers are up (NIGHTREEL_DISPATCHER_MAX_WORKERS)"
    return restraint(ledger) if ledger.waits_s(now_s) else ""


def _start(verdict: Verdict, looked: Looked) -> Start:
    return Start(
        id=f"{looked.at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        at=looked.at,
        count=verdict.start,
        why=verdict.words,
        jobs=looked.jobs,
        work_s=looked.work_s,
    )


def _is_news(stored: Ledger, ledger: Ledger, looked: Looked) -> bool:
    """Is it worth a write? One object takes about one a second, and a look may be as frequent as requests are."""
    last = stored.looked
    if last is None or stored != ledger or not looked.like(last):
        return True
    return (looked.at - last.at).total_seconds() >= STEP_S


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
