"""The child process: owns the GPU, keeps the model between jobs, turns orders into files.

The main thread makes keyframes (it alone touches the model), others listen to the parent, decode given pictures, write
keyframes to files, and film. While job N is filmed, the keyframes of job N+1 are made; a film begins as soon as its first
keyframe is there.
The child gets no secrets, no store and no queue. When its orders end, because the parent closed the pipe or died,
it ends its whole process group, ffmpeg included.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from nightreel_pipelines import film
from nightreel_pipelines.audio import BadSound, prepare
from nightreel_pipelines.base import Description, LargeSource, LoadingHeard, Picture, Source, Tick
from nightreel_pipelines.encode import Encoder
from nightreel_pipelines.errors import Cancelled, PipelineError, SourceUnavailable, Unrenderable
from nightreel_pipelines.keyframes import Given
from nightreel_pipelines.models import ModelSpec, make_source
from nightreel_pipelines.pictures import BadPicture, load_any, load_png, save_png
from nightreel_pipelines.plan import Plan, plan
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.remote import Elsewhere
from nightreel_pipelines.tags import tags
from nightreel_queue.audio import Audio
from nightreel_queue.job import Job

from . import wire

PROGRESS_EVERY_S = 1.0  # one line of progress a second and stage is enough for any watchdog
UNSAVED_PICTURES = 4  # finished pictures that may wait to be written; more would only pile up memory
RECENT_PICTURES = 16  # kept for the next job, which was sent before these were in the store: 50 MB at 1 megapixel


class Task:
    """One order on its way through the child."""

    def __init__(self, order: wire.Order, layout: Plan, tags: Mapping[str, str]) -> None:
        self.key = order.key
        self.scratch = Path(order.scratch)
        self.plan = layout
        self.sound: Path | None = None
        """Ready for the film, once everything given has been prepared; None without one."""
        self.tags = tags
        self._files = {fingerprint: Path(file) for fingerprint, file in order.have.items()}
        self._expected = {each.fingerprint for each in layout.recipes} | {each.fingerprint for each in layout.given}
        self._changed = threading.Condition()
        self._error: Exception | None = None

    @property
    def error(self) -> Exception | None:
        return self._error

    def check(self) -> None:
        """Raise what ended the task early, if anything did."""
        if self._error is not None:
            raise self._error

    def fail(self, error: Exception) -> bool:
        """End the task early. True for the first error, which is the one to report."""
        with self._changed:
            first = self._error is None
            if first:
                self._error = error
            self._changed.notify_all()
        return first

    def have(self, fingerprint: str) -> bool:
        return fingerprint in self._files

    def add(self, fingerprint: str, file: Path) -> None:
        with self._changed:
            self._files[fingerprint] = file
            self._changed.notify_all()

    def picture(self, fingerprint: str) -> Picture:
        """A given picture or a stored keyframe, as soon as it is there. Raises LookupError for one that never will be."""
        return load_png(self.file(fingerprint))

    def file(self, fingerprint: str) -> Path:
        """Where a picture or a clip lies, as soon as it is there. Raises what ended the task early, and LookupError."""
        if fingerprint not in self._expected:
            raise LookupError(f"no picture {fingerprint} belongs to {self.key}")
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or fingerprint in self._files)
        self.check()
        return self._files[fingerprint]


class Child:
    """The stages and the lines between them."""

    def __init__(self, start: wire.Start, events: wire.Sender) -> None:
        self._events = events
        self._preset = start.preset
        self._spec = ModelSpec.model_validate(start.spec)
        self._source = _source(self._spec, start)
        self._loaded = False
        self.inbox: queue.Queue[wire.Order] = queue.Queue()
        self._ready: queue.Queue[Task] = queue.Queue()
        self._tasks: dict[str, Task] = {}
        self._cancelled: set[str] = set()
        self._to_film: queue.Queue[Task] = queue.Queue(maxsize=1)
        self._to_save: queue.Queue[tuple[Task, str, Picture, bool]] = queue.Queue(maxsize=UNSAVED_PICTURES)
        self._recent: collections.OrderedDict[str, Picture] = collections.OrderedDict()

    def run(self) -> None:
        """Serve orders until the process is ended."""
        description = self._source.describe()
        self._events.send(wire.Hello.of(description))
        for name, work in (("film", self._film_all), ("save", self._save_all)):
            threading.Thread(target=work, name=name, daemon=True).start()
        threading.Thread(target=self._prepare_all, args=(description,), name="prepare", daemon=True).start()
        free_since = time.monotonic()
        while True:
            self._keyframes_stage(self._ready.get(), free_since)
            free_since = time.monotonic()

    def cancel(self, key: str) -> None:
        self._cancelled.add(key)
        if task := self._tasks.get(key):
            self._end(task, Cancelled())

    # given pictures and sounds

    def _prepare_all(self, description: Description) -> None:
        """Decode what a job brings along while the GPU is at the job before."""
        while True:
            order = self.inbox.get()
            job = Job.model_validate_json(order.job)
            layout = plan(job, self._spec, description, order.inputs)
            task = Task(order, layout, tags(job, layout, self._spec.name))
            self._tasks[task.key] = task
            try:
                for given, field in layout.given.items():
                    self._prepare(task, given, Path(order.given[given.fingerprint]), field)
                if layout.audio is not None:
                    self._prepare_sound(task, layout.audio, Path(order.given[order.inputs[layout.audio.uri]]))
            except Exception as exc:  # noqa: BLE001  # the stage's boundary: what hostile bytes do to a decoder ends one job
                self._end(task, exc)
            self._ready.put(task)

    def _prepare(self, task: Task, given: Given, file: Path, field: str) -> None:
        task.check()
        try:
            picture = load_any(file)
        except BadPicture as exc:
            raise Unrenderable(f"{field}: {given.address} {exc}") from exc
        ready = task.scratch / f"{given.fingerprint}.png"
        save_png(ready, picture)
        task.add(given.fingerprint, ready)
        self._events.send(wire.Step(task.key))

    def _prepare_sound(self, task: Task, audio: Audio, file: Path) -> None:
        task.check()
        sound = task.scratch / "sound.m4a"
        try:
            prepare(file, sound, audio, frames=task.plan.frames, fps=task.plan.fps)
        except BadSound as exc:
            raise Unrenderable(f"audio.uri: {audio.uri} {exc}") from exc
        task.sound = sound
        self._events.send(wire.Step(task.key))

    # keyframes

    def _keyframes_stage(self, task: Task, free_since: float) -> None:
        got_at = time.monotonic()
        if task.key in self._cancelled:
            self._end(task, Cancelled())
        if task.error is not None:
            return
        self._to_film.put(task)  # waits until the film before the last has left its stage
        began = time.monotonic()
        self._events.send(wire.Started(task.key, round(got_at - free_since, 4), round(began - got_at, 4)))
        loading_s, placement = 0.0, ""
        try:
            if missing := self._missing(task):
                loading_s = self._load(task, missing)
                pictures = partial(self._picture, task)
                for recipe, picture in self._source.keyframes(missing, pictures, self._ticker(task)):
                    self._remember(recipe.fingerprint, picture)
                    self._to_save.put((task, recipe.fingerprint, picture, True))
                    placement = self._placement()
        except Exception as exc:  # noqa: BLE001  # the stage's boundary: one job's error never ends the next one
            self._end(task, exc)
        self._events.send(wire.KeyframesDone(task.key, round(time.monotonic() - began - loading_s, 4), placement))

    def _missing(self, task: Task) -> list[Recipe]:
        """What must be rendered. A keyframe that a job before this one has just made is only saved again."""
        missing = [recipe for recipe in task.plan.recipes if not task.have(recipe.fingerprint)]
        for recipe in missing:
            if (picture := self._recent.get(recipe.fingerprint)) is not None:
                self._to_save.put((task, recipe.fingerprint, picture, False))
        return [recipe for recipe in missing if recipe.fingerprint not in self._recent]

    def _picture(self, task: Task, fingerprint: str) -> Picture:
        """What a recipe starts from: mostly the keyframe before it, which is still at hand."""
        recent = self._recent.get(fingerprint)
        return task.picture(fingerprint) if recent is None else recent

    def _remember(self, fingerprint: str, picture: Picture) -> None:
        self._recent[fingerprint] = picture
        if len(self._recent) > RECENT_PICTURES:
            self._recent.popitem(last=False)

    def _load(self, task: Task, missing: list[Recipe]) -> float:
        if self._loaded:
            return 0.0
        self._events.send(wire.Loading(task.key))
        began = time.monotonic()
        if isinstance(self._source, LargeSource):
            self._source.expect(missing, self._loading_reporter(task))
        self._source.load()
        self._loaded = True
        seconds = time.monotonic() - began
        self._events.send(wire.Loaded(task.key, round(seconds, 3), self._placement()))
        return seconds

    def _loading_reporter(self, task: Task) -> LoadingHeard:
        reported = time.monotonic()

        def heard(done_bytes: int, all_bytes: int, bytes_per_s: float) -> None:
            nonlocal reported
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                self._events.send(wire.Loading(task.key, done_bytes, all_bytes, round(bytes_per_s)))

        return heard

    def _placement(self) -> str:
        return self._source.placement if isinstance(self._source, LargeSource) else ""

    def _ticker(self, task: Task) -> Ticker:
        return Ticker(task, lambda: self._events.send(wire.Step(task.key)))

    def _save_all(self) -> None:
        while True:
            task, fingerprint, picture, rendered = self._to_save.get()
            file = task.scratch / f"{fingerprint}.png"
            try:
                save_png(file, picture)
            except OSError as exc:
                self._end(task, exc)
                continue
            self._events.send(wire.KeyframeMade(task.key, fingerprint, str(file), rendered))
            task.add(fingerprint, file)

    # film

    def _film_all(self) -> None:
        while True:
            task = self._to_film.get()
            try:
                video, seconds = self._film(task)
            except Exception as exc:  # noqa: BLE001  # the stage's boundary, as above
                self._end(task, exc)
            else:
                self._tasks.pop(task.key, None)
                self._events.send(wire.Filmed(task.key, str(video), round(seconds, 4)))

    def _film(self, task: Task) -> tuple[Path, float]:
        began = time.monotonic()
        layout, waited_s = task.plan, 0.0

        def file(fingerprint: str) -> Path:
            nonlocal waited_s
            asked = time.monotonic()
            found = task.file(fingerprint)
            waited_s += time.monotonic() - asked
            return found

        def picture(fingerprint: str) -> Picture:
            return load_png(file(fingerprint))

        self._events.send(wire.Filming(task.key, 0))
        file(layout.shots[0].keyframes[0].picture.fingerprint)  # no encoder waits for the first keyframe
        video = task.scratch / "video.mp4"
        size = {"width": layout.width, "height": layout.height}
        with Encoder(
            video,
            **size,
            fps=layout.fps,
            crf=layout.crf,
            preset=self._preset,
            sound=task.sound,
            tags=task.tags,
        ) as encoder:
            for frame in self._reported(task, film.frames(layout, picture, file)):
                task.check()
                encoder.write(frame)
            encoder.finish()
        return video, time.monotonic() - began - waited_s

    def _reported(self, task: Task, frames: Iterator[Picture]) -> Iterator[Picture]:
        reported = time.monotonic()
        for number, frame in enumerate(frames, start=1):
            yield frame
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                self._events.send(wire.Filming(task.key, number))

    # ends

    def _end(self, task: Task, error: Exception) -> None:
        """Report that a task ended early; the first reason counts, what follows from it is not reported."""
        if not task.fail(error):
            return
        self._tasks.pop(task.key, None)
        match error:
            case Cancelled():
                self._events.send(wire.Dropped(task.key))
            case SourceUnavailable():
                self._events.send(wire.Unavailable(str(error)))
            case PipelineError():
                self._events.send(wire.Failed(task.key, isinstance(error, Unrenderable), str(error)))
            case _:
                self._events.send(wire.Failed(task.key, False, f"{type(error).__name__}: {error}"))


class Ticker:
    """The Tick of one task: ends it when it was called off, and reports progress now and then."""

    def __init__(self, task: Task, report: Tick) -> None:
        self._task = task
        self._report = report
        self._reported = time.monotonic()

    def __call__(self) -> None:
        self._task.check()
        if time.monotonic() - self._reported >= PROGRESS_EVERY_S:
            self._reported = time.monotonic()
            self._report()


def _source(spec: ModelSpec, start: wire.Start) -> Source:
    if start.elsewhere is not None:
        return Elsewhere(wire.Hello(**start.elsewhere).description)
    return make_source(spec, Path(start.weights_root) if start.weights_root else None)


def main() -> None:
    """`python -m nightreel_worker.child ORDERS_FD EVENTS_FD`"""
    orders = wire.receive(int(sys.argv[1]))
    events = wire.Sender(int(sys.argv[2]))
    start = next(orders)
    assert isinstance(start, wire.Start)
    try:
        child = Child(start, events)
        threading.Thread(target=listen, args=(orders, child), name="listen", daemon=True).start()
        child.run()
    except SourceUnavailable as exc:
        events.send(wire.Unavailable(str(exc)))


def listen(orders: Iterator[wire.Line], child: Child) -> None:
    """Take orders until there are no more; then end the process group, whatever it is doing."""
    with contextlib.suppress(OSError):
        for line in orders:
            if isinstance(line, wire.Order):
                child.inbox.put(line)
            elif isinstance(line, wire.Cancel):
                child.cancel(line.key)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
