"""Frames between keyframes: against ffmpeg's minterpolate and plain mixing; and how steady walks and feedback are.

python bench/motion.py [--quick] [--rounds N] [--model MODEL]
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from common import Table, arguments, count, median, publish

from nightreel_pipelines import film
from nightreel_pipelines.base import Picture
from nightreel_pipelines.beginning import moved
from nightreel_pipelines.encode import ffmpeg
from nightreel_pipelines.inbetween import Flow
from nightreel_pipelines.models import load_models, make_source
from nightreel_pipelines.plan import Plan, plan
from nightreel_pipelines.recipe import Warp
from nightreel_pipelines.transitions import crossfade
from nightreel_queue.job import Job
from nightreel_queue.motions import FeedbackMotion

Clip = npt.NDArray[np.uint8]
WIDTH, HEIGHT, FPS = 640, 360, 24
ZOOMED_OUT = "mandelbrot=s=1920x1080:start_scale=0.3:end_scale=0.3"
CLIPS = {
    "testsrc2": "testsrc2=s={w}x{h}",
    "mandelbrot, zooming in": "mandelbrot=s={w}x{h}:end_scale=0.01:end_pts=200",
    "mandelbrot, panning": ZOOMED_OUT + ",crop={w}:{h}:x='300+9*n':y='300+3*n'",
    "mandelbrot, turning": ZOOMED_OUT + ",rotate='0.02*n',crop={w}:{h}",
    "cellauto, scrolling": "cellauto=s={w}x{h}:rule=110:random_seed=1",
    "gradients": "gradients=s={w}x{h}:n=4:seed=3:speed=0.03",
}
MINTERPOLATE = "minterpolate=fps={fps}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"
MOTIONS = {
    "walk to another prompt": {"walk": {"to": "a white moon over purple hills at night"}},
    "walk to another noise": {"walk": {"seed": 5}},
    "feedback, zoom 1.1": {"feedback": {}},
    "feedback, pan 0.25": {"feedback": {"zoom": 1.0, "pan": [0.25, 0]}},
    "feedback, zoom 0.75, rotate 20": {"feedback": {"zoom": 0.75, "rotate": 20}},
}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The frames that were left out, made anew."""

    frames: Clip
    """uint8 (N, H, W, 3)."""
    fps: float
    """How many were made a second."""


def main() -> None:
    parser = arguments("Frames between keyframes.")
    parser.add_argument("--model", default="pocket", help="that draws walks and feedback (default: pocket)")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    clips = dict(list(CLIPS.items())[:1]) if asked.quick else CLIPS
    size, frames = ((160, 96), 7) if asked.quick else ((WIDTH, HEIGHT), 49)
    tables = [rebuilding(clips, size, frames, rounds), steadiness(asked.model, 0.5 if asked.quick else 4.0)]
    publish("motion", tables, asked)


def rebuilding(clips: Mapping[str, str], size: tuple[int, int], frames: int, rounds: int) -> Table:
    """Every second frame of a clip is left out and rebuilt."""
    ways = {"flow": by_flow, "minterpolate": by_minterpolate, "mixing": by_mixing}
    rows = []
    for name, source in clips.items():
        clip = read(source.format(w=size[0], h=size[1]), size, frames)
        runs = {way: [rebuild(clip[::2]) for _ in range(rounds)] for way, rebuild in ways.items()}
        quality = [f"{likeness(clip[1::2], runs[way][0].frames):.1f}" for way in ways]
        speed = [f"{median([run.fps for run in runs[way]]):.0f}" for way in ("flow", "minterpolate")]
        rows.append((name, *quality, *speed))
    notes = (
        (
            f"PSNR in dB, over all pixels of {frames // 2} frames; {count(range(rounds))}. Clips are ffmpeg's own sources,"
            f" {size[0]}x{size[1]}; every second frame was left out."
        ),
        (
            "flow: `inbetween.py`; mixing: the mean of both neighbours. minterpolate runs with"
            f" `{MINTERPOLATE.format(fps=FPS).partition('=')[2]}`; its best offset by a frame counts, and its time includes"
            " the pipe."
        ),
    )
    columns = ("clip", "flow", "minterpolate", "mixing", "flow, frames/s", "minterpolate, frames/s")
    return Table("Frames rebuilt between their neighbours", columns, tuple(rows), notes)


def read(source: str, size: tuple[int, int], frames: int) -> Clip:
    """Frames of one of ffmpeg's sources."""
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    command = (ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(frames), *raw)
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(frames, size[1], size[0], 3)


def by_flow(kept: Clip) -> Rebuilt:
    return _timed(kept, lambda first, second: Flow(first, second).frame(0.5))


def by_mixing(kept: Clip) -> Rebuilt:
    return _timed(kept, lambda first, second: crossfade(first, second, 0.5))


