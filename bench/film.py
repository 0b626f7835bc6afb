"""Where the CPU's seconds of a vertical video go, stage by stage, whole, and against one ffmpeg command; and what eight vCPUs do.

python bench/film.py [--quick] [--rounds N]
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import film_stages
from common import Table, arguments, count, median, publish
from film_stages import BOTH, ONE, Cost, Scene, measured

from nightreel_pipelines.encode import TO_BT709, ffmpeg
from nightreel_worker.settings import Settings

FILM_S = 30
FPS = 30
CPUS = 8  # of the smallest cloud machine that an L4 comes with and that this is about
PRESETS = ("ultrafast", "veryfast", "faster", "fast", "medium")
CRF = 18
ZOOM = 1.12  # at the end of a shot, as by default
CROSSFADE_S = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the film that is measured; the whole film is `times` as long."""

    name: str
    shots: int
    motion: Any
    times: int
    keyframes: int
    """Of the whole film."""

    @property
    def seconds(self) -> float:
        return FILM_S / self.times


Stages = Mapping[str, tuple[float, Sequence[Cost]]]
"""How often a film has each stage, and what one of it costs."""

Rounds = tuple[Sequence[Cost], Sequence[Cost]]
"""On one CPU and on both, seconds of a frame."""

PARTS = (
    Part("8 camera moves", 2, {"zoom": [1.0, ZOOM]}, 4, 8),
    Part("walk, 8 keyframes/s", 1, {"walk": {"to": "elsewhere", "rate": 8}}, 8, 241),
    Part("feedback, 4 keyframes/s", 1, {"feedback": {"zoom": 1.1, "rate": 4}}, 8, 121),
)


def main() -> None:
    asked = arguments(__doc__ or "").parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    cv2.setNumThreads(CPUS)  # as OpenCV has it on such a machine: what then is left to our thread bounds the film there
    with tempfile.TemporaryDirectory() as name:
        scene = Scene.small(Path(name)) if asked.quick else Scene.vertical(Path(name))
        publish("film", _tables(scene, rounds), asked)


def _tables(scene: Scene, rounds: int) -> list[Table]:
    names = (*(part.name for part in PARTS), "zoompan")
    runs: dict[str, tuple[list[Cost], list[Cost]]] = {name: ([], []) for name in names}
    for _ in range(rounds):  # one after the other, so that each ratio is of the same minutes
        for part in PARTS:
            for costs, cpus in zip(runs[part.name], (ONE, BOTH), strict=True):
                costs.append(_film(scene, part, cpus))
        for costs, cpus in zip(runs["zoompan"], (ONE, BOTH), strict=True):
            costs.append(_zoompan(scene, PARTS[0], cpus))
    base = runs.pop("zoompan")
    stages = film_stages.costs(scene, rounds)
    return [
        _whole_table(runs, base, scene),
        _stage_table(stages, rounds),
        _preset_table(scene),
        _eight_table(runs, stages),
    ]


# what is measured


def _film(scene: Scene, part: Part, cpus: int) -> Cost:
    """The film stage as the renderer runs it: stored keyframes in, MP4 out."""
    seconds = scene.seconds(part.seconds)
    layout = scene.layout(part.shots, part.motion, seconds)
    pictures = scene.pictures(layout)
    return measured(lambda: scene.encode(layout, pictures, _preset()), cpus).for_each(layout.frames)


def _zoompan(scene: Scene, part: Part, cpus: int) -> Cost:
    """What one writes without Nightreel: one ffmpeg that zooms over the same keyframes, crossfades and encodes."""
    seconds = scene.seconds(part.seconds)
    layout = scene.layout(part.shots, part.motion, seconds)
    files = scene.files(layout)
    shown = round((seconds + (part.shots - 1) * CROSSFADE_S) / part.shots * FPS)  # frames of a shot
    rise = (ZOOM - 1) / (shown - 1)
    centre = "x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
    size = f"s={scene.width}x{scene.height}:fps={FPS}"
    graph = [f"[{at}]zoompan=z='1+{rise}*on':d={shown}:{centre}:{size}[z{at}]" for at in range(len(files))]
    last = "z0"
    for at in range(1, len(files)):
        offset = at * (shown / FPS - CROSSFADE_S)
        graph.append(f"[{last}][z{at}]xfade=duration={CROSSFADE_S}:offset={offset}[x{at}]")
        last = f"x{at}"
    graph.append(f"[{last}]{TO_BT709}[out]")
    inputs = [word for file in files for word in ("-i", str(file))]
    x264 = ("-c:v", "libx264", "-preset", _preset(), "-crf", str(CRF), "-movflags", "+faststart")
    words = ("-filter_complex", ";".join(graph), "-map", "[out]", "-frames:v", str(layout.frames))
    command = (ffmpeg(), "-v", "error", "-y", *inputs, *words, *x264, str(scene.folder / "zoompan.mp4"))
    return measured(lambda: subprocess.run(command, check=True, stdin=subprocess.DEVNULL), cpus).for_each(layout.frames)


