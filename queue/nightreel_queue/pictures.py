"""Pictures that a job brings along: what a shot is drawn over, and what steers it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .strict import Address, Strict, problem


class Init(Strict):
    """A picture that the shot's first keyframe is drawn over."""

    image: Address = Field(description="gs://BUCKET/NAME or https://...")
    strength: float = Field(
        0.7, ge=0, le=1, description="starting noise: 0 keeps the picture, 1 draws as if there were none"
    )


class Control(Strict):
    """A picture that steers every keyframe of the shot, through the model's control checkpoint.

    The defaults are those of the checkpoints' own cards: Shakker Labs recommend a scale of 0.7 for FLUX.1-dev-ControlNet-Pose
    and 0.3 to 0.8 for its Union-Pro, and an end of 0.65 for poses with Union-Pro-2.0.
    """

    type: Literal["pose"] = Field(description="pose: a drawn skeleton, in OpenPose's colours on black")
    image: Address = Field(description="gs://BUCKET/NAME or https://...")
    scale: float = Field(0.7, ge=0, le=2, description="how strongly it steers (controlnet_conditioning_scale)")
    start: float = Field(0.0, ge=0, le=1, description="share of the steps before it steers (control_guidance_start)")
    end: float = Field(
        0.65, ge=0, le=1, description="share of the steps after which the model draws freely (control_guidance_end)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start >= self.end:
            raise problem(f"is not before end ({self.end:g}): lower start, or raise end", "start")
        return self
