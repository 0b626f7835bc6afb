"""What parent and child say to each other: one JSON object a line, on two pipes of their own.

The child's standard output and error carry nothing of this, so whatever a library prints cannot break it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from nightreel_pipelines.base import Description

# parent -> child


@dataclass(frozen=True, slots=True)
class Start:
    """The first line: which model to serve."""

    kind: ClassVar[str] = "start"
    spec: dict[str, Any]
    """A ModelSpec as JSON."""
    weights_root: str | None
    preset: str
    """x264's preset."""
    elsewhere: dict[str, Any] | None = None
    """The Hello of a source over the network, whose keyframes the parent brings; None: the child makes them."""


@dataclass(frozen=True, slots=True)
class Order:
    """Render a job into a scratch folder."""

    kind: ClassVar[str] = "order"
    key: str
    job: str
    """Canonical JSON of a resolved job."""
    scratch: str
    have: dict[str, str] = field(default_factory=dict)
    """Files of the keyframes that need not be rendered, by fingerprint."""
    inputs: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that the job names, by address."""
    given: dict[str, str] = field(default_factory=dict)
    """These files, as they were fetched, by sha256."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop a job, whatever it has reached."""

    kind: ClassVar[str] = "cancel"
    key: str


# child -> parent


@dataclass(frozen=True, slots=True)
class Hello:
    """The source is known; no model has been loaded."""

    kind: ClassVar[str] = "hello"
    source: str
    revision: str
    precision: str
    device: str
    controls: dict[str, str]

    @classmethod
    def of(cls, description: Description) -> Hello:
        said = (description.source, description.revision, description.precision, description.device)
        return cls(*said, dict(description.controls))

    @property
    def description(self) -> Description:
        return Description(self.source, self.revision, self.precision, self.device, self.controls)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The model cannot be had; the child leaves."""

    kind: ClassVar[str] = "unavailable"
    reason: str


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being loaded, because a keyframe is missing; sent first, then at most once a second."""

    kind: ClassVar[str] = "loading"
    key: str
    done_bytes: int = 0
    all_bytes: int = 0
    """0 until the source tells."""
    bytes_per_s: float = 0.0

    @property
    def words(self) -> str:
        """For a person; empty at the begin."""
        if not self.all_bytes:
            return ""
        return f"{self.done_bytes / 1e9:.1f} of {self.all_bytes / 1e9:.1f} GB, {self.bytes_per_s / 1e9:.2f} GB/s"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is ready."""

    kind: ClassVar[str] = "loaded"
    key: str
    seconds: float
    placement: str = ""
    """What lies where, in words; empty when the source does not tell."""


@dataclass(frozen=True, slots=True)
class Started:
    """The job has the GPU."""

    kind: ClassVar[str] = "started"
    key: str
    waited_s: float
    """How long the GPU had no order before."""
    held_up_s: float
    """How long it then waited for the film stage to take the job before."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the keyframes stage is done; sent at most once a second."""

    kind: ClassVar[str] = "step"
    key: str


@dataclass(frozen=True, slots=True)
class KeyframeMade:
    """A keyframe lies in the scratch folder."""

    kind: ClassVar[str] = "keyframe"
    key: str
    fingerprint: str
    file: str
    rendered: bool
    """False when it was at hand from the job before."""


@dataclass(frozen=True, slots=True)
class KeyframesDone:
    """The job has left the GPU."""

    kind: ClassVar[str] = "keyframes_done"
    key: str
    seconds: float
    """How long it had it, model loading left out."""
    placement: str = ""
    """Of the model that made them; empty when none was rendered."""


@dataclass(frozen=True, slots=True)
class Filming:
    """Frames of the film are done; sent at most once a second, and first when the stage begins."""

    kind: ClassVar[str] = "filming"
    key: str
    frames: int


@dataclass(frozen=True, slots=True)
class Filmed:
    """The video lies in the scratch folder."""

    kind: ClassVar[str] = "filmed"
    key: str
    file: str
    seconds: float
    """Time that the film stage spent on it, waiting for keyframes left out."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended without a video. `permanent`: trying again cannot help."""

    kind: ClassVar[str] = "failed"
    key: str
    permanent: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """The job was cancelled, as asked."""

    kind: ClassVar[str] = "dropped"
    key: str


FromParent = Start | Order | Cancel
FromChild = (
    Hello
    | Unavailable
    | Loading
    | Loaded
    | Started
    | Step
    | KeyframeMade
    | KeyframesDone
    | Filming
    | Filmed
    | Failed
    | Dropped
)
Line = FromParent | FromChild
_KINDS: dict[str, type[Any]] = {
    line.kind: line
    for line in (
        Start, Order, Cancel, Hello, Unavailable, Loading, Loaded, Started, Step, KeyframeMade, KeyframesDone, Filming,
        Filmed, Failed, Dropped,
    )
}  # fmt: skip

L = TypeVar("L", bound=Line)


class Sender:
    """Writes lines to a pipe, whole ones only, from any thread."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=0)
        self._lock = threading.Lock()

    def send(self, line: Line) -> None:
        """Raises OSError (BrokenPipeError) when the other side is gone."""
        data = json.dumps({"kind": line.kind} | dataclasses.asdict(line)).encode() + b"\n"
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]

    def close(self) -> None:
        with self._lock:
            self._file.close()


def receive(fd: int) -> Iterator[Line]:
    """The lines that arrive on a pipe, until its end. A last line that was cut off is dropped."""
    with os.fdopen(fd, "rb") as file:
        for data in file:
            if data.endswith(b"\n"):
                fields = json.loads(data)
                yield _KINDS[fields.pop("kind")](**fields)
