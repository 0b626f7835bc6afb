"""How one shot becomes the next."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .strict import Strict, problem

DEFAULT_TRANSITION_S = 0.5

Direction = Literal["left", "right", "up", "down"]


class Transition(Strict):
    """How one shot becomes the next. Its time is borrowed from both shots' hidden handles: no shot gets shorter."""

    type: Literal["cut", "crossfade", "dip_to_black", "slide"] = "crossfade"
    duration: float | None = Field(
        None, ge=0.04, le=10, description="seconds; 0.5 when left out, or the shorter of the two shots if that is less"
    )
    direction: Direction | None = Field(
        None, description="of a slide: the way the new picture moves; left when left out"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "cut" and self.duration is not None:
            raise problem("a cut takes no time: leave duration out", "duration")
        if self.type != "slide" and self.direction is not None:
            raise problem(f"only a slide has one: leave it out, or write type: slide (it is {self.type})", "direction")
        return self

    def seconds(self, room_s: float) -> float:
        """How long it lasts between two shots of which the shorter has `room_s`."""
        if self.type == "cut":
            return 0.0
        return self.duration or min(DEFAULT_TRANSITION_S, room_s)
