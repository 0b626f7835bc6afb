"""What may happen within a shot: nothing, a camera move over one picture, a walk to another picture, or feedback.

A move needs one keyframe; the other two need several a second, and cost as much more.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from .strict import PROMPT_CHARS, Seed, Strict, incomplete, problem

KINDS = ("still", "move", "walk", "feedback")

Ease = Literal["linear", "in", "out", "in_out"]


class Move(Strict):
    """A camera move over the whole shot. Zoom, pan and rotate combine; the picture is enlarged so that no border shows."""

    zoom: tuple[Annotated[float, Field(ge=1, le=4)], Annotated[float, Field(ge=1, le=4)]] | None = Field(
        None, description="magnification at the shot's start and end"
    )
    pan: tuple[Annotated[float, Field(ge=-1, le=1)], Annotated[float, Field(ge=-1, le=1)]] | None = Field(
        None, description="how far the camera travels right and down, in frame widths and heights"
    )
    rotate: float | None = Field(None, ge=-180, le=180, description="how far the camera turns clockwise, in degrees")
    focus: tuple[Annotated[float, Field(ge=0.1, le=0.9)], Annotated[float, Field(ge=0.1, le=0.9)]] = Field(
        (0.5, 0.5), description="the point that a zoom holds still, from the top left corner, in frame sizes"
    )
    ease: Ease = Field("in_out", description="how the move starts and stops")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.zoom is None and self.pan is None and self.rotate is None:
            raise incomplete("names no move: give zoom, pan or rotate, or write motion: still")
        return self


class Walk(Strict):
    """From the shot's picture to another, through the pictures that lie between their noises and prompts."""

    to: str | None = Field(
        None, min_length=1, max_length=PROMPT_CHARS, description="prompt of the last picture; the shot's when left out"
    )
    seed: Seed | None = Field(
        None, description="of the last picture's noise; from the job's seed and both prompts when left out"
    )
    rate: float = Field(2.0, ge=0.5, le=8, description="keyframes a second; what lies between is interpolated")
    ease: Ease = Field("linear", description="how the walk starts and stops")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to is not None and not self.to.strip():
            raise problem("is empty: say what the last picture shows, or leave it out", "to")
        return self


class WalkMotion(Strict):
    """The motion of a shot that walks."""

    walk: Walk


class Feedback(Strict):
    """A flight into the picture: each keyframe is the one before, moved, then partly drawn anew."""

    zoom: float = Field(1.1, ge=0.5, le=2, description="how much larger things become in each second")
    pan: tuple[Annotated[float, Field(ge=-1, le=1)], Annotated[float, Field(ge=-1, le=1)]] = Field(
        (0.0, 0.0), description="how far the camera travels right and down in each second, in frame sizes"
    )
    rotate: float = Field(
        0.0, ge=-180, le=180, description="how far the camera turns clockwise in each second, in degrees"
    )
    strength: float = Field(0.55, ge=0, le=1, description="starting noise: 0 draws nothing anew, 1 everything")
    rate: float = Field(3.0, ge=0.5, le=8, description="keyframes a second")


class FeedbackMotion(Strict):
    """The motion of a shot that feeds its pictures back."""

    feedback: Feedback


def kind_of(value: Any) -> str:
    """Which of KINDS a motion is, read or still as it was written."""
    if isinstance(value, str):
        return "still"
    names = type(value).model_fields if isinstance(value, BaseModel) else value if isinstance(value, dict) else ()
    return next((kind for kind in ("walk", "feedback") if kind in names), "move")


Motion = Annotated[
    Annotated[Literal["still"], Tag("still")]
    | Annotated[Move, Tag("move")]
    | Annotated[WalkMotion, Tag("walk")]
    | Annotated[FeedbackMotion, Tag("feedback")],
    Discriminator(kind_of),
]
DEFAULT_MOTION = Move(zoom=(1.0, 1.12))


def keyframes_at_most(motion: Motion, visible_s: float) -> int:
    """How many keyframes a shot can need that is visible for so many seconds, handles included."""
    match motion:
        case WalkMotion(walk=Walk(rate=rate)) | FeedbackMotion(feedback=Feedback(rate=rate)):
            return math.ceil(visible_s * rate) + 3  # the one at its start, and what rounding to frames may add
        case _:
            return 1