def _preset() -> str:
    return Settings(_env_file=None).x264_preset


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a preset made of the same frames."""

    cost: Cost
    size_bytes: int
    ssim: float
    psnr: float
    """dB."""


def _encoded(scene: Scene, preset: str, clip: Path, frames: int) -> Encoded:
    """Encode what the encoder of a film sees, once its colours are converted."""
    video = scene.folder / f"{preset}.mp4"
    raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{scene.width}x{scene.height}", "-r", str(FPS))
    x264 = ("-c:v", "libx264", "-preset", preset, "-crf", str(CRF))
    command = (ffmpeg(), "-v", "error", "-y", *raw, "-i", str(clip), *x264, str(video))
    cost = measured(lambda: subprocess.run(command, check=True, stdin=subprocess.DEVNULL), BOTH).for_each(frames)
    graph = "[0:v]split[a][b];[1:v]split[c][d];[a][c]ssim;[b][d]psnr"
    compare = (ffmpeg(), "-hide_banner", "-i", str(video), *raw, "-i", str(clip), "-lavfi", graph, "-f", "null", "-")
    said = subprocess.run(compare, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stderr
    found = re.search(r"SSIM.* All:([0-9.]+)", said), re.search(r"PSNR.* average:([0-9.]+|inf)", said)
    ssim, psnr = (float(each[1]) if each else float("nan") for each in found)
    return Encoded(cost, video.stat().st_size, ssim, psnr)


# tables


def _whole_table(whole: Mapping[str, Rounds], base: Rounds, scene: Scene) -> Table:
    rows = [
        (name, *_cells(costs, base), f"{_of_film([each.thread_s for each in costs[1]]):.1f}")
        for name, costs in whole.items()
    ]
    rows.append(("one ffmpeg command with zoompan", *_cells(base, base), "-"))
    return Table(
        f"Filming {FILM_S} s of {scene.width}x{scene.height} at {FPS} frames/s",
        (
            "film",
            "CPU s",
            "wall s",
            "CPUs had",
            "frames/s",
            "frames/s on 1 CPU",
            "CPU against zoompan",
            "wall against zoompan",
            "our thread, CPU s",
        ),
        tuple(rows),
        (
            (
                f"Preset {_preset()}, crf {CRF}; keyframes of {scene.keyframe[0]}x{scene.keyframe[1]} from ffmpeg's mandelbrot,"
                f" read from PNG. Medians of {count(base[0])}, measured on 1/{PARTS[0].times} of the film with camera moves and"
                f" 1/{PARTS[1].times} of the others, and multiplied. CPU s: ours and ffmpeg's together, on 2 CPUs."
            ),
            (
                "CPUs had: CPU seconds by wall seconds. Less than 2 is what other programs took, or what could not be done at"
                " once; CPU seconds do not suffer from either. On 1 CPU: all of it tied to one."
            ),
            (
                "zoompan: one command over the same keyframes with the same length, zoom, crossfades, encoder and colours. Its"
                " pictures are not the same: it moves in whole pixels, and shakes. Walk and feedback do what it cannot."
            ),
        ),
    )


def _cells(costs: Rounds, base: Rounds) -> tuple[str, ...]:
    one, both = costs
    cpu, wall = [each.cpu_s for each in both], [each.wall_s for each in both]
    had = median([each.cpu_s / each.wall_s for each in both])
    rates = (f"{1 / median([each.wall_s for each in some]):.1f}" for some in (both, one))
    ratios = (
        f"{median([a / b for a, b in zip(ours, theirs, strict=True)]):.2f}"
        for ours, theirs in ((cpu, [each.cpu_s for each in base[1]]), (wall, [each.wall_s for each in base[1]]))
    )
    return f"{_of_film(cpu):.1f}", f"{_of_film(wall):.1f}", f"{had:.2f}", *rates, *ratios


def _of_film(a_frame_s: Sequence[float]) -> float:
    return median(a_frame_s) * FILM_S * FPS


def _stage_table(stages: Stages, rounds: int) -> Table:
    rows = []
    for name, (times, costs) in stages.items():
        cpu, thread, wall = (_ms(values) for values in zip(*map(_seconds, costs), strict=True))
        rows.append((name, f"{wall:.1f}", f"{cpu:.1f}", f"{thread:.1f}", f"{times:g}", f"{times * cpu / 1000:.1f}"))
    return Table(
        "Each stage by itself",
        ("stage", "wall ms", "CPU ms", "of it our thread", f"times in {FILM_S} s", "CPU s"),
        tuple(rows),
        (
            (
                f"Medians of {count(range(rounds))}; a stage is done several times a round. Our thread: CPU time of the one"
                f" thread that calls; OpenCV is told to use {CPUS} threads, and takes some of the work from it. How often: 8"
                " shots with crossfades; a walk with 8 keyframes a second; feedback with 4. Lines of walk and feedback"
                " stand for the camera's in such a film."
            ),
            "ffmpeg's colour conversion is measured with the pipe, and encoding with both; checking makes the poster, too.",
        ),
    )


def _seconds(cost: Cost) -> tuple[float, float, float]:
    return cost.cpu_s, cost.thread_s, cost.wall_s


def _ms(values: Sequence[float]) -> float:
    return 1000 * median(values)


def _preset_table(scene: Scene) -> Table:
    seconds = scene.seconds(FILM_S / 8)
    layout = scene.layout(1, {"zoom": [1.0, ZOOM]}, seconds)
    clip = scene.clip(layout)
    found = {preset: _encoded(scene, preset, clip, layout.frames) for preset in PRESETS}
    ours = found[_preset()]
    rows = [
        (
            f"{preset} (ours)" if preset == _preset() else preset,
            f"{1 / made.cost.wall_s:.1f}",
            f"{1000 * made.cost.cpu_s:.1f}",
            f"{made.cost.cpu_s / ours.cost.cpu_s:.2f}",
            f"{8 * made.size_bytes / seconds / 1e6:.2f}",
            f"{made.ssim:.4f}",
            f"{made.psnr:.1f}",
        )
        for preset, made in found.items()
    ]
    return Table(
        "x264's presets on the same frames",
        ("preset", "frames/s, 2 CPUs", "CPU ms a frame", "CPU against ours", "Mbit/s", "SSIM", "PSNR, dB"),
        tuple(rows),
        (f"{layout.frames} frames of one camera move, crf {CRF}, colours converted before; once each.",),
    )


def _eight_table(runs: Mapping[str, Rounds], stages: Stages) -> Table:
    rows = []
    for part in PARTS:
        costs = runs[part.name][1]
        cpu, thread = (_of_film(values) for values in ([c.cpu_s for c in costs], [c.thread_s for c in costs]))
        beside = _beside(part, stages)
        shared = (cpu + beside) / CPUS
        bound = "our thread" if thread > shared else "all CPUs"
        cells = (f"{cpu:.1f}", f"{beside:.1f}", f"{shared:.1f}", f"{thread:.1f}")
        rows.append((part.name, *cells, f"{max(thread, shared):.0f} to {2 * max(thread, shared):.0f}", bound))
    return Table(
        f"Scaled to {CPUS} vCPUs: arithmetic, not measured",
        (
            "film",
            "CPU s",
            "CPU s of other stages",
            f"both by {CPUS}",
            "our thread, s",
            f"film of {FILM_S} s, wall s",
            "bound by",
        ),
        tuple(rows),
        (
            (
                f"Wall, at best: all CPU seconds shared evenly by {CPUS} CPUs like these, but no less than what our one thread"
                " does, which makes one frame after the other. At worst: twice that, as if a cloud's vCPU, half of a core,"
                " did half as much; assumed. Other stages: of the job before and the job behind, at the same time: pictures"
                " to draw over, keyframes to PNG, checking."
            ),
        ),
    )


def _beside(part: Part, stages: Stages) -> float:
    """CPU seconds of what the machine does for a film besides filming it."""
    a_time = {name: median([cost.cpu_s for cost in costs]) for name, (_, costs) in stages.items()}
    seconds = part.keyframes * a_time[film_stages.STORED] + FILM_S * FPS * a_time[film_stages.CHECKED]
    return seconds + ((part.keyframes - 1) * a_time[film_stages.DRAWN_OVER] if "feedback" in part.motion else 0.0)


if __name__ == "__main__":
    main()
