"""When to start workers, and how many: a pure function of what waits, who works, and the clock."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Waiting:
    """The jobs that no worker has claimed."""

    jobs: int
    work_s: float
    """Seconds that a worker that is ready needs for them, as estimated."""
    oldest_s: float
    """How long the oldest of them has waited."""
    urgent: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants."""

    start_s: float
    """What a cold start costs, in seconds of a worker."""
    start_share: float = 0.1
    """A start is worth it when it is at most this share of the bill: start / (start + work)."""
    max_wait_s: float = 900.0
    """The longest that a job waits for a worker to be started for it; infinite: until night."""
    finish_within_s: float = 3600.0
    """How soon everything that waits should be done; decides how many workers are started."""
    max_workers: int = 1
    nightly: dt.time | None = None
    """When whatever waits is rendered, once a day."""
    zone: str = "UTC"
    """Of that hour; empty: this machine's own."""

    @property
    def worth_s(self) -> float:
        """The work that is worth a start."""
        return self.start_s * (1 / self.start_share - 1)

    @property
    def collect_s(self) -> float:
        """How long a backlog that is worth a start is let grow: what comes a moment later shares the start.

        As long as the start itself takes, and at least half of all patience: shorter, and a trace can be made up for which
        starts cost several times what they must (docs/explanation/waking.md).
        """
        return max(min(self.start_s, self.max_wait_s), self.max_wait_s / 2)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now."""

    start: int
    """Workers to start."""
    reason: str
    look_again_s: float
    """In how many seconds the answer changes although nothing happens; infinite when it does not."""


def decide(waiting: Waiting, running: int, policy: Policy, now_s: float) -> Decision:
    """Start workers, or wait.

    running: workers that are up or on their way. now_s: seconds since the epoch. The same situation always gives the same
    answer, so asking twice is harmless once the first answer's workers count as running.
    """
    if not waiting.jobs:
        return Decision(0, "nothing waits", math.inf)
    reason = _reason(waiting, policy, now_s)
    wanted = _workers(waiting, policy) if reason or running else 0
    if wanted > running:
        return Decision(wanted - running, reason or "more waits than the running workers finish in time", math.inf)
    if running:
        return Decision(0, f"{running} running will take it", math.inf)
    return Decision(0, _patience(waiting, policy), _until_change_s(waiting, policy, now_s))


def _reason(waiting: Waiting, policy: Policy, now_s: float) -> str:
    """Why a worker should be started; empty when it should not."""
    if waiting.urgent:
        return f"{waiting.urgent} urgent"
    if waiting.work_s >= policy.worth_s and waiting.oldest_s >= policy.collect_s:
        return f"{waiting.work_s:.0f} s of work make the start {_share(waiting, policy):.0%} of the bill"
    if waiting.oldest_s >= policy.max_wait_s:
        return f"the oldest job has waited {waiting.oldest_s:.0f} s"
    if policy.nightly is not None and now_s - _last_nightly_s(policy, now_s) <= waiting.oldest_s:
        return f"it is after {_hour(policy)}, and jobs from before wait"
    return ""


def _workers(waiting: Waiting, policy: Policy) -> int:
    """As many as finish in time, but none for less work than is worth a start, and one at least."""
    in_time = math.ceil(waiting.work_s / max(policy.finish_within_s - policy.start_s, policy.start_s, 1.0))
    worth = math.floor(waiting.work_s / policy.worth_s) if policy.worth_s else in_time
    return max(1, min(in_time, worth, policy.max_workers))


def _patience(waiting: Waiting, policy: Policy) -> str:
    """Why no worker is started yet, and when one will be."""
    if worth := waiting.work_s >= policy.worth_s:
        why = f"{waiting.work_s:.0f} s of work are worth a start, and what comes soon may share it"
    else:
        share = f"{_share(waiting, policy):.0%} of the bill, {policy.start_share:.0%} is allowed"
        why = f"for {waiting.work_s:.0f} s of work a start would be {share}"
    limit_s = policy.collect_s if worth else policy.max_wait_s
    until = f" of {limit_s:.0f}" if math.isfinite(limit_s) else ""
    nightly = f", and will not beyond {_hour(policy)}" if policy.nightly else ""
    return f"{why}; the oldest job has waited {waiting.oldest_s:.0f}{until} s{nightly}"


def _share(waiting: Waiting, policy: Policy) -> float:
    """What part of the bill a start for this backlog would be."""
    return policy.start_s / (policy.start_s + waiting.work_s) if policy.start_s else 0.0


def _until_change_s(waiting: Waiting, policy: Policy, now_s: float) -> float:
    patience_s = policy.collect_s if waiting.work_s >= policy.worth_s else policy.max_wait_s
    wait_s = max(0.0, patience_s - waiting.oldest_s)
    if policy.nightly is None:
        return wait_s
    return min(wait_s, _nightly_s(policy, now_s, 1) - now_s)


def _last_nightly_s(policy: Policy, now_s: float) -> float:
    """The last time that the clock showed the nightly hour."""
    return _nightly_s(policy, now_s, 0)


def _nightly_s(policy: Policy, now_s: float, later: int) -> float:
    """The last nightly moment up to now, or the first one after it.

    One for each date: an hour that a clock skips is taken as if it had not (PEP 495), of one that it repeats the first.
    """
    assert policy.nightly is not None
    zone = _zone(policy.zone)
    today = dt.datetime.fromtimestamp(now_s, zone).date()
    around = (-2, -1, 0, 1)  # yesterday's may be yet to come: some islands have skipped a whole date
    moments = [dt.datetime.combine(today + dt.timedelta(days), policy.nightly, zone).timestamp() for days in around]
    past = [moment for moment in moments if moment <= now_s]
    return past[-1] if not later else moments[len(past)]


def _zone(name: str) -> dt.tzinfo | None:
    """None is this machine's own, for datetime."""
    if name == "UTC":
        return dt.UTC  # which is there without a database of zones
    return ZoneInfo(name) if name else None


def _hour(policy: Policy) -> str:
    return f"{policy.nightly:%H:%M} {policy.zone or 'by this clock'}"
