"""Scenes -> pictures: flat shapes with soft edges. Lengths are in units of the picture's shorter side, y points down."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .layout import Layout
from .scene import Scene

Plane = npt.NDArray[np.floating[Any]]
"""(H, W): coordinates, distances or coverage."""
Canvas = npt.NDArray[np.floating[Any]]
"""(H, W, 3): RGB from 0 to 1."""
Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (0.86, 0.16, 0.14),
    "yellow": (0.98, 0.84, 0.25),
    "orange": (0.96, 0.52, 0.12),
    "white": (0.96, 0.96, 0.94),
    "green": (0.10, 0.50, 0.20),
    "blue": (0.14, 0.30, 0.86),
    "pink": (0.95, 0.55, 0.70),
}
"""Of things."""
HILLS: dict[str, Colour] = {
    "green": (0.28, 0.66, 0.28),
    "blue": (0.26, 0.42, 0.72),
    "purple": (0.50, 0.26, 0.66),
    "brown": (0.50, 0.34, 0.20),
}
"""Lighter than things of the same name, so that a green tree is seen on green hills."""
GOLDEN, WATER = (0.93, 0.74, 0.35), (0.10, 0.36, 0.60)
SAIL, WOOD, ROOF, GLASS, LAMP, DARK = (
    (0.95, 0.93, 0.86),
    (0.25, 0.17, 0.10),
    (0.45, 0.20, 0.14),
    (0.25, 0.35, 0.50),
    (1.00, 0.85, 0.40),
    (0.18, 0.12, 0.10),
)
SKIES: dict[str, tuple[Colour, Colour]] = {
    "day": ((0.36, 0.64, 0.95), (0.78, 0.90, 0.99)),
    "night": ((0.02, 0.03, 0.12), (0.10, 0.13, 0.32)),
    "sunset": ((0.28, 0.14, 0.42), (0.98, 0.58, 0.30)),
    "fog": ((0.70, 0.72, 0.75), (0.85, 0.86, 0.87)),
}
"""Colours of the sky at the top and at the horizon."""
LIGHT = {"day": 1.0, "night": 0.42, "sunset": 0.78, "fog": 0.9}
MIST = 0.8  # grey that far things fade into in fog
SIZE_RANGES = {"small": (0.72, 0.82), "": (0.92, 1.12), "large": (1.22, 1.36)}  # factors
MARGIN = 0.09  # between a thing and the picture's edge
EDGE_PIXELS = 0.6  # half width of a soft edge


def draw(scene: Scene, layout: Layout, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The picture: uint8 (height, width, 3), RGB. It holds nothing at random: equal layouts give equal pictures."""
    brush = _Brush(scene, layout, width, height)
    brush.sky()
    if scene.in_the_sky:
        brush.disc()
    brush.ground()
    if not scene.in_the_sky:
        getattr(brush, scene.thing)()
    return np.clip(np.rint(brush.canvas * 255), 0, 255).astype(np.uint8)


