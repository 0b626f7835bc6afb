"""How smoothly the camera moves, against ffmpeg's zoompan making the same moves, and how fast both are.

python bench/camera.py [--quick] [--rounds N]
"""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from common import Table, arguments, count, median, publish

from nightreel_pipelines.base import Picture
from nightreel_pipelines.camera import Camera, Pyramid
from nightreel_pipelines.encode import Encoder, ffmpeg
from nightreel_queue.motions import DEFAULT_MOTION, Ease, Move

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT, FPS = 640, 360, 30
KEYFRAME = (1280, 720)
BACKGROUND, FAINT = 20, 10  # grey levels; a dot's rim that is fainter is mostly rounding
DOT_PX = 8.0  # standard deviation of a dot, in the keyframe
AROUND_PX = 30  # of a dot's place, that is searched for it
EASES: tuple[Ease, ...] = ("linear", "in", "out", "in_out")
EASED = {"linear": "{p}", "in": "{p}*{p}", "out": "1-(1-{p})*(1-{p})", "in_out": "{p}*{p}*(3-2*{p})"}  # for zoompan
MOVES = {
    "zoom in": Move(zoom=(1.0, 1.3)),
    "zoom in, default": DEFAULT_MOTION,
    "zoom out, with focus": Move(zoom=(1.5, 1.0), focus=(0.3, 0.6)),
    "pan": Move(pan=(0.2, 0.05)),
    "rotate": Move(rotate=8),
    "zoom, pan and rotate": Move(zoom=(1.0, 1.25), pan=(0.1, -0.05), rotate=5, focus=(0.6, 0.4)),
}
ENLARGED = 4  # the usual remedy for zoompan's steps: a picture this much larger


@dataclass(frozen=True, slots=True)
class Clip:
    """One move as made by somebody."""

    frames: Sequence[Picture]
    fps: float
    """How many were made a second, encoding left out."""


def main() -> None:
    asked = arguments("The camera's smoothness and speed.").parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    moves = {"pan": MOVES["pan"]} if asked.quick else MOVES
    eases = ("linear",) if asked.quick else EASES
    publish("camera", smoothness(moves, eases, 20 if asked.quick else 120, rounds), asked)


def smoothness(moves: dict[str, Move], eases: Sequence[Ease], frames: int, rounds: int) -> list[Table]:
    keyframe = dots()
    steadiness, speeds = [], []
    for (name, move), ease in itertools.product(moves.items(), eases):
        move = move.model_copy(update={"ease": ease})
        camera = Camera(move, WIDTH, HEIGHT, frames)
        paths = list(visible(camera))
        ours = [by_camera(keyframe, camera) for _ in range(rounds)]
        rivals = (
            []
            if move.rotate
            else [[by_zoompan(keyframe, move, camera, n) for _ in range(rounds)] for n in (1, ENLARGED)]
        )
        shaking, decoded = (
            [shake(made(clips[0].frames), paths) for clips in (ours, *rivals)] for made in (as_made, through_mp4)
        )
        raw = f"{acceleration(ours[0].frames, paths):.3f}" if ease == "linear" else "-"
        pairs = [f"{made:.3f} / {seen:.3f}" for made, seen in zip(shaking, decoded, strict=True)]
        ratio = f"{shaking[1] / shaking[0]:.0f} / {decoded[1] / decoded[0]:.0f}" if rivals else "-"
        steadiness.append((f"{name}, {ease}", pairs[0], raw, *(pairs[1:] or ["-", "-"]), ratio))
        if ease == eases[-1]:
            fps = [median([clip.fps for clip in clips]) for clips in (ours, *rivals)]
            speeds.append((name, *(f"{each:.0f}" for each in fps), *(["-", "-"] if not rivals else [])))
    return [_steadiness(steadiness, frames), _speed(speeds, rounds)]


def _steadiness(rows: list[tuple[str, ...]], frames: int) -> Table:
    notes = (
        (
            f"px/frame², mean over {frames} frames of {WIDTH}x{HEIGHT} at {FPS} frames/s and over all soft dots of a"
            f" {KEYFRAME[0]}x{KEYFRAME[1]} picture that stay in sight. A dot's place is its centroid. Shaking is the length of the"
            " second difference of its place minus where the move's formula has it: 0 for a perfect camera, whatever the"
            " ease. The first figure is that of the frames as they are made (wanted: at most 0.03), the second that of the same"
            " frames out of an MP4: x264 at crf 18 shifts soft things on a plain ground by fractions of a pixel."
        ),
        "with the move: the second difference of the place itself, which for a linear zoom or turn is more than 0 by right.",
        (
            f"zoompan makes the same move by the same formula from the same picture, and from one {ENLARGED} times as large, the"
            " usual remedy; it does not turn."
        ),
    )
    columns = (
        "move, ease",
        "made / in the MP4",
        "with the move",
        "zoompan",
        f"zoompan, {ENLARGED}x",
        "zoompan / ours",
    )
    return Table("Shaking", columns, tuple(rows), notes)


