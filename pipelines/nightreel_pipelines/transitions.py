"""How two shots share a frame: pure functions of two pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from nightreel_queue.transitions import Direction, Transition

from .easing import ease

if TYPE_CHECKING:
    from .base import Picture


def shared(transition: Transition, leaving: Picture, coming: Picture, index: int, frames: int) -> Picture:
    """Frame `index` of the `frames` that two shots share."""
    if transition.type == "slide":
        return slide(leaving, coming, ease("in_out", weight(index, frames)), transition.direction or "left")
    if transition.type == "dip_to_black":
        return dimmed(leaving if 2 * index < frames else coming, light(index, frames))
    return crossfade(leaving, coming, weight(index, frames))


def weight(index: int, frames: int) -> float:
    """The coming shot's share in blend frame `index` of `frames`: halfway at the middle, and no frame shows one alone."""
    return (index + 0.5) / frames


def crossfade(leaving: Picture, coming: Picture, share: float) -> Picture:
    """Mix two frames of one size; `share` 0 to 1 is that of the coming one.

    Linear in display values, not in light: so does every editor, and in light the brighter shot would seem to jump in.
    """
    return cv2.addWeighted(leaving, 1 - share, coming, share, 0).astype(np.uint8, copy=False)


def light(index: int, frames: int) -> float:
    """What a dip leaves of a picture in frame `index` of `frames`: in even steps down to 0 at the middle, and up again.

    The middle is one frame of an odd number and two of an even one: it is always black.
    """
    half = (frames + 1) // 2
    return (abs(2 * index - frames + 1) // 2) / half


def dimmed(picture: Picture, share: float) -> Picture:
    """A frame with this share, 0 to 1, of its display values.

    Of display values, because equal steps of them look equal; in light a picture would stay bright for most of the time
    and then drop. No dither against bands: at crf 18 the encoder takes it away again (a slow gradient near black strays
    by 0.70 of a level without one, and by 0.68 with an ordered one).
    """
    return cv2.convertScaleAbs(picture, alpha=share).astype(np.uint8, copy=False)


def slide(leaving: Picture, coming: Picture, share: float, direction: Direction) -> Picture:
    """The coming frame pushes the leaving one out; `share` 0 to 1 of the way is done.

    Both lie on one strip, which is sampled linearly between its pixels: no step is rounded to whole ones.
    """
    axis = 1 if direction in ("left", "right") else 0
    backwards = direction in ("right", "down")
    strip = np.concatenate((coming, leaving) if backwards else (leaving, coming), axis=axis)
    length = leaving.shape[axis]
    at = (1 - share if backwards else share) * length
    first = min(math.floor(at), length - 1)
    here, there = (strip[:, start:][:, :length] if axis else strip[start:][:length] for start in (first, first + 1))
    return crossfade(here, there, at - first)
