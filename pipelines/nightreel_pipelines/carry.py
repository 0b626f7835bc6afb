"""Frames between two keyframes that a known camera move joins: the first is carried forward, the second back.

The second keyframe is the first after the move, drawn anew in part. What the drawing displaced is found by optical flow
between the first after the whole move and the second, so that outlines slide instead of doubling; all else moves as the
camera does, whatever the flow makes of it. In formulas, with M(t) for the camera's move, a pixel y of the frame at t lies
at z = M(1 - t) y in the second keyframe, displaced by d(z); the first keyframe is that much before it, at M(-1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from .beginning import moved
from .drift import similarity
from .inbetween import Flow, sampled
from .recipe import Warp

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

FEATHER = 0.08  # of a frame's height: so far from its border a picture has its full weight, halfway between keyframes
FAINT = 1e-3  # weight where neither picture reaches: their mirror images are mixed there


class Carry:
    """Two pictures, the second being the first after a move, partly drawn anew."""

    def __init__(self, first: Picture, second: Picture, warp: Warp) -> None:
        """uint8 (H, W, 3), RGB. `warp.pan` is in widths and heights of these pictures."""
        self._first, self._second, self._warp = first, second, warp
        self._flow = Flow(moved(first, warp), second)

    def frame(self, at: float) -> Picture:
        """The picture at a place between the two: 0 < at < 1."""
        onward = self._places(None, 1 - at)
        drawn, before = self._flow.displacements(at)
        first = self._places(onward + self._lifted(drawn, onward), -1)
        second = onward + self._lifted(before, onward)
        weight, other_weight = (1 - at) * _inside(first, at) + FAINT, at * _inside(second, 1 - at) + FAINT
        share = other_weight / (weight + other_weight)
        pictures = sampled(self._first, first, mirror=True), sampled(self._second, second, mirror=True)
        return cv2.blendLinear(*pictures, 1 - share, share).astype(np.uint8, copy=False)

    def _places(self, places: Floats | None, share: float) -> Floats:
        """(H, W, 2): where places (by default each pixel's own) come to lie after a share of the move."""
        height, width = self._first.shape[:2]
        matrix = np.array(similarity(self._warp, share * self._warp.seconds, width, height))
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        matrix = matrix.astype(np.float32)
        if places is None:
            x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
            return np.stack([row[0] * x + row[1] * y + row[2] for row in matrix], axis=2)
        return cv2.transform(places, matrix).astype(np.float32, copy=False)

    def _lifted(self, displacement: Floats, places: Floats) -> Floats:
        """A displacement from the flow's own reduced picture, in pixels, at places in the picture."""
        height, width = self._first.shape[:2]
        scale = np.array((displacement.shape[1] / width, displacement.shape[0] / height), dtype=np.float32)
        factors = np.tile(scale, width)  # for whole rows of x and y, which numpy does far faster than pair by pair
        rows = places.reshape(height, 2 * width) + np.float32(0.5)
        rows *= factors
        rows -= np.float32(0.5)
        found = sampled(displacement, rows.reshape(places.shape)).reshape(height, 2 * width)
        found /= factors
        return found.reshape(places.shape)


def _inside(places: Floats, share: float) -> Floats:
    """(H, W): 1 well inside the picture, falling to 0 at its border and beyond; sharper where it has hardly moved.

    So that at either keyframe its picture alone is shown, up to its very border.
    """
    height, width = places.shape[:2]
    x, y = places[:, :, 0], places[:, :, 1]
    room = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)) + np.float32(0.5)
    inside: Floats = np.clip(room / np.float32(2 * share * FEATHER * height), 0, 1)
    return inside
