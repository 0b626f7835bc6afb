"""How a motion starts and stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # plans are made without numpy
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T", float, "npt.NDArray[np.float64]")


def ease(kind: str, progress: T) -> T:
    """Progress 0 to 1 of a move that starts gently (in), stops gently (out), both (in_out), or neither (linear)."""
    if kind == "in":
        return progress**2
    if kind == "out":
        return 1 - (1 - progress) ** 2
    if kind == "in_out":
        return progress**2 * (3 - 2 * progress)
    return progress
