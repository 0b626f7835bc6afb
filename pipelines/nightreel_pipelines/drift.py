"""A steady camera move as a transformation of the picture. Plain numbers, no numpy.

In complex numbers z = x + iy, y pointing down, with the picture's centre at 0, the picture moves by dz/dt = c z + v with
c = ln(zoom) - i rotate and v = -pan. Its solution z(t) = e^(ct) z + v (e^(ct) - 1) / c is a group: to move for one second
and then for two is to move for three. So frames between two keyframes need no other formula than the keyframes.
"""

from __future__ import annotations

import cmath
import math

from .recipe import Warp

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

_TINY = 1e-6  # below this the quotient loses its digits, and its series has them all


def similarity(warp: Warp, seconds: float, width: float, height: float) -> Matrix:
    """Where the places of a picture of width x height pixels come to lie after `seconds`, which may be negative.

    Places are continuous: the centre of the first pixel is (0.5, 0.5). `warp.seconds` is not looked at.
    """
    rate = complex(math.log(warp.zoom), -math.radians(warp.rotate))
    velocity = -complex(warp.pan[0] * width, warp.pan[1] * height)
    turn = cmath.exp(rate * seconds)
    small = abs(rate * seconds) < _TINY
    shift = velocity * (seconds * (1 + rate * seconds / 2) if small else (turn - 1) / rate)
    centre = complex(width, height) / 2
    shift += centre - turn * centre
    return (turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)
