"""The seam between Nightreel and sources that work over the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from .base import Description, Picture, Pictures, Tick
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Drawn:
    """A keyframe that was made elsewhere."""

    recipe: Recipe
    png: bytes
    """A whole PNG of the recipe's size, 8 bits a channel, RGB; the source has checked that."""
    place: str = ""
    """What made it, in words, for the receipt."""


class RemoteSource(Protocol):
    """Has keyframes made elsewhere. Lives in the worker's parent, which has the secrets, the store and the queue.

    It is used by several threads at once, one for each job. It never imports torch or numpy: pictures are files to it.
    Constructed with a ModelSpec and its own settings, which asks nobody; raises SourceUnavailable when one cannot be used.
    """

    @property
    def lanes(self) -> int:
        """Jobs that it can draw at once."""
        ...

    def describe(self) -> Description:
        """What this source is, and what it can be asked for. Asks nobody: a job that lacks no keyframe needs no network."""
        ...

    def keyframes(self, recipes: Sequence[Recipe], given: Mapping[str, Path], tick: Tick) -> Iterator[Drawn]:
        """Have one picture made for each recipe, in any order, each as soon as it is there.

        `given` has the files that the job brought along, by sha256: what `start` and `control` of a recipe name. `tick` is
        called at least every half second while the source keeps its own limits, and raises when the job is off: the source
        then calls off what it began elsewhere, and raises the same.

        Raises Unrenderable for what can never be made, DrawingFailed for what went wrong this time, SourceAway when
        nobody answers or has room, SourceUnavailable when that will stay so until somebody changes a setting.
        """
        ...

    def health(self) -> Iterator[tuple[Literal["ok", "fail"], str]]:
        """Ask each place whether it could draw now; says what it is, or what to do."""
        ...

    def close(self) -> None:
        """Call off what is still under way elsewhere, and let go of all connections."""
        ...


class Elsewhere:
    """Stands for such a source in the child process, which then only films: it gets jobs whose keyframes are all there."""

    def __init__(self, description: Description) -> None:
        self._description = description

    def describe(self) -> Description:
        return self._description

    def load(self) -> None:
        raise AssertionError("the child was given a job that lacks a keyframe")

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        raise AssertionError("the child was given a job that lacks a keyframe")
