"""A circuit breaker for one backend (M. Nygard, Release It!, 2007): who fails again and again is left alone for a while.

closed      work goes to it
open        nothing is started there until a moment; the pause doubles each time that it opens again
half-open   the pause is over: one worker may try it
trying      that worker is on its way: the next ones wait for what comes of it

Only a worker that worked closes it. That a backend answers proves nothing: it may answer well, and end each worker at its start.
"""

from __future__ import annotations

from typing import Literal, Self

from nightreel_storage.receipts import Record

MOST_PAUSE_S = 1800.0

State = Literal["closed", "open", "half-open", "trying"]


class Breaker(Record):
    """Of one backend, as of its last event. All moments are seconds since the epoch."""

    failures: int = 0
    """In a row."""
    opened: int = 0
    """Times in a row that it opened; 0: it is closed."""
    open_until: float = 0.0
    trying_until: float = 0.0
    """When the worker that tries it has had its time."""
    words: str = ""
    """What went wrong last."""

    def state(self, now_s: float) -> State:
        if not self.opened:
            return "closed"
        if now_s < self.open_until:
            return "open"
        return "trying" if now_s < self.trying_until else "half-open"

    def rests_s(self, now_s: float) -> float:
        """Seconds until a worker may be started; 0 when one may now."""
        return max(0.0, self.open_until - now_s, self.trying_until - now_s) if self.opened else 0.0

    def failed(self, words: str, now_s: float, limit: int, pause_s: float) -> Self:
        """Something went wrong once more. limit: failures in a row that open it; while it is not closed, one does."""
        failures = self.failures + 1
        if failures < limit and not self.opened:
            return self.model_copy(update={"failures": failures, "words": words})
        return self.tripped(words, now_s, pause_s)

    def tripped(self, words: str, now_s: float, pause_s: float, least_s: float = 0.0) -> Self:
        """Open at once. pause_s: the first pause, which doubles; least_s: that this one lasts at least."""
        pause_s = max(least_s, min(pause_s * 2.0 ** min(self.opened, 20), MOST_PAUSE_S))
        return self.model_copy(
            update={
                "failures": self.failures + 1,
                "opened": self.opened + 1,
                "open_until": now_s + pause_s,
                "trying_until": 0.0,
                "words": words,
            }
        )

    def tried(self, until_s: float) -> Self:
        """A worker was started. While the breaker is not closed, it is the only one until then."""
        return self.model_copy(update={"trying_until": until_s}) if self.opened else self

    def worked(self) -> Self:
        """A worker did its work."""
        return type(self)()
