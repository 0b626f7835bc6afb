"""All that decides a keyframe's or a clip's pixels, and the fingerprint that it is stored under. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Toward:
    """The far end of a walk; the recipe itself says the near one."""

    prompt: str
    """With the job's style around it."""
    seed: int
    at: float
    """Place on the way, between 0 and 1; at the ends themselves nothing is mixed."""


@dataclass(frozen=True, slots=True)
class Warp:
    """A steady camera move: what `drift.similarity` makes a matrix of."""

    zoom: float
    """Factor by which things become larger in each second."""
    pan: tuple[float, float]
    """How far the camera travels right and down in each second, in widths and heights of the keyframe."""
    rotate: float
    """Degrees clockwise in each second, of the camera."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """A picture that denoising starts from, under some noise."""

    picture: str
    """Fingerprint of a given picture or of another recipe."""
    strength: float
    """Starting noise: 0 leaves the picture, 1 leaves nothing of it."""
    warp: Warp | None = None
    """How the camera moves over the picture before that."""
    colors: str | None = None
    """Fingerprint of the picture whose colours it then takes on."""


@dataclass(frozen=True, slots=True)
class Control:
    """A picture that steers the drawing, and by which checkpoint."""

    type: str
    """What the picture shows, such as pose."""
    picture: str
    """Fingerprint of a given picture."""
    scale: float
    """Factor on what the checkpoint adds to the model; 0 adds nothing."""
    start: float
    """Share of the steps before it steers."""
    end: float
    """Share of the steps after which it steers no more."""
    revision: str
    """Hash of the checkpoint's weights."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Equal recipes give equal pictures, so a keyframe whose fingerprint is in the store is never paid for twice."""

    source: str
    """Name and version of the code, such as flux/1."""
    revision: str
    """Hash of the weights."""
    precision: str
    """Numbers that the model computes in."""
    prompt: str
    """With the job's style around it."""
    seed: int
    steps: int
    guidance: float
    width: int
    """Pixels, a multiple of the model's own step."""
    height: int
    toward: Toward | None = None
    """The other picture that this one lies on the way to."""
    start: Start | None = None
    """What it is drawn over; from noise alone when None."""
    control: Control | None = None
    """What steers it."""
    max_sequence_length: int | None = None
    """T5 tokens that its prompts are padded to; what the model's entry says in `sequence` when None."""
    clip_s: int | None = None
    """Seconds of a whole clip; a keyframe when None."""

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the recipe as JSON with sorted keys, without what is None: new fields change no old one."""
        return hashlib.sha256(json.dumps(_without_none(dataclasses.asdict(self)), sort_keys=True).encode()).hexdigest()

    @property
    def file(self) -> str:
        """What the finished picture or clip is called, in a scratch folder and in the store."""
        return f"{self.fingerprint}.{'mp4' if self.clip_s else 'png'}"

    @property
    def evaluations(self) -> int:
        """How often the model is run."""
        return evaluations(self.steps, 1.0 if self.start is None else self.start.strength)


def evaluations(steps: int, strength: float) -> int:
    """All steps from noise alone (strength 1), else as many as keep a step as short as that."""
    return math.ceil(round(steps * strength, 9))


def steered(start: float, end: float, count: int) -> tuple[bool, ...]:
    """Which of `count` steps lie wholly between two shares of them, as diffusers' FluxControlNetPipeline counts."""
    return tuple(index / count >= start and (index + 1) / count <= end for index in range(count))


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(item) if isinstance(item, dict) else item for key, item in value.items() if item is not None
    }