def by_minterpolate(kept: Clip) -> Rebuilt:
    height, width = kept.shape[1:3]
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24")
    source = (*raw, "-s", f"{width}x{height}", "-r", str(FPS // 2), "-i", "-")
    command = (ffmpeg(), "-v", "error", *source, "-vf", MINTERPOLATE.format(fps=FPS), *raw, "-")
    began = time.monotonic()
    done = subprocess.run(command, input=kept.tobytes(), capture_output=True, check=True).stdout
    seconds = time.monotonic() - began
    frames = np.frombuffer(done, np.uint8).reshape(-1, height, width, 3)
    return Rebuilt(frames, len(frames) / 2 / seconds)


def _timed(kept: Clip, between: Callable[[Picture, Picture], Picture]) -> Rebuilt:
    began = time.monotonic()
    frames = np.stack([between(first, second) for first, second in itertools.pairwise(kept)])
    return Rebuilt(frames, len(frames) / (time.monotonic() - began))


def likeness(wanted: Clip, found: Clip) -> float:
    """PSNR in dB. minterpolate gives all frames, and not always from the first: the best of its offsets counts."""
    if len(found) <= len(wanted):
        return _psnr(wanted, found)
    offsets = [found[offset::2] for offset in range(4)]
    usable = [(wanted[: len(each)], each[: len(wanted)]) for each in offsets if len(each) >= len(wanted) - 2 > 0]
    return max(_psnr(*pair) for pair in usable)


def _psnr(wanted: Clip, found: Clip) -> float:
    error = np.mean((wanted.astype(np.float32) - found) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))


def steadiness(model: str, seconds: float) -> Table:
    """How far frames stray from the mean of their neighbours, brought to them by the camera."""
    spec = load_models()[model]
    source = make_source(spec, None)
    source.load()
    rows = []
    for name, motion in MOTIONS.items():
        shot = {"prompt": "a red sun over blue hills at sunset", "duration": seconds, "motion": motion}
        output = {"width": WIDTH, "height": HEIGHT, "fps": FPS}
        layout = plan(
            Job.model_validate_json(json.dumps({"output": output, "shots": [shot]})), spec, source.describe(), {}
        )
        made: dict[str, Picture] = {}
        for recipe, picture in source.keyframes(layout.recipes, made.__getitem__, lambda: None):
            made[recipe.fingerprint] = picture
        began = time.monotonic()
        frames = [np.array(frame) for frame in film.frames(layout, made.__getitem__)]
        speed = len(frames) / (time.monotonic() - began)
        strays = list(straying(layout, frames))
        at_keyframes = [strays[at - 1] for at in _inner(layout)]
        held = _inner_jumps(layout, frames)
        cells = (np.mean(strays), np.mean(at_keyframes) if at_keyframes else 0.0, np.max(strays), held)
        rows.append((name, *(f"{cell:.2f}" for cell in cells), str(layout.evaluations), f"{speed:.0f}"))
    notes = (
        (
            f"Model {model}, shots of {seconds:g} s, {WIDTH}x{HEIGHT} at {FPS} frames/s; luma levels of 255, mean over the middle"
            " of the frame. A frame's flicker is how far it lies from the mean of its two neighbours, which the camera's own"
            " move brings to it: 0 for a steady change."
        ),
        (
            "at keyframes: of the frames that are keyframes, where a pop would show. If keyframes were held: the change at each"
            " keyframe without frames in between."
        ),
    )
    columns = (
        "motion",
        "flicker",
        "at keyframes",
        "worst frame",
        "if keyframes were held",
        "evaluations",
        "filmed, frames/s",
    )
    return Table("Flicker", columns, tuple(rows), notes)


def straying(layout: Plan, frames: Sequence[Picture]) -> Iterator[float]:
    """For each frame but the first and last."""
    motion = layout.shots[0].motion
    drift = motion.feedback if isinstance(motion, FeedbackMotion) else None
    for before, here, after in zip(frames, frames[1:], frames[2:], strict=False):
        if drift is not None:
            before = moved(before, Warp(drift.zoom, drift.pan, drift.rotate, 1 / FPS))
            after = moved(after, Warp(drift.zoom, drift.pan, drift.rotate, -1 / FPS))
        yield float(np.abs((_luma(before) + _luma(after)) / 2 - _luma(here)).mean())


def _inner_jumps(layout: Plan, frames: Sequence[Picture]) -> float:
    places = [0, *_inner(layout)]
    jumps = [np.abs(_luma(frames[b]) - _luma(frames[a])).mean() for a, b in itertools.pairwise(places)]
    return float(np.mean(jumps)) if jumps else 0.0


def _inner(layout: Plan) -> list[int]:
    """Keyframes with a frame on either side."""
    shot = layout.shots[0]
    return [placed.frame for placed in shot.keyframes if 0 < placed.frame < shot.frames - 1]


def _luma(frame: Picture) -> npt.NDArray[np.float64]:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[HEIGHT // 10 : -HEIGHT // 10, WIDTH // 10 : -WIDTH // 10]
    return grey.astype(np.float64)


if __name__ == "__main__":
    main()
