"""The seam between Nightreel and sources that work over the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from .base import Description, Picture, Pictures, Tick
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Drawn:
    """A keyframe or clip that was made elsewhere."""

    recipe: Recipe
    content: bytes
    """A whole PNG of the recipe's size, 8 bits a channel, RGB, or an MP4 of its length; whoever made it has checked that."""
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


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms clips are bought from a service."""

    monthly_usd: float
    """Most that all workers of a store may pay for clips in a month (UTC)."""
    poll_s: float
    """Seconds between two looks whether a clip is finished."""
    timeout_s: float
    """Seconds after its order when a clip counts as one that never ends."""
    answer_s: float
    """Seconds that the service may take to answer."""


@runtime_checkable
class ClipService(Protocol):
    """Makes whole clips, for money: ordered, then asked for until they are finished, then downloaded.

    Lives in the worker's parent, as a RemoteSource does, and is constructed like one. It keeps nothing: who ordered what
    stands in the store (nightreel_worker.clips), so that nothing is ordered twice.
    """

    @property
    def lanes(self) -> int:
        """Jobs whose clips it can make at once."""
        ...

    @property
    def terms(self) -> Terms: ...

    def describe(self) -> Description:
        """What this service is. Asks nobody."""
        ...

    def order(self, recipe: Recipe, tick: Tick) -> str:
        """Order a clip; returns what the service calls the operation.

        Raises InDoubt when the service may have taken the order although it did not say so. Whatever else this raises
        means that it has not, and that nothing is owed: Unrenderable for what it refuses, SourceAway when it has no room or
        does not answer, SourceUnavailable when that will stay so, and what `tick` raises while it waits for room.
        """
        ...

    def finished(self, operation: str) -> str | None:
        """Where a clip can be downloaded; None while it is being made. May be asked as often as one likes.

        Raises Unrenderable and DrawingFailed when there will be none, which costs nothing; InDoubt when the service does
        not know the operation any more, SourceAway when it does not answer, SourceUnavailable when that will stay so.
        """
        ...

    def download(self, address: str, path: Path, tick: Tick) -> None:
        """Write the clip to a file, or as much of it as came. Raises InDoubt when it is gone, SourceAway, and what `tick` does."""
        ...

    def health(self) -> Iterator[tuple[Literal["ok", "fail"], str]]:
        """Ask whether the model is there and the key good, which costs nothing; says what it is, or what to do."""
        ...

    def close(self) -> None:
        """Let go of all connections. What was ordered goes on."""
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
