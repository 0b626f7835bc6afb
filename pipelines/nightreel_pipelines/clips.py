"""Whole clips instead of keyframes: how long, how large, and what their models are. Pure arithmetic, no numpy here."""

from __future__ import annotations

import math
from fractions import Fraction

from .base import Abilities, Description
from .errors import Unrenderable
from .models import ModelSpec


def description(spec: ModelSpec) -> Description:
    """What a model of clips is. Its entry says all that decides a clip beside the prompt: no service need be asked."""
    revision = str(spec.options.get("model", ""))
    can = Abilities(motions=("still", "move"), init=False)
    return Description(f"{spec.source}/1", revision, precision="", device="service", abilities=can)


def clip_seconds(spec: ModelSpec, visible_s: Fraction, field: str) -> int:
    """The shortest length of the model's clips that covers a shot with all its frames. Raises Unrenderable."""
    longest = max(spec.clips)
    if visible_s > longest:
        raise Unrenderable(
            f"{field}.duration: with its transitions the shot is on screen for {float(visible_s):g} s, and clips of"
            f" {spec.name} last {longest} s at most: make it {float(visible_s) - longest:g} s shorter, or take another model"
        )
    return min(seconds for seconds in spec.clips if seconds >= visible_s)


def clip_size(width: int, height: int, megapixels: float) -> tuple[int, int]:
    """16:9 or 9:16, whichever is nearer to the shape of a film of width x height: the shapes that services know."""
    short = round(math.sqrt(megapixels * 1e6 * 9 / 16))
    long = round(short * 16 / 9)
    return (long, short) if width >= height else (short, long)
