"""A job's own limits: kept before any work for it, by an estimate, and while it is rendered, by the meter."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from nightreel_queue.job import Job
from nightreel_storage.receipts import utc_now

from .admission import Request, Work
from .errors import OverLimit, TooLate
from .estimate import Estimate, Rates, Taken
from .history import Earlier
from .prices import Price, clip_micro_usd


class LimitKeeper:
    """Of one run. Reads what earlier runs took when the first job with a limit comes."""

    def __init__(
        self,
        earlier: Earlier,
        price: Price,
        prices: Mapping[str, Price],
        taken: Callable[[], Sequence[Taken]],
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        """`price` is the machine's, `prices` has those of services; `taken`: what this run's own jobs took so far."""
        self._earlier, self._price, self._prices, self._taken, self._now = earlier, price, prices, taken, now

    def in_time(self, job: Job) -> None:
        """Raises TooLate, before anything is started for the job."""
        if late := too_late(job, self._now()):
            raise TooLate(late)

    def estimate(self, work: Work) -> Estimate:
        """What a job will still take, from what the jobs of earlier runs and of this one took."""
        rates = Rates(self._rows(), work.spec, work.description)
        return rates.estimate(work.plan, frozenset(work.have))

    def admit(self, work: Work, estimate: Estimate) -> None:
        """Raises OverLimit for a job that is estimated to take more than it may, its clips counted in."""
        job = work.request.job
        clips_usd = clip_micro_usd(work.spec, estimate.clip_s, self._prices) / 1e6 if estimate.clip_s else 0.0
        if broken := over(job, estimate.seconds, self._price, clips_usd):
            known = "as earlier runs took" if estimate.basis == "measured" else "a guess: no run has measured it yet"
            raise OverLimit(
                f"{broken}; it would take about {self._in_words(estimate.seconds, clips_usd)} ({known}): {estimate.keyframes} keyframes,"
                f" {estimate.frames} frames. Make it shorter, or lift the limits: {_retry(work.request)}"
            )

    def check(self, request: Request, spent_s: float, paid_usd: float = 0.0) -> None:
        """Raises OverLimit for a job that has used up what it may. paid_usd: for its clips."""
        if broken := over(request.job, spent_s, self._price, paid_usd):
            raise OverLimit(
                f"{broken}; after {self._in_words(spent_s, paid_usd)} it was not done. Its keyframes are kept, and it goes on from them"
                f" without limits: {_retry(request)}"
            )

    def _in_words(self, seconds: float, clips_usd: float) -> str:
        usd = self._price.cost_usd(seconds, 0.0)
        clips = f", {clips_usd:.2f} USD for clips" if clips_usd else ""
        return f"{seconds:.1f} s" + (f", {usd:.4f} USD" if usd else "") + clips

    def _rows(self) -> Sequence[Taken]:
        return [*self._earlier.read().taken, *self._taken()]


def over(job: Job, seconds: float, price: Price, clips_usd: float = 0.0) -> str:
    """Which of its limits a job breaks that takes so long, with its figure; empty when none."""
    limits = job.limits
    if limits is None:
        return ""
    if limits.max_seconds is not None and seconds > limits.max_seconds:
        return f"limits.max_seconds: it may take {limits.max_seconds:g} s"
    if limits.max_cost_usd is not None and (price.cost_usd(seconds, job.duration_s) + clips_usd > limits.max_cost_usd):
        return f"limits.max_cost_usd: it may cost {limits.max_cost_usd:g} USD"
    return ""


def too_late(job: Job, now: dt.datetime) -> str:
    """That a job may not be begun any more, in words; empty when it may."""
    deadline = job.limits.deadline if job.limits else None
    if deadline is None or now <= deadline:
        return ""
    return f"limits.not_after: it was to begin by {deadline.isoformat()}, and that has passed"


def _retry(request: Request) -> str:
    return f"nightreel retry {' '.join(request.name)} --without-limits"
