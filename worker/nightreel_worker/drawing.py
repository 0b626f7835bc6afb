"""Having a job's missing keyframes, or clips, made over the network, before the renderer films them.

It says what the renderer's child says of its own: the same lines, heard by the same ears. So the keyframe cache, the meter,
the progress display and a job's limits need not know where a keyframe is made.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nightreel_pipelines.base import Tick
from nightreel_pipelines.errors import SourceAway, SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.remote import ClipService, Drawn, RemoteSource
from nightreel_storage.keyframes import Keyframes

from . import wire
from .admission import Work
from .clips import Clips, Errand, Paid
from .errors import RendererUnavailable
from .remotes import Remotes
from .renderer import Film, Noted

LOOK_S = 0.2  # between two looks for a free lane, or whether somebody else has made a keyframe
LATELY = 1000  # keyframes that this run remembers to have had made
AWAY_S = 60.0  # that the source of the worker's own model may be away before the run ends


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of a job's drawing."""

    heard: Callable[[wire.Line], None]
    noted: Noted
    check: Callable[[], None]
    """Raises when the job is off, or the run leaves."""
    paid: Paid
    """Told what each clip cost that was bought for the job."""


@dataclass(frozen=True, slots=True)
class Brought:
    """Keyframes that were made elsewhere for one job, and lie in its scratch folder."""

    files: Mapping[str, str] = field(default_factory=dict)
    """By fingerprint."""
    made: frozenset[str] = frozenset()
    """Those that were made for this job, and not at the same time for another one."""
    seconds: float = 0.0
    placement: str = ""

    def told_of(self, film: Film) -> Film:
        """The film, with what was made elsewhere for it."""
        if not self.files:
            return film
        return replace(film, rendered=self.made, keyframes_s=self.seconds, placement=self.placement)


@dataclass(slots=True)
class _Job:
    """One job while its keyframes are drawn."""

    work: Work
    ears: Ears
    files: dict[str, str] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def missing(self) -> list[Recipe]:
        recipes = self.work.plan.recipes
        return [each for each in recipes if each.fingerprint not in {*self.work.have, *self.files}]


