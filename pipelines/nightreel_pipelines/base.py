"""The seam between Nightreel and whatever makes its keyframes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from nightreel_queue.motions import KINDS

from .errors import Unrenderable
from .recipe import Recipe

if TYPE_CHECKING:  # plans are made without numpy
    import numpy as np
    import numpy.typing as npt

Picture: TypeAlias = "npt.NDArray[np.uint8]"
"""uint8 (H, W, 3), RGB."""

Pictures = Callable[[str], Picture]
"""The picture of a fingerprint, as soon as there is one; only to be read."""

Tick = Callable[[], None]
"""Called by a source after each step of its work: it reports progress, and raises Cancelled when the job is off."""


LoadingHeard = Callable[[int, int, float], None]
"""Called while a model is loaded: bytes that came in, bytes of all, bytes a second so far."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a source can do besides drawing a prompt; by default all that a job can ask for.

    A job that asks for more is refused by `abilities.check`, before anything is fetched or drawn.
    """

    motions: tuple[str, ...] = KINDS
    """The kinds of motion whose keyframes it can draw, as `kind_of` names them."""
    init: bool = True
    """Does it draw over a given picture?"""
    multiple: int = 1
    """Sides of its pictures are multiples of this many pixels."""
    sides: tuple[int, int] = (1, 65536)
    """Pixels of the shortest and the longest side that it draws."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a source is on this machine. All of it that decides pixels becomes part of every recipe."""

    source: str
    """Name and version of the code that makes the picture, such as flux/1."""
    revision: str
    """Hash of the weights; empty for a source without weights."""
    precision: str
    """Numbers that the model computes in: fp32, bf16, fp8, fp8/bf16, fp8/fp32; empty for a source without a model."""
    device: str
    """cpu or cuda. Decides no pixels by promise, but is logged and stands in the receipt."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Hash of the weights of each control checkpoint, by its type, such as pose. Stands in recipes that use it."""
    abilities: Abilities = Abilities()
    """What it can be asked for."""


class Source(Protocol):
    """Makes keyframes. Lives in the child process, used by one thread; constructed with a ModelSpec."""

    def describe(self) -> Description:
        """What this source is, without loading the model. Raises SourceUnavailable."""
        ...

    def load(self) -> None:
        """Make the model ready; called once, before the first `keyframes`. Raises SourceUnavailable."""
        ...

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        """Make one picture of `recipe.width` x `recipe.height` for each recipe, in order, each as soon as it is done.

        `pictures` has what a recipe's `start` names: given pictures, the keyframes made before, and those yielded so
        far. Raises Unrenderable for a recipe that can never be made (before any work on the others), and whatever
        `tick` and `pictures` raise. A source that draws from prompt and seed alone calls `refuse_mixtures` first.
        """
        ...


@runtime_checkable
class LargeSource(Protocol):
    """What a source whose model takes long to load offers besides."""

    def expect(self, recipes: Sequence[Recipe], heard: LoadingHeard) -> None:
        """Called before `load`: the recipes that come first, and who wants to know how loading goes."""
        ...

    @property
    def placement(self) -> str:
        """What lies where, and in which numbers, in words; empty before `load`."""
        ...


def no_pictures(fingerprint: str) -> Picture:
    """For recipes that start from noise alone. Raises LookupError."""
    raise LookupError(f"no picture {fingerprint}")


def refuse_mixtures(recipes: Sequence[Recipe], model: str) -> None:
    """For sources that draw from prompt and seed alone: raises Unrenderable when a recipe asks for more."""
    for recipe in recipes:
        if recipe.toward is not None:
            raise Unrenderable(f"motion.walk: {model} cannot walk: take still, zoom, pan or rotate, or another model")
        if recipe.start is not None:
            field = "motion.feedback" if recipe.start.warp else "init"
            raise Unrenderable(f"{field}: {model} draws over no picture: leave it out, or take another model")
