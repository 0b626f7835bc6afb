"""What bench/film.py measures: keyframes without a model, costs in wall and CPU seconds, and each stage of a film by itself."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightreel_pipelines import film
from nightreel_pipelines.base import Description, Picture, Pictures
from nightreel_pipelines.beginning import in_colors_of, moved
from nightreel_pipelines.camera import Camera, Pyramid, fit
from nightreel_pipelines.carry import Carry
from nightreel_pipelines.encode import TO_BT709, Encoder, check, ffmpeg
from nightreel_pipelines.inbetween import Flow
from nightreel_pipelines.keyframes import keyframe_size
from nightreel_pipelines.models import load_models
from nightreel_pipelines.pictures import load_png, save_png
from nightreel_pipelines.plan import Plan, plan
from nightreel_pipelines.recipe import Warp
from nightreel_pipelines.transitions import crossfade
from nightreel_queue.job import Job
from nightreel_queue.motions import Move
from nightreel_storage.folder import FolderStore

ONE, BOTH = 1, 2  # CPUs
FPS = 30
SOURCE = "mandelbrot=s={w}x{h}:end_scale=0.01:end_pts=400"  # a slow zoom into fine detail: each frame a keyframe
STORED, DRAWN_OVER = "keyframe to PNG, for the store", "feedback: picture to draw over (move, Lab)"
CHECKED = "check and poster, a frame"
DRIFT = Warp(1.1, (0.0, 0.0), 0.0, 0.25)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one thing that was done."""

    wall_s: float
    cpu_s: float
    """Of this process and those that it waited for."""
    thread_s: float
    """CPU seconds of the calling thread alone."""

    def for_each(self, things: int) -> Cost:
        return Cost(self.wall_s / things, self.cpu_s / things, self.thread_s / things)


def measured(work: Callable[[], object], cpus: int = BOTH) -> Cost:
    """Do it, tied to the first `cpus` CPUs; what it starts is tied, too."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usual)[:cpus])
    try:
        wall, cpu, thread = time.perf_counter(), _cpu_s(), time.thread_time()
        work()
        return Cost(time.perf_counter() - wall, _cpu_s() - cpu, time.thread_time() - thread)
    finally:
        os.sched_setaffinity(0, usual)


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


@dataclass(frozen=True, slots=True)
class Scene:
    """A film's size, and keyframes for it."""

    folder: Path
    width: int
    height: int
    keyframe: tuple[int, int]
    drawn: tuple[Path, ...]
    """PNGs, each a little deeper in the picture than the one before."""
    longest_s: float

    @classmethod
    def vertical(cls, folder: Path) -> Scene:
        """Full size: keyframes as flux-schnell makes them for it."""
        size = keyframe_size(1080, 1920, load_models()["flux-schnell"].megapixels, 16)
        return cls(folder, 1080, 1920, size, _draw(folder, size, 40), 30.0)

    @classmethod
    def small(cls, folder: Path) -> Scene:
        return cls(folder, 90, 160, (96, 160), _draw(folder, (96, 160), 8), 0.8)

    def seconds(self, wanted: float) -> float:
        return min(wanted, self.longest_s)

    def layout(self, shots: int, motion: Any, seconds: float) -> Plan:
        """The plan of a film of several shots with one motion."""
        shot = {"duration": seconds / shots, "motion": motion}
        content = {
            "output": {"width": self.width, "height": self.height, "fps": FPS},
            "shots": [{"prompt": f"shot {index}"} | shot for index in range(shots)],
        }
        job = Job.model_validate_json(json.dumps(content))
        return plan(job, load_models()["flux-schnell"], Description("", "", "", ""), {})

    def files(self, layout: Plan) -> list[Path]:
        """A stored keyframe for each of a plan's."""
        return [self.drawn[index % len(self.drawn)] for index in range(len(layout.recipes))]

    def pictures(self, layout: Plan) -> Pictures:
        """As the renderer's film stage has them: decoded when they are asked for."""
        files = dict(zip((recipe.fingerprint for recipe in layout.recipes), self.files(layout), strict=True))
        return lambda fingerprint: load_png(files[fingerprint])

    def encode(self, layout: Plan, pictures: Pictures, preset: str) -> Path:
        video = self.folder / "film.mp4"
        with Encoder(video, width=self.width, height=self.height, fps=FPS, crf=layout.crf, preset=preset) as encoder:
            for frame in film.frames(layout, pictures):
                encoder.write(frame)
        return video

    def clip(self, layout: Plan) -> Path:
        """The frames of a film, as the encoder sees them: raw yuv420p."""
        file = self.folder / "clip.yuv"
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{self.width}x{self.height}", "-r", str(FPS))
        command = (ffmpeg(), "-v", "error", "-y", *raw, "-i", "pipe:0", "-vf", TO_BT709, "-f", "rawvideo", str(file))
        _feed(command, film.frames(layout, self.pictures(layout)))
        return file


