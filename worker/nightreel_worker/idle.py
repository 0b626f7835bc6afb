"""How long a worker with nothing to do waits for more.

Stopping costs another cold start later; staying costs every second. Which is dearer depends on how long the next job may wait:

- One that must not wait is worth waiting for, as long as that costs no more than the cold start that it saves. That is the
  ski-rental rule (Karlin, Manasse, Rudolph & Sleator 1988): rent until renting has cost as much as buying.
- One that may wait as long as a cold start takes, or longer, comes in company: the worker that is started for it later serves
  the others too, and one start is shared. Waiting here would be paid besides.

So the time that jobs may wait is taken off a cold start. What a worker has idled since its start counts as a whole: gaps that
are short one by one must not add up to more than a start. With the wake rule, the starting and idling of one worker cost at most
twice what they cost with perfect foresight: docs/explanation/waking.md has the proof, and what is not claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def allowance_s(start_s: float, max_wait_s: float) -> float:
    """Seconds that a worker may idle between its start and its exit, all together.

    start_s: what a cold start costs; max_wait_s: how long a job may wait for a worker to be started for it.
    """
    return max(0.0, start_s - max_wait_s)


@dataclass(frozen=True, slots=True)
class Idling:
    """When one run has idled enough."""

    timeout_s: float | None
    """Seconds of emptiness after which the run leaves; None: the rule above decides."""
    max_wait_s: float
    """How long a job may wait for a worker to be started for it."""
    start_s: Callable[[], float]
    """What a cold start of this worker costs."""
    idled_s: Callable[[], float]
    """Seconds that the run has idled since its start."""

    def enough(self, empty_s: float) -> bool:
        """Is it time to leave a queue that has been empty for so long?"""
        if self.timeout_s is not None:
            return empty_s >= self.timeout_s
        return self.idled_s() >= allowance_s(self.start_s(), self.max_wait_s)

    def waits_for(self, next_s: float) -> bool:
        """Is a job worth idling for that comes back in so many seconds?

        It is known to come, so it is a job that must not wait: leaving now would cost a start for it alone.
        """
        return self.timeout_s is not None or self.idled_s() + next_s <= allowance_s(self.start_s(), 0.0)
