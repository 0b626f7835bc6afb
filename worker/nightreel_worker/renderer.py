"""Rendering as the worker sees it: a job goes in, files come out, whatever happens to the process that does it.

The renderer keeps one child process with one model. A child that crashes or hangs is replaced, and each job that it had
is dealt with by what is known:

- it hung in a job's stage: that job is to blame, the others go to the new child;
- it crashed with one job: that job is to blame;
- it crashed with several: nobody can know whose fault it was, so each is rendered again, alone;
- it died while loading its model: no job is to blame, and the second time in a row the renderer cannot be had.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import structlog

from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import Cancelled, FilmFailed, SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec

from . import wire
from .errors import ChildDied, Preempted, RendererUnavailable
from .meter import Busy
from .process import ChildProcess

log = structlog.get_logger()

DEATHS_WHILE_LOADING = 2  # in a row, before the renderer counts as not to be had

Phase = Literal["waiting", "loading", "keyframes", "parked", "filming"]
Noted = Callable[[wire.Line | None], None]
Verdict = Literal["blamed", "again", "again_alone", "unavailable", "preempted"]


@dataclass(frozen=True, slots=True)
class Lost:
    """The child is gone; what that means for one job."""

    verdict: Verdict
    reason: str


@dataclass(slots=True)
class Rendering:
    """One job in the child."""

    order: wire.Order
    alone: bool
    noted: Noted
    phase: Phase = "waiting"
    on_film: bool = False
    """The film stage has it; its keyframes may still be in the making."""
    heard_at: float = field(default_factory=time.monotonic)
    lines: queue.SimpleQueue[wire.Line | Lost] = field(default_factory=queue.SimpleQueue)


@dataclass(frozen=True, slots=True)
class Film:
    """A finished video in the scratch folder."""

    video: Path
    rendered: frozenset[str]
    """Fingerprints of the keyframes that were rendered for it; they lie in the scratch folder, too."""
    keyframes_s: float
    film_s: float
    placement: str
    """Of the model that made its keyframes, in words; empty when none was made now."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the child may be silent, in seconds."""

    stall_s: float
    load_s: float