class _Brush:
    """One picture while it is drawn, from back to front."""

    def __init__(self, scene: Scene, layout: Layout, width: int, height: int) -> None:
        unit = min(width, height)
        self._scene, self._layout = scene, layout
        self._light = LIGHT[scene.time]
        self._fog = float(scene.time == "fog")
        self._top, self._low = (np.array(colour, np.float32) for colour in SKIES[scene.time])
        self._edge = EDGE_PIXELS / unit
        self._wide, self._high = width / unit, height / unit
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / unit)[:, None] * np.ones((1, width), np.float32)
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / unit)[None, :] * np.ones((height, 1), np.float32)
        self._horizon = _between(0.54, 0.62, layout.horizon) * self._high
        self.canvas: Canvas = np.zeros((height, width, 3), np.float32)

    def sky(self) -> None:
        """A gradient from the top to the horizon."""
        share = np.clip(self.y / self._horizon, 0, 1)[..., None]
        self.canvas = self._top * (1 - share) + self._low * share

    def disc(self) -> None:
        """Sun or moon, with a halo that is stronger for the sun."""
        x, y, radius = self._disc_place()
        away = np.hypot(self.x - x, self.y - y) - radius
        glow = 0.5 if self._scene.thing == "sun" else 0.25
        colour = COLOURS[self._scene.colour]
        self._paint(glow * np.exp(-((np.maximum(away, 0) / 0.07) ** 2)), colour)
        self._fill(away, colour)

    def ground(self) -> None:
        """Hills and dunes are two wavy bands, the sea is a straight one with waves in it."""
        if self._scene.ground == "sea":
            self._sea()
            return
        colour = np.array(HILLS.get(self._scene.ground_colour, GOLDEN), np.float32)
        swing = 0.05 if self._scene.ground == "hills" else 0.025
        first, second = self._layout.phases
        far = self._horizon - 0.02 + swing * (np.sin(6 * self.x + first) + 0.5 * np.sin(11 * self.x - first))
        near = self._horizon + 0.13 + 0.7 * swing * (np.sin(5 * self.x + second) + 0.4 * np.sin(9 * self.x - second))
        depth = np.clip((self.y - near) / 0.4, 0, 1)[..., None]
        self._fill(far - self.y, self._lit(colour * 0.72 + 0.12, self._light, 0.6))
        self._fill(near - self.y, self._lit(colour * (1.05 - 0.3 * depth), self._light, 0.35))

    def boat(self) -> None:
        """A coloured hull below, a mast, and a white sail to the right of it."""
        u, v, scale = self._stand((0.10, 0.18), 0.20)
        self._fill(scale * _most(-v, v - 0.45, np.abs(u) - 1 + 0.7 * v), self._own())
        self._fill(scale * _most(v, -v - 1.7, np.abs(u) - 0.05), self._pale(WOOD))
        self._fill(scale * _most(v + 0.12, 0.05 - u, (u - 0.1) * 1.35 - (v + 1.55)), self._pale(SAIL))

    def house(self) -> None:
        """Coloured walls, a brown roof, two windows that are lit at night."""
        u, v, scale = self._stand((0.12, 0.18), 0.15)
        self._fill(scale * _most(np.abs(u) - 1, np.abs(v + 0.1) - 0.75), self._own())
        self._fill(scale * _most(np.abs(u) * 0.8 - (v + 1.75), v + 0.85), self._pale(ROOF))
        window = _most(np.abs(np.abs(u) - 0.5) - 0.2, np.abs(v + 0.15) - 0.22)
        self._fill(scale * window, LAMP if self._scene.time == "night" else GLASS)

    def tree(self) -> None:
        """A round, coloured crown on a trunk."""
        u, v, scale = self._stand((0.15, 0.21), 0.16)
        self._fill(scale * _most(np.abs(u) - 0.15, np.abs(v + 0.5) - 0.6), self._pale(WOOD))
        self._fill(scale * (np.hypot(u, (v + 1.7) * 0.9) - 1), self._own())

    def tent(self) -> None:
        """A coloured triangle with a dark entrance."""
        u, v, scale = self._stand((0.16, 0.22), 0.21)
        self._fill(scale * _most(np.abs(u) - (v + 1.1) * 0.95, v), self._own())
        self._fill(scale * _most(np.abs(u) * 3.2 - (v + 0.75), v), DARK)

    def _sea(self) -> None:
        deep = np.clip((self.y - self._horizon) / 0.4, 0, 1)[..., None]
        wave = (0.5 + 0.5 * np.sin(70 * self.y + 3 * np.sin(9 * self.x + self._layout.phases[0])))[..., None]
        water = (np.array(WATER, np.float32) * 0.6 + self._low * 0.3) * (1 - 0.3 * deep) + 0.07 * wave
        self._fill(self._horizon - self.y, self._lit(water, self._light, 0.4))
        if self._scene.in_the_sky:
            x, _, _ = self._disc_place()
            path = 0.4 * np.exp(-(((self.x - x) / 0.07) ** 2)) * (self.y > self._horizon)
            self._paint(path, COLOURS[self._scene.colour])

    def _disc_place(self) -> tuple[float, float, float]:
        """Centre and radius."""
        radius = 0.105 * self._factor()
        return self._inside(radius), max(self._layout.y * self._high, radius + MARGIN), radius

    def _stand(self, below: tuple[float, float], size: float) -> tuple[Plane, Plane, float]:
        """Coordinates (u, v) about a thing's foot, in units of its half width, and that half width."""
        scale = size * self._factor()
        x, y = self._inside(scale), self._horizon + _between(*below, self._layout.y)
        return (self.x - x) / scale, (self.y - y) / scale, scale

    def _inside(self, reach: float) -> float:
        """The layout's x, moved as far as needed to keep the whole thing in the picture."""
        return min(max(self._layout.x * self._wide, reach + MARGIN), self._wide - reach - MARGIN)

    def _factor(self) -> float:
        return _between(*SIZE_RANGES[self._scene.size], self._layout.size)

    def _own(self) -> Canvas:
        """The thing's colour in this light: brighter than the ground, so that it can be seen at night."""
        return self._lit(np.array(COLOURS[self._scene.colour], np.float32), self._near_light(), 0.3)

    def _pale(self, colour: Colour) -> Canvas:
        return np.array(colour, np.float32) * self._near_light()

    def _near_light(self) -> float:
        return 0.45 * self._light + 0.55

    def _lit(self, colour: Canvas, light: float, fading: float) -> Canvas:
        """A colour in some light; in fog a share of it, `fading`, turns grey."""
        lit: Canvas = colour * light * (1 - self._fog * fading) + MIST * self._fog * fading
        return lit

    def _fill(self, outside: Plane, colour: Canvas | Colour) -> None:
        """Paint where `outside`, a distance from the shape's edge, is negative."""
        self._paint(1 / (1 + np.exp(np.clip(2 * outside / self._edge, -60, 60))), colour)

    def _paint(self, cover: Plane, colour: Canvas | Colour) -> None:
        share = cover[..., None].astype(np.float32)
        self.canvas = self.canvas * (1 - share) + np.asarray(colour, np.float32) * share


def _most(*distances: Plane) -> Plane:
    """The edge distance of the part that shapes have in common."""
    result = distances[0]
    for distance in distances[1:]:
        result = np.maximum(result, distance)
    return result


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
