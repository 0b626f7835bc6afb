"""The picture that a keyframe is drawn over: fitted to its size, moved by the camera, in the colours of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .camera import fit
from .drift import similarity
from .recipe import Recipe, Warp

if TYPE_CHECKING:
    from .base import Picture, Pictures

MOST_CONTRAST = 2.0  # times: a nearly plain picture must not be blown up to another one's contrast


def beginning(recipe: Recipe, pictures: Pictures) -> Picture | None:
    """uint8 (recipe.height, recipe.width, 3), RGB; None for a recipe that is drawn from noise alone."""
    start = recipe.start
    if start is None:
        return None
    picture = fit(pictures(start.picture), recipe.width, recipe.height)
    if start.warp is not None:
        picture = moved(picture, start.warp)
    if start.colors is not None:
        picture = in_colors_of(pictures(start.colors), picture)
    return picture


def moved(picture: Picture, warp: Warp) -> Picture:
    """The picture after the camera's move. What comes into sight is the picture's mirror image, to be drawn over."""
    height, width = picture.shape[:2]
    matrix = np.array(similarity(warp, warp.seconds, width, height))
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the first pixel's centre
    return cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    ).astype(np.uint8, copy=False)


def in_colors_of(wanted: Picture, picture: Picture) -> Picture:
    """The picture with mean and spread of each Lab channel as in `wanted` (E. Reinhard and others, 2001, in Lab).

    Without it each round through the model shifts colours a little, and they run away.
    """
    target, lab = _lab(wanted), _lab(picture)
    axes = (0, 1)
    mean, spread = lab.mean(axes, dtype=np.float64), lab.std(axes, dtype=np.float64)
    wanted_mean, wanted_spread = target.mean(axes, dtype=np.float64), target.std(axes, dtype=np.float64)
    gain = np.clip(wanted_spread / np.maximum(spread, 1e-6), 1 / MOST_CONTRAST, MOST_CONTRAST)
    matched = ((lab - mean) * gain + wanted_mean).astype(np.float32)
    rgb = cv2.cvtColor(matched, cv2.COLOR_LAB2RGB)
    levels: Picture = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return levels


def _lab(picture: Picture) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """float32 (H, W, 3): L 0 to 100, a and b about -127 to 127."""
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32, copy=False)
