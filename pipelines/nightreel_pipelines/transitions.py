"""How two shots share a frame: pure functions of two pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from .base import Picture


def weight(index: int, frames: int) -> float:
    """The coming shot's share in blend frame `index` of `frames`: halfway at the middle, and no frame shows one alone."""
    return (index + 0.5) / frames


def crossfade(leaving: Picture, coming: Picture, share: float) -> Picture:
    """Mix two frames of one size; `share` 0 to 1 is that of the coming one.

    Linear in display values, not in light: so does every editor, and in light the brighter shot would seem to jump in.
    """
    return cv2.addWeighted(leaving, 1 - share, coming, share, 0).astype(np.uint8, copy=False)