def _speed(rows: list[tuple[str, ...]], rounds: int) -> Table:
    notes = (
        f"Frames a second, in_out, without encoding; {count(range(rounds))}. Each begins with the whole picture, and enlarges it.",
    )
    return Table("Speed", ("move", "nightreel", "zoompan", f"zoompan, {ENLARGED}x"), tuple(rows), notes)


def dots() -> Picture:
    """A picture with a soft white dot at each of `places`."""
    grey = np.full(KEYFRAME[::-1], float(BACKGROUND))
    x, y = np.arange(KEYFRAME[0]) + 0.5, np.arange(KEYFRAME[1])[:, None] + 0.5
    for across, down in places():
        away = (x - across * KEYFRAME[0]) ** 2 + (y - down * KEYFRAME[1]) ** 2
        grey += 200 * np.exp(-away / (2 * DOT_PX**2))
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def places() -> Iterator[tuple[float, float]]:
    """In keyframe sizes: a grid that is no multiple of whole pixels."""
    yield from itertools.product(np.linspace(0.1013, 0.8987, 7).tolist(), np.linspace(0.1519, 0.8481, 5).tolist())


def visible(camera: Camera) -> Iterator[Floats]:
    """(frames, 2): where each dot is seen by the formula, in pixels, if it is well in sight all the time."""
    for place in places():
        path = np.array([np.linalg.solve(view[:, :2], place - view[:, 2]) for view in camera.views])
        if path.min() > AROUND_PX and (path < camera.size - AROUND_PX).all():
            yield path


def by_camera(keyframe: Picture, camera: Camera) -> Clip:
    began = time.monotonic()
    pyramid = Pyramid(keyframe, camera)
    frames = [pyramid.frame(index) for index in range(camera.frames)]
    return Clip(frames, len(frames) / (time.monotonic() - began))


def by_zoompan(keyframe: Picture, move: Move, camera: Camera, enlarged: int) -> Clip:
    """The same move, for which zoompan needs the formulas of `camera.py` in its own language."""
    size = f"{KEYFRAME[0]}x{KEYFRAME[1]}"
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "-")
    large = (
        f"scale={KEYFRAME[0] * enlarged}:{KEYFRAME[1] * enlarged}:flags=bicubic,format=gbrp," if enlarged > 1 else ""
    )
    raw = ("-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    command = (ffmpeg(), "-v", "error", *source, "-vf", large + _zoompan(move, camera), *raw)
    began = time.monotonic()
    done = subprocess.run(command, input=keyframe.tobytes(), capture_output=True, check=True).stdout
    seconds = time.monotonic() - began
    frames = np.frombuffer(done, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    return Clip(list(frames), len(frames) / seconds)


def _zoompan(move: Move, camera: Camera) -> str:
    eased = EASED[move.ease].format(p=f"(on/{camera.frames - 1})")
    zoom, pan = move.zoom or (1.0, 1.0), move.pan or (0.0, 0.0)
    total = f"{zoom[0] * camera.overscan!r}*pow({zoom[1] / zoom[0]!r},{eased})"
    corners = [f"({focus}+({-focus}+{way}*({eased}-0.5))/zoom)" for focus, way in zip(move.focus, pan, strict=True)]
    where = f"x='iw*{corners[0]}':y='ih*{corners[1]}'"
    return f"zoompan=z='{total}':{where}:d={camera.frames}:s={WIDTH}x{HEIGHT}:fps={FPS}"


def as_made(frames: Sequence[Picture]) -> Sequence[Picture]:
    return frames


def through_mp4(frames: Sequence[Picture]) -> Sequence[Picture]:
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "move.mp4"
        with Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=18) as encoder:
            for frame in frames:
                encoder.write(frame)
        reader = cv2.VideoCapture(str(video))
        decoded = [np.asarray(reader.read()[1], dtype=np.uint8) for _ in frames]
        reader.release()
    return decoded


def shake(frames: Sequence[Picture], paths: Sequence[Floats]) -> float:
    """Mean length of the second difference of place minus path, px/frame²."""
    return float(np.mean([_bend(tracked(frames, path) - path) for path in paths]))


def acceleration(frames: Sequence[Picture], paths: Sequence[Floats]) -> float:
    return float(np.mean([_bend(tracked(frames, path)) for path in paths]))


def _bend(places: Floats) -> float:
    return float(np.linalg.norm(np.diff(places, 2, axis=0), axis=1).mean())


def tracked(frames: Sequence[Picture], path: Floats) -> Floats:
    """(frames, 2): the centroid of the dot that is seen near each place of the path, in pixels."""
    return np.array([_centroid(frame, near) for frame, near in zip(frames, path, strict=True)])


def _centroid(frame: Picture, near: Floats) -> Floats:
    left, top = (int(side) - AROUND_PX for side in near)
    part = frame[top : top + 2 * AROUND_PX, left : left + 2 * AROUND_PX, 1].astype(float)
    bright = np.maximum(part - BACKGROUND - FAINT, 0)
    x, y = np.arange(bright.shape[1]) + 0.5 + left, np.arange(bright.shape[0]) + 0.5 + top
    return np.array([(bright.sum(0) * x).sum(), (bright.sum(1) * y).sum()]) / float(bright.sum())


if __name__ == "__main__":
    main()