class Drawing:
    """The stage before the renderer, for jobs of sources over the network. Safe to use from several threads."""

    def __init__(self, remotes: Remotes, keyframes: Keyframes, clips: Clips, own: ModelSpec) -> None:
        """`own` is the worker's own model: without its source, no job could be made."""
        self._remotes, self._keyframes, self._clips, self._own = remotes, keyframes, clips, own
        self._lock = threading.Lock()
        self._lanes: dict[str, threading.Semaphore] = {}
        self._making: set[str] = set()
        """Fingerprints of what is drawn now, for any job: what two jobs share is made once."""
        self._lately: dict[str, None] = {}
        """Of what was drawn last, which the store has, though it had not when a job asked for it. Oldest first."""
        self._drew = False
        self._away_since: float | None = None

    @property
    def lanes(self) -> int:
        """Jobs of the worker's own model whose keyframes can be made at once; 1 on this machine. Raises SourceUnavailable."""
        source = self._remotes.of(self._own)
        return source.lanes if source else 1

    def draw(self, work: Work, ears: Ears) -> Brought:
        """Have what a job lacks made, and wait for it; nothing to do for a model that draws on this machine.

        Raises Unrenderable, DrawingFailed, SourceAway, RendererUnavailable, and whatever the ears do.
        """
        job = _Job(work, ears)
        if not job.missing():
            return Brought()
        try:
            source = self._remotes.of(work.spec)
            return Brought() if source is None else self._draw_in_lane(source, job)
        except SourceUnavailable as exc:
            raise self._without(work, exc) from exc
        except SourceAway as exc:
            if self._gone_for_good(work):
                raise RendererUnavailable(str(exc)) from exc
            raise

    def _draw_in_lane(self, source: RemoteSource | ClipService, job: _Job) -> Brought:
        lanes = self._lanes_of(job.work.spec.name, source)
        while not lanes.acquire(timeout=LOOK_S):
            job.ears.check()
        try:
            return self._draw(source, job)
        finally:
            lanes.release()

    def _draw(self, source: RemoteSource | ClipService, job: _Job) -> Brought:
        key, began = job.work.key, time.monotonic()
        _say(job, wire.Started(key, 0.0, 0.0))
        try:
            while missing := job.missing():
                with self._claimed(missing) as mine:
                    if mine:
                        self._draw_all(source, job, mine)
                if not mine and not self._fetch(job):
                    time.sleep(LOOK_S)
                    job.ears.check()
        finally:
            seconds = round(time.monotonic() - began, 4)
            job.ears.noted(wire.KeyframesDone(key, seconds))
        placement = "; ".join(sorted(job.places))
        job.ears.heard(wire.KeyframesDone(key, seconds, placement))
        return Brought(job.files, frozenset(job.made), seconds, placement)

    def _draw_all(self, source: RemoteSource | ClipService, job: _Job, recipes: Sequence[Recipe]) -> None:
        for drawn in self._drawn(source, job, recipes):
            self._drew, self._away_since = True, None
            self._keep(job, drawn)

    def _drawn(self, source: RemoteSource | ClipService, job: _Job, recipes: Sequence[Recipe]) -> Iterator[Drawn]:
        if isinstance(source, ClipService):
            work = job.work
            errand = Errand(work.spec, work.request.name, work.scratch, _ticker(job), job.ears.paid)
            return self._clips.made(source, errand, recipes)
        given = {sha256: Path(file) for sha256, file in job.work.given.items()}
        return source.keyframes(recipes, given, _ticker(job))

    def _keep(self, job: _Job, drawn: Drawn) -> None:
        fingerprint = drawn.recipe.fingerprint
        path = job.work.scratch / drawn.recipe.file
        path.write_bytes(drawn.content)
        job.files[fingerprint] = str(path)
        job.made.add(fingerprint)
        job.places |= {drawn.place} - {""}
        _say(job, wire.KeyframeMade(job.work.key, fingerprint, str(path), rendered=True))
        with self._lock:  # from here on it is in the store
            self._lately[fingerprint] = None
            if len(self._lately) > LATELY:
                del self._lately[next(iter(self._lately))]

    def _fetch(self, job: _Job) -> bool:
        """Take what another job of this run has had made meanwhile; True when there was something."""
        lately = [recipe for recipe in job.missing() if recipe.fingerprint in self._lately]
        for recipe in lately:
            fingerprint, path = recipe.fingerprint, job.work.scratch / recipe.file
            if self._keyframes.fetch(fingerprint, path):
                job.files[fingerprint] = str(path)
            else:  # somebody has deleted it: it is made again
                with self._lock:
                    self._lately.pop(fingerprint, None)
        return bool(lately)

    @contextlib.contextmanager
    def _claimed(self, missing: Sequence[Recipe]) -> Iterator[list[Recipe]]:
        """Those of the recipes that nobody else of this run is having made."""
        with self._lock:
            others = self._making | self._lately.keys()
            mine = [recipe for recipe in missing if recipe.fingerprint not in others]
            self._making |= {recipe.fingerprint for recipe in mine}
        try:
            yield mine
        finally:
            with self._lock:
                self._making -= {recipe.fingerprint for recipe in mine}

    def _lanes_of(self, model: str, source: RemoteSource | ClipService) -> threading.Semaphore:
        with self._lock:
            return self._lanes.setdefault(model, threading.Semaphore(source.lanes))

    def _without(self, work: Work, error: SourceUnavailable) -> Exception:
        """What follows when the source cannot be had: for the worker's own model, every other job would meet it as well."""
        own = work.spec.name == self._own.name
        return RendererUnavailable(str(error)) if own else Unrenderable(str(error))

    def _gone_for_good(self, work: Work) -> bool:
        """Is the source of the worker's own model away since this run began, or for so long that no job is worth trying?"""
        if work.spec.name != self._own.name:
            return False
        now = time.monotonic()
        self._away_since = self._away_since or now
        return not self._drew or now - self._away_since > AWAY_S


def _say(job: _Job, line: wire.Line) -> None:
    job.ears.noted(line)
    job.ears.heard(line)


def _ticker(job: _Job) -> Tick:
    """Checks, and tells that the drawing goes on: while a source keeps its own limits, its job's lease is kept."""

    def tick() -> None:
        job.ears.check()
        job.ears.heard(wire.Step(job.work.key))

    return tick
