"""Where things stand in a picture, and how noise says so.

The model cuts a picture into tokens of 16x16 pixels. A thing's middle lies in one of a few of them, its place; which one,
and where in it, is drawn evenly. Noise "says" a layout when, of all tokens where that thing may stand, the place has the
greatest first number, and the place's next three numbers are the thing's x and y within it, and its size; the next three of
the picture's first token are the horizon and the phases of the ground's lines. That is all that is drawn at random, so
caption and noise leave nothing open: where something was left open, a model would draw the mean of it, which is a blur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .scene import Scene

TOKEN_PIXELS = 16
SAID = 3
"""Numbers, each normally distributed, that a place says: x and y of the thing within it, and its size."""
GROUND_SAID = 3
"""The same of the first token: the horizon, and the phases of the ground's far and near line."""
COLUMNS, SKY_ROWS, GROUND_ROWS = (0.25, 0.75), (0.08, 0.38), (0.50, 0.76)
"""Shares of width and height between which the middles of possible places lie: 6 to 12 places at any native size. Of few
places the greatest number is not very great, and a model learns late to see it."""
PHASE = 1.5  # radians, the standard deviation
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Layout:
    """Shares from 0 to 1, but for the phases."""

    x: float
    """Of the width."""
    y: float
    """Of a disc: of the height. Of other things: how near they stand, 1 being nearest."""
    size: float
    """Between the least and the greatest that the scene's size allows."""
    horizon: float
    """Between the highest and the lowest."""
    phases: tuple[float, float]
    """Radians, of the hills' lines."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A layout as noise says it."""

    place: int
    """Number of a token, row by row."""
    numbers: npt.NDArray[np.float32]
    """float32 (SAID,), normally distributed."""
    ground: npt.NDArray[np.float32]
    """float32 (GROUND_SAID,), likewise."""


def draw_layout(scene: Scene, size: tuple[int, int], chance: np.random.Generator) -> tuple[Layout, Spoken]:
    """A layout at random for a picture of (width, height) pixels."""
    columns, rows = (side // TOKEN_PIXELS for side in size)
    possible = places(scene, size)
    place = int(chance.choice(possible))
    numbers = chance.standard_normal(SAID).astype(np.float32)
    x, y, big = (_even(float(number)) for number in numbers)
    row, column = divmod(place, columns)
    if scene.in_the_sky:
        height = (row + y) / rows
    else:
        first, last = possible[0] // columns, possible[-1] // columns
        height = (row - first + y) / (last - first + 1)
    ground = chance.standard_normal(GROUND_SAID).astype(np.float32)
    horizon, far, near = (float(number) for number in ground)
    layout = Layout((column + x) / columns, height, big, _even(horizon), (PHASE * far, PHASE * near))
    return layout, Spoken(place, numbers, ground)


def places(scene: Scene, size: tuple[int, int]) -> list[int]:
    """Numbers of the tokens, row by row, where the scene's thing may stand."""
    columns, rows = (side // TOKEN_PIXELS for side in size)
    wanted = SKY_ROWS if scene.in_the_sky else GROUND_ROWS
    return [row * columns + column for row in _within(wanted, rows) for column in _within(COLUMNS, columns)]


def _within(shares: tuple[float, float], count: int) -> list[int]:
    """Of `count` equal parts those whose middles lie between two shares; the middle one if there is none."""
    low, high = shares
    found = [part for part in range(count) if low - _ROUNDING <= (part + 0.5) / count <= high + _ROUNDING]
    return found or [min(count - 1, int(count * (low + high) / 2))]


def _even(normal: float) -> float:
    """The normal distribution's own cumulative share: evenly distributed from 0 to 1."""
    return 0.5 * (1 + math.erf(normal / math.sqrt(2)))
