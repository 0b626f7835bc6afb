"""What a picture may show: one thing, on one ground, at one time. The vocabulary that captions, pictures and judge share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

GROUNDS = {"hills": ("sun", "moon", "house", "tree"), "sea": ("sun", "moon", "boat"), "dunes": ("sun", "moon", "tent")}
"""Things by the ground that they may be seen over or on."""

THINGS = {
    "sun": ("red", "yellow", "orange"),
    "moon": ("white", "yellow"),
    "house": ("white", "red", "yellow", "blue"),
    "tree": ("green", "orange", "pink"),
    "boat": ("red", "green", "white", "yellow", "blue"),
    "tent": ("red", "white", "blue"),
}
"""Colours by thing."""

HILL_COLOURS = ("green", "blue", "purple", "brown")
TIMES = ("day", "night", "sunset", "fog")
SIZES = ("", "small", "large")
IN_THE_SKY = ("sun", "moon")

_TIME_SHARES = {"day": 3, "night": 4, "sunset": 3, "fog": 2}  # night is the hardest to learn: its contrasts are faint
_THING_SHARES = {"sun": 2, "moon": 2, "house": 3, "tree": 5, "boat": 5, "tent": 5}  # small things are harder than discs
_SIZE_SHARES = (6, 1, 1)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a caption may name."""

    thing: str
    colour: str
    ground: str
    ground_colour: str
    """Of hills; "" for sea and dunes, which have only one."""
    time: str
    size: str = ""
    """small, large, or "": anything between, and no caption names it."""

    @property
    def in_the_sky(self) -> bool:
        return self.thing in IN_THE_SKY


def all_scenes() -> tuple[Scene, ...]:
    """Every scene without a size, in a fixed order."""
    return tuple(
        Scene(thing, colour, ground, ground_colour, time)
        for ground, things in GROUNDS.items()
        for thing in things
        for colour, ground_colour, time in product(THINGS[thing], _ground_colours(ground), TIMES)
        if _can_be(thing, colour, time)
    )


def draw_scene(chance: random.Random) -> Scene:
    """One scene at random; things that are hard to draw come more often than others."""
    while True:
        thing = _weighted(chance, _THING_SHARES)
        ground = chance.choice([ground for ground, things in GROUNDS.items() if thing in things])
        colour, ground_colour = chance.choice(THINGS[thing]), chance.choice(_ground_colours(ground))
        time = _weighted(chance, _TIME_SHARES)
        size = chance.choices(SIZES, _SIZE_SHARES)[0]
        if _can_be(thing, colour, time):
            return Scene(thing, colour, ground, ground_colour, time, size)


def _can_be(thing: str, colour: str, time: str) -> bool:
    """No sun at night; a yellow disc is the moon only at night, because at other times anybody would call it a sun."""
    if thing == "sun":
        return time != "night"
    return (thing, colour) != ("moon", "yellow") or time == "night"


def _ground_colours(ground: str) -> tuple[str, ...]:
    return HILL_COLOURS if ground == "hills" else ("",)


def _weighted(chance: random.Random, shares: dict[str, int]) -> str:
    return chance.choices(list(shares), list(shares.values()))[0]
