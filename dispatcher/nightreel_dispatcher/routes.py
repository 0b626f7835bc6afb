"""Which backend gets how many workers, and why: a pure function of what waits, of the backends, and of what the operator wants.

The order decides, the preferred one first. The next one comes in where the one before may not be started (it does not answer,
its breaker is open, a video of it is too dear), has no more room, or would take longer than the work may take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .breaker import State


@dataclass(frozen=True, slots=True)
class Seen:
    """A backend as it is now."""

    name: str
    model: str
    starts: bool = True
    """Can anything start its workers?"""
    healthy: bool = True
    health: str = ""
    """What was said when it was asked, such as: did not answer since 02:10:31."""
    breaker: State = "closed"
    trouble: str = ""
    """What opened the breaker, and until when it is."""
    running: int = 0
    max_workers: int = 1
    start_s: float = 0.0
    """From a worker's start until it renders."""
    job_s: float = 0.0
    """A video takes a worker so long."""
    job_usd: float = 0.0
    """And costs so much."""
    passed: int = 0
    """Jobs that its model has left to others, and that have not ended."""

    @property
    def called(self) -> str:
        return f"{self.name} ({self.model})"

    @property
    def room(self) -> int:
        """Workers that may be started now, if any may."""
        room = max(0, self.max_workers - self.running)
        return room if self.breaker == "closed" else min(room, 1)

    def takes_s(self, jobs: int, workers: int) -> float:
        """Until so many more workers have made so many videos, with those that run."""
        return self.start_s + self.job_s * math.ceil(jobs / max(1, workers + self.running))


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants."""

    prefer: str = ""
    """The backend that comes first; empty: the order of the file."""
    finish_within_s: float = math.inf
    max_video_usd: float = math.inf
    """Most that a video may cost; a backend above it gets none."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a backend gets, and why."""

    name: str
    start: int
    reason: str
    route: str = ""
    """For the receipts of its workers: why it, and not the first in the order; empty for the first one."""


def in_order(backends: Sequence[Seen], prefer: str) -> list[Seen]:
    return sorted(backends, key=lambda each: each.name != prefer)


def choose(jobs: int, count: int, backends: Sequence[Seen], wish: Wish) -> list[Choice]:
    """Share out `count` workers for `jobs` that wait; each backend's choice, in the order that counts.

    Whoever has left all that waits to others comes after them: its worker would most likely do it again.
    """
    ordered = in_order(backends, wish.prefer)
    against = {each.name: _against(each, wish) for each in ordered}
    may = [each for each in ordered if not against[each.name]]
    may.sort(key=lambda each: jobs > 0 and each.passed >= jobs)
    given = _shared(jobs, count, may, wish)
    return [_choice(each, ordered, against, given, jobs, wish) for each in ordered]


def _against(each: Seen, wish: Wish) -> str:
    """Why a backend gets no worker; empty when it may have one."""
    if not each.starts:
        return "nothing starts its workers"
    if not each.healthy:
        return each.health
    if each.breaker in ("open", "trying"):
        return each.trouble
    if each.job_usd > wish.max_video_usd:
        return f"a video costs {each.job_usd:.4f} USD, {wish.max_video_usd:.4f} are allowed"
    if not each.room:
        return f"it has all its {each.max_workers} workers" if each.max_workers > 1 else "its worker is up"
    return ""


def _shared(jobs: int, count: int, may: Sequence[Seen], wish: Wish) -> dict[str, int]:
    """Workers by backend: first to those that finish in time with what is left, or have too little room to matter; then
    to the slow ones."""
    given: dict[str, int] = {}
    left = count
    for place, each in enumerate(may):
        if not _too_slow(each, left, jobs, wish) or all(
            _too_slow(other, left, jobs, wish) for other in may[place + 1 :]
        ):
            given[each.name] = min(left, each.room)
            left -= given[each.name]
    for each in may:
        if each.name not in given:
            given[each.name] = min(left, each.room)
            left -= given[each.name]
    return given


def _too_slow(each: Seen, left: int, jobs: int, wish: Wish) -> bool:
    """Would it take all the workers that are left, and too long all the same?"""
    return each.room >= left > 0 and each.takes_s(jobs, left) > wish.finish_within_s


def _choice(
    each: Seen, ordered: Sequence[Seen], against: dict[str, str], given: dict[str, int], jobs: int, wish: Wish
) -> Choice:
    if against[each.name]:
        return Choice(each.name, 0, against[each.name])
    count = given[each.name]
    if not count:
        return Choice(each.name, 0, _why_none(each, jobs, given, wish))
    before = list(_before(each, ordered, against, given, jobs, wish))
    if not before:
        return Choice(each.name, count, "preferred" if each.name == wish.prefer else "first in the order")
    reason = "; ".join(before)
    return Choice(each.name, count, reason, reason)


def _why_none(each: Seen, jobs: int, given: dict[str, int], wish: Wish) -> str:
    takers = [name for name, count in given.items() if count]
    if takers and jobs and each.passed >= jobs:
        return f"{each.model} has left what waits to others"
    if takers and each.takes_s(jobs, 1) > wish.finish_within_s:
        return f"it would take {_in_words(each.takes_s(jobs, each.room))} for {jobs} jobs"
    return f"not needed: {' and '.join(takers)} will do" if takers else "nothing waits"


def _before(
    each: Seen, ordered: Sequence[Seen], against: dict[str, str], given: dict[str, int], jobs: int, wish: Wish
) -> Iterator[str]:
    """What those that come first in the order did not, or not alone."""
    for other in ordered:
        if other is each:
            return
        if given.get(other.name):
            yield f"besides {other.called}, which has no room for more"
        else:
            yield f"instead of {other.called}: {against[other.name] or _why_none(other, jobs, given, wish)}"


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
