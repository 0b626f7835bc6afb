"""Frames between two keyframes that a known camera move joins: the first is carried forward, the second back.

No flow is needed: what was drawn anew is mixed in, and everything else moves as the camera does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from .drift import similarity
from .recipe import Warp

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float32]

FEATHER = 0.08  # of a frame's height: over this far from its border a picture gains its full weight
FAINT = 1e-3  # weight where neither picture reaches: their mirror images are mixed there


class Carry:
    """Two pictures, the second being the first after a move, partly drawn anew."""

    def __init__(self, first: Picture, second: Picture, warp: Warp) -> None:
        """uint8 (H, W, 3), RGB. `warp.pan` is in widths and heights of these pictures."""
        self._pictures = first, second
        self._warp = warp

    def frame(self, at: float) -> Picture:
        """The picture at a place between the two: 0 < at < 1."""
        sides = ((self._pictures[0], at), (self._pictures[1], at - 1))
        (first, inside), (second, other_inside) = (_carried(picture, self._warp, share) for picture, share in sides)
        weight, other_weight = (1 - at) * inside + FAINT, at * other_inside + FAINT
        share = (other_weight / (weight + other_weight))[:, :, None]
        return np.rint(first + (second.astype(np.float32) - first) * share).astype(np.uint8)


def _carried(picture: Picture, warp: Warp, share: float) -> tuple[Picture, Floats]:
    """The picture after a share of the move, and how far each pixel is from having left it: 0 to 1."""
    height, width = picture.shape[:2]
    matrix = np.array(similarity(warp, share * warp.seconds, width, height))
    forth = matrix.copy()
    forth[:, 2] += forth[:, :2] @ (0.5, 0.5) - 0.5
    moved = cv2.warpAffine(picture, forth, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved.astype(np.uint8, copy=False), _inside(matrix, width, height)


def _inside(matrix: npt.NDArray[np.float64], width: int, height: int) -> Floats:
    """(H, W): 1 well inside the picture that was moved, falling to 0 at its border and beyond."""
    x, y = np.arange(0.5, width)[None, :], np.arange(0.5, height)[:, None]
    back = np.linalg.inv(matrix[:, :2])
    dx, dy = x - matrix[0, 2], y - matrix[1, 2]
    from_x, from_y = back[0, 0] * dx + back[0, 1] * dy, back[1, 0] * dx + back[1, 1] * dy
    room = np.minimum(np.minimum(from_x, width - from_x), np.minimum(from_y, height - from_y))
    inside: Floats = np.clip(room / (FEATHER * height), 0, 1).astype(np.float32)
    return inside
