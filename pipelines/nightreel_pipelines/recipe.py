"""All that decides a keyframe's pixels, and the fingerprint that it is stored under. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass


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

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the recipe as JSON with sorted keys."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()
