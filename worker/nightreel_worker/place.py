"""Which of the operator's backends this worker is, as its receipts tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from nightreel_pipelines.errors import Unrenderable

from .admission import Request
from .errors import OverLimit, PassedOn, TooLate
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """A backend and its model."""

    backend: str
    """Its name; empty where there is no choice."""
    model: str
    """The worker's own."""
    why: str
    """Why this backend was chosen, such as: instead of local (comfyui-schnell): local did not answer since 02:10:31."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.backend, settings.model, settings.route)

    def route(self, request: Request | None, passed: str) -> str:
        """For the receipt: who made it, for whom, and why; empty where there is no choice. passed: who left it to others."""
        stands_in = request is not None and request.stands_in
        if not (self.backend or stands_in or passed):
            return ""
        model = self.model if stands_in or request is None else request.job.render.model or self.model
        words = f"{self.backend} ({model})" if self.backend else model
        if stands_in and request is not None:
            words += f" for {request.job.render.model}"
        why = passed or self.why
        return f"{words}; {why}" if passed else f"{words} {why}".rstrip()

    def seen_by_a_stand_in(self, error: Exception) -> Exception:
        """What the job's own model may be able to make all the same is left to others; time that has passed has passed."""
        if isinstance(error, Unrenderable | OverLimit) and not isinstance(error, TooLate):
            return PassedOn(f"{error} ({self.model} only stands in for its model)")
        return error