class Renderer:
    """Safe to use from several threads; each call of `render` blocks its own."""

    def __init__(
        self,
        limits: Limits,
        weights_root: Path | None,
        preset: str,
        busy: Callable[[Busy | None], None] = lambda what: None,
        elsewhere: Callable[[ModelSpec], Description | None] = lambda spec: None,
    ) -> None:
        """`busy` is told when the child begins to import or to load, and, by None, when it is ready or gone.

        `elsewhere` describes a model whose keyframes are made over the network: the child only films them.
        """
        self._limits = limits
        self._weights_root = weights_root
        self._preset = preset
        self._busy = busy
        self._elsewhere = elsewhere
        self._changed = threading.Condition()
        self._child: ChildProcess | None = None
        self._jobs: dict[str, Rendering] = {}
        self._heard_at = time.monotonic()
        self._deaths_while_loading: Counter[str] = Counter()
        """In a row, by model."""
        self._stopped = threading.Event()
        self.restarts = 0
        """Children that died and were replaced."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def describe(self, spec: ModelSpec) -> Description:
        """What the model's source is, on this machine. Raises RendererUnavailable, SourceUnavailable, Preempted."""
        if known := self._elsewhere(spec):
            return known
        with self._changed:
            while True:
                child = self._child_for(spec, alone=False)
                while not child.description and self._child is child and not self._stopped.is_set():
                    self._changed.wait()
                if child.description:
                    return child.description
                self._check_available(child)

    def render(
        self, spec: ModelSpec, order: wire.Order, *, alone: bool, heard: Callable[[wire.Line], None], noted: Noted
    ) -> Film:
        """Have a job rendered; `heard` gets what the child says of it, in this thread, while that goes on.

        `noted` gets the same at once, on another thread, and None when the child is gone; it must be quick, and raise nothing.

        Raises Unrenderable, FilmFailed, Cancelled, ChildDied, Preempted, RendererUnavailable, and whatever `heard` does.
        """
        made: dict[str, str] = {}
        rendered: set[str] = set()
        while True:
            rendering = self._hand_over(spec, dataclasses.replace(order, have=order.have | made), alone, noted)
            try:
                return self._follow(rendering, made, rendered, heard)
            except _AgainError as again:
                alone = alone or again.alone
            finally:
                self._forget(order.key)

    def cancel(self, key: str) -> None:
        """Call a job off; its `render` raises Cancelled soon."""
        with self._changed:
            if self._child and key in self._jobs:
                self._child.send(wire.Cancel(key))

    def quiet_s(self) -> float:
        """Seconds since the child said anything; 0 while it loads a model within its time."""
        with self._changed:
            child = self._child
            starting = child is not None and (child.description is None or child.loading)
        return 0.0 if starting else time.monotonic() - self._heard_at

    def stop(self) -> None:
        """End the child now, whatever it does; every `render` raises Preempted."""
        self._stopped.set()
        with self._changed:
            child = self._child
            self._changed.notify_all()
        if child:
            child.kill()

    def close(self) -> None:
        """Let the child leave. No job is in it any more."""
        self._stopped.set()
        with self._changed:
            child = self._child
        if child:
            child.close()

    # handing over

    def _child_for(self, spec: ModelSpec, alone: bool) -> ChildProcess:
        """The child that serves this model, with room for the job; waits for that. Holds the condition."""
        self._changed.wait_for(lambda: self._stopped.is_set() or self._has_room(spec, alone))
        if self._stopped.is_set():
            raise Preempted("the worker is leaving")
        if self._child and self._child.spec != spec:
            self._child.close()
            self._child = None
        if self._child is None:
            self._busy("import")
            place = (spec, self._weights_root, self._preset)
            self._child = ChildProcess(*place, self._on_line, self._on_death, elsewhere=self._elsewhere(spec))
            log.info("renderer_started", pid=self._child.pid, model=spec.name)
        return self._child

    def _has_room(self, spec: ModelSpec, alone: bool) -> bool:
        if not self._jobs:
            return True
        same_model = self._child is None or self._child.spec == spec
        return same_model and not alone and not any(job.alone for job in self._jobs.values())

    def _hand_over(self, spec: ModelSpec, order: wire.Order, alone: bool, noted: Noted) -> Rendering:
        with self._changed:
            child = self._child_for(spec, alone)
            rendering = self._jobs[order.key] = Rendering(order, alone, noted)
            child.send(order)
            return rendering

    def _forget(self, key: str) -> None:
        """Drop a job that its caller has done with; a child that still works on it is told to stop."""
        with self._changed:
            if self._jobs.pop(key, None) and self._child:
                self._child.send(wire.Cancel(key))
            self._changed.notify_all()

    # following

    def _follow(
        self, rendering: Rendering, made: dict[str, str], rendered: set[str], heard: Callable[[wire.Line], None]
    ) -> Film:
        """Pass on what the child says until the job ends.

        `made` collects the keyframes that lie in the scratch folder, `rendered` those of them that were rendered.
        """
        keyframes_s, placement = 0.0, ""
        while True:
            match rendering.lines.get():
                case Lost() as lost:
                    raise _error_of(lost)
                case wire.Failed(permanent=permanent, reason=reason):
                    raise Unrenderable(reason) if permanent else FilmFailed(reason)
                case wire.Dropped():
                    raise Cancelled
                case wire.Filmed() as filmed:
                    return Film(Path(filmed.file), frozenset(rendered), keyframes_s, filmed.seconds, placement)
                case line:
                    if isinstance(line, wire.KeyframeMade):
                        made[line.fingerprint] = line.file
                        if line.rendered:
                            rendered.add(line.fingerprint)
                    elif isinstance(line, wire.KeyframesDone):
                        keyframes_s, placement = line.seconds, line.placement
                    heard(line)

    # what the child says, on its reader's thread

    def _on_line(self, child: ChildProcess, line: wire.Line) -> None:
        with self._changed:
            self._heard_at = time.monotonic()
            if self._child is child:
                self._tell_busy(line)
            match line:
                case wire.Hello():
                    child.description = line.description
                case wire.Unavailable():
                    child.unavailable = line.reason
                    child.kill()
                case wire.Start():
                    pass  # said by parents only
                case _:
                    if rendering := self._jobs.get(line.key):
                        self._note(child, rendering, line)
                        rendering.lines.put(line)
            self._changed.notify_all()

    def _tell_busy(self, line: wire.Line) -> None:
        """Also of a job that was called off meanwhile: the child does not stop loading for that."""
        match line:
            case wire.Loading():
                self._busy("load")
            case wire.Hello() | wire.Loaded() | wire.KeyframesDone():
                self._busy(None)

    def _note(self, child: ChildProcess, rendering: Rendering, line: wire.Line) -> None:
        if not (rendering.phase == "loading" and isinstance(line, wire.Loading)):  # loading is timed as a whole
            rendering.heard_at = self._heard_at
        rendering.noted(line)
        match line:
            case wire.Started() | wire.Loaded():
                rendering.phase = "keyframes"
            case wire.Loading():
                rendering.phase = "loading"
            case wire.KeyframesDone():
                rendering.phase = "filming" if rendering.on_film else "parked"
            case wire.Filming():
                rendering.on_film = True
                rendering.phase = "filming" if rendering.phase == "parked" else rendering.phase
            case wire.Filmed() | wire.Failed() | wire.Dropped():
                del self._jobs[rendering.order.key]
        child.loading = any(job.phase == "loading" for job in self._jobs.values())
        if isinstance(line, wire.Loaded):
            self._deaths_while_loading[child.spec.name] = 0
            log.info("model_loaded", model=child.spec.name, seconds=line.seconds, placement=line.placement)

    def _on_death(self, child: ChildProcess, reason: str) -> None:
        with self._changed:
            if self._child is not child:
                return  # replaced on purpose
            self._child = None
            self._busy(None)
            verdicts = self._judge(child)
            jobs, self._jobs = self._jobs, {}
            for key, job in jobs.items():
                job.noted(None)
                job.lines.put(Lost(verdicts[key], child.unavailable or reason))
            self._changed.notify_all()
        if not self._stopped.is_set() and not child.unavailable:
            self.restarts += 1
            log.warning("renderer_died", reason=reason, jobs=verdicts)

    def _judge(self, child: ChildProcess) -> dict[str, Verdict]:
        """What a dead child means for each of its jobs."""
        unready = child.description is None or child.loading
        self._deaths_while_loading[child.spec.name] += unready
        begun = [key for key, job in self._jobs.items() if job.phase != "waiting"]

        def verdict(key: str) -> Verdict:
            if self._stopped.is_set():
                return "preempted"
            if child.unavailable or self._deaths_while_loading[child.spec.name] >= DEATHS_WHILE_LOADING:
                return "unavailable"
            if child.hung:
                return "blamed" if key in child.hung else "again"
            if unready or key not in begun:
                return "again"
            return "blamed" if len(begun) == 1 else "again_alone"

        return {key: verdict(key) for key in self._jobs}

    def _check_available(self, child: ChildProcess) -> None:
        """After a child left without a hello: may another one be tried?"""
        if child.unavailable:
            raise SourceUnavailable(child.unavailable)
        if self._deaths_while_loading[child.spec.name] >= DEATHS_WHILE_LOADING:
            raise RendererUnavailable("the renderer died twice before it was ready: run with NIGHTREEL_LOG_LEVEL=debug")

    # watchdog

    def _watch(self) -> None:
        """Kill a child that is silent for too long in a stage that has work."""
        while not self._stopped.wait(min(1.0, self._limits.stall_s / 4)):
            with self._changed:
                child = self._child
                if child is None or child.hung:
                    continue
                hung = frozenset(key for key, job in self._jobs.items() if self._is_hung(job))
                mute = child.description is None and time.monotonic() - child.started_at > self._limits.load_s
                if hung or mute:
                    log.warning("renderer_hung", jobs=sorted(hung), starting=mute)
                    child.hung = frozenset() if child.loading else hung
                    child.kill()

    def _is_hung(self, job: Rendering) -> bool:
        limit_s = self._limits.load_s if job.phase == "loading" else self._limits.stall_s
        return job.phase not in ("waiting", "parked") and time.monotonic() - job.heard_at > limit_s


class _AgainError(Exception):
    """Raised inside `render` when the job goes to a new child."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone


def _error_of(lost: Lost) -> Exception:
    match lost.verdict:
        case "blamed":
            return ChildDied(lost.reason)
        case "again" | "again_alone":
            return _AgainError(alone=lost.verdict == "again_alone")
        case "unavailable":
            return RendererUnavailable(lost.reason)
        case "preempted":
            return Preempted("the worker is leaving")
        case _:
            assert_never(lost.verdict)