def _draw(folder: Path, size: tuple[int, int], number: int) -> tuple[Path, ...]:
    source = SOURCE.format(w=size[0], h=size[1])
    command = (ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(number), str(folder / "%03d.png"))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return tuple(sorted(folder.glob("*.png")))


def _feed(command: Sequence[str], frames: Iterator[Picture]) -> None:
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin:
        for frame in frames:
            process.stdin.write(frame.data)
    if process.wait():
        raise RuntimeError(f"ffmpeg ended with code {process.returncode}")


# stages


@dataclass(frozen=True, slots=True)
class Stage:
    times: float
    """In a film of 30 s."""
    work: Callable[[], object]
    repeat: int
    """How often it is done for one figure."""


def costs(scene: Scene, rounds: int) -> Mapping[str, tuple[float, list[Cost]]]:
    """By stage: how often a film has it, and what it costs once."""
    found = {}
    for name, stage in (_pictures(scene) | _many(scene)).items():
        stage.work()
        found[name] = (stage.times, [_repeated(stage) for _ in range(rounds)])
    for name, stage in _ffmpegs(scene).items():
        found[name] = (stage.times, [measured(stage.work).for_each(stage.repeat) for _ in range(rounds)])
    return found


def _repeated(stage: Stage) -> Cost:
    return measured(lambda: [stage.work() for _ in range(stage.repeat)]).for_each(stage.repeat)


def _pictures(scene: Scene) -> dict[str, Stage]:
    """Of a film of camera moves."""
    picture, other = (load_png(file) for file in scene.drawn[:2])
    camera = Camera(Move(zoom=(1.0, 1.12)), scene.width, scene.height, 135)
    pyramid = Pyramid(picture, camera)
    pyramid.frame(60)
    ends = [fit(each, scene.width, scene.height) for each in (picture, other)]
    return {
        STORED: Stage(8, lambda: save_png(scene.folder / "kept", picture), 5),
        "keyframe from PNG": Stage(8, lambda: load_png(scene.drawn[0]), 5),
        "camera made ready": Stage(8, lambda: Pyramid(picture, camera).frame(0), 3),
        "camera, a frame": Stage(1005, lambda: pyramid.frame(60), 20),
        "crossfade, a frame": Stage(105, lambda: crossfade(ends[0], ends[1], 0.3), 20),
    }


def _many(scene: Scene) -> dict[str, Stage]:
    """Of walks and feedback."""
    first, second = (load_png(file) for file in scene.drawn[:2])
    ends = fit(first, scene.width, scene.height), fit(second, scene.width, scene.height)
    flow, carry = Flow(*ends), Carry(*ends, DRIFT)
    return {
        "walk: keyframe enlarged": Stage(241, lambda: fit(second, scene.width, scene.height), 3),
        "walk: flow of two keyframes": Stage(240, lambda: Flow(*ends), 3),
        "walk: a frame between": Stage(659, lambda: flow.frame(0.4), 5),
        DRAWN_OVER: Stage(119, lambda: in_colors_of(first, moved(second, DRIFT)), 3),
        "feedback: flow of two keyframes": Stage(120, lambda: Carry(*ends, DRIFT), 3),
        "feedback: a frame between": Stage(779, lambda: carry.frame(0.4), 5),
    }


def _ffmpegs(scene: Scene) -> dict[str, Stage]:
    """Of every film; those that come later have what came before."""
    layout = scene.layout(1, {"zoom": [1.0, 1.12]}, scene.seconds(2.0))
    frames = list(film.frames(layout, scene.pictures(layout)))
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{scene.width}x{scene.height}", "-r", str(FPS))
    null = (ffmpeg(), "-v", "error", *raw, "-i", "pipe:0", "-vf", TO_BT709, "-c:v", "rawvideo", "-f", "null", "-")
    video = scene.encode(layout, scene.pictures(layout), "fast").rename(scene.folder / "checked.mp4")
    store = FolderStore(scene.folder / "store")
    names = itertools.count()

    def encode() -> None:
        with Encoder(
            scene.folder / "stage.mp4", width=scene.width, height=scene.height, fps=FPS, crf=18, preset="fast"
        ) as encoder:
            for frame in frames:
                encoder.write(frame)

    def look() -> None:
        check(
            video,
            width=scene.width,
            height=scene.height,
            fps=FPS,
            frames=len(frames),
            poster=scene.folder / "poster.jpg",
        )

    return {
        "pipe and colours": Stage(900, lambda: _feed(null, iter(frames)), len(frames)),
        "pipe, colours and x264 fast": Stage(900, encode, len(frames)),
        CHECKED: Stage(900, look, len(frames)),
        "sha256 and put into a folder, a frame": Stage(
            900, lambda: store.put(f"b/{next(names)}.mp4", video, content_type="video/mp4", metadata={}), len(frames)
        ),
    }
