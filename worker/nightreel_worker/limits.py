"""A job's own limits: kept before any work for it, by an estimate, and while it is rendered, by the meter."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence

import structlog

from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError
from nightreel_storage.receipts import utc_now

from .admission import Work
from .errors import OverLimit
from .estimate import Rates, Taken
from .history import History
from .prices import Price

log = structlog.get_logger()


class LimitKeeper:
    """Of one run. Reads what earlier runs took when the first job with a limit comes."""

    def __init__(
        self,
        store: Store,
        price: Price,
        taken: Callable[[], Sequence[Taken]],
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        """`taken`: what this run's own jobs took so far."""
        self._store, self._price, self._taken, self._now = store, price, taken, now
        self._earlier: Sequence[Taken] | None = None
        self._lock = threading.Lock()

    def admit(self, work: Work) -> None:
        """Raises OverLimit for a job that comes too late, or is estimated to take more than it may."""
        limits = work.request.job.limits
        if limits is None:
            return
        if limits.not_after is not None and self._now() > limits.not_after:
            raise OverLimit(
                f"limits.not_after: {limits.not_after.isoformat()} had passed before a worker was free for it"
            )
        seconds_most = self._most_s(work.request.job)
        if seconds_most is None:
            return
        description = work.description
        rates = Rates(self._rows(), work.spec, description.device, description.precision)
        estimate = rates.estimate(work.plan, frozenset(work.have))
        if estimate.seconds > seconds_most:
            known = (
                "as measured by earlier runs" if estimate.basis == "measured" else "by a guess: no run measured it yet"
            )
            raise OverLimit(
                f"{self._named(work.request.job)}; it would take about {estimate.seconds:.0f} s"
                f"{self._in_usd(estimate.seconds)} ({known}): {estimate.keyframes} keyframes, {estimate.frames} frames."
                " Make it shorter, or raise the limit"
            )

    def check(self, job: Job, spent_s: float) -> None:
        """Raises OverLimit for a job that has used up what it may."""
        seconds_most = self._most_s(job)
        if seconds_most is not None and spent_s > seconds_most:
            raise OverLimit(
                f"{self._named(job)}; after {spent_s:.0f} s{self._in_usd(spent_s)} it was not done. Its keyframes are kept:"
                " raise the limit, and they are not paid for again"
            )

    def _most_s(self, job: Job) -> float | None:
        """The tighter of both limits, in seconds; None without one."""
        if job.limits is None:
            return None
        per_s = self._price.machine_usd_per_s
        each = [job.limits.max_seconds, job.limits.max_cost_usd / per_s if job.limits.max_cost_usd and per_s else None]
        return min((limit for limit in each if limit is not None), default=None)

    def _named(self, job: Job) -> str:
        """The limit that binds, with its figure."""
        assert job.limits is not None
        most_s = self._most_s(job)
        if job.limits.max_seconds is not None and job.limits.max_seconds == most_s:
            return f"limits.max_seconds: it may take {most_s:g} s"
        return f"limits.max_cost_usd: it may cost {job.limits.max_cost_usd:g} USD"

    def _in_usd(self, seconds: float) -> str:
        usd = seconds * self._price.machine_usd_per_s
        return f", {usd:.4f} USD" if usd else ""

    def _rows(self) -> Sequence[Taken]:
        with self._lock:
            if self._earlier is None:
                try:
                    self._earlier = History.read(self._store).taken
                except StoreError as exc:
                    log.warning("history_not_read", reason=str(exc))
                    self._earlier = ()
            return [*self._earlier, *self._taken()]
