"""What a vertical video costs on an L4, by arithmetic: the tables of docs/explanation/l4.md.

    python bench/arithmetic.py [--usd-per-hour 1.42]

Nothing is measured here. The film stage's seconds are those of docs/benchmarks.md; run this again after bench/film.py.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import DOCS, Table, write_section
from flux_sizes import BYTES_FP8, decode, prompt, step
from rich.console import Console

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import load_models
from nightreel_pipelines.plan import Plan, plan
from nightreel_queue.job import Job

PAGE = DOCS.parent / "explanation" / "l4.md"
BF16_FLOPS, FP8_FLOPS = 121e12, 242e12  # a second, dense: NVIDIA's data sheet of the L4
USD_PER_HOUR = 1.42  # L4, 8 vCPU and 32 GiB on Cloud Run in us-central1, November 2026; a published list, not our bill
SHARES = (0.25, 0.40, 0.55, 0.70)  # of the peak that is reached: assumed
USUAL = 0.40
START_S = 15.0  # until a container on a new machine runs, driver included: assumed
IMPORTS_S = 8.0  # interpreter, torch, diffusers: measured on CPUs that were shared
LOAD_GB_S = (0.5, 1.0, 2.0)  # from a bucket into the card: assumed
WANTED_GPU_S, WANTED_USD = 45.0, 0.02
MEGAPIXELS = 1.0
SHOTS = 8
PROMPT = "a red sun over blue hills"


@dataclass(frozen=True, slots=True)
class Video:
    """A film of 30 s and what is measured of it."""

    name: str
    shots: int
    motion: Any
    film: str
    """Its row in docs/benchmarks.md; empty when none is like it."""
    megapixels: float = MEGAPIXELS
    steps: int = 4

    @property
    def layout(self) -> Plan:
        """As the code plans it."""
        shot = {"duration": 30 / self.shots, "motion": self.motion}
        content = {
            "output": {"width": 1080, "height": 1920, "fps": 30},
            "render": {"megapixels": self.megapixels, "steps": self.steps},
            "shots": [{"prompt": f"{PROMPT} {index}"} | shot for index in range(self.shots)],
        }
        job = Job.model_validate_json(json.dumps(content))
        return plan(job, load_models()["flux-schnell"], Description("", "", "", ""), {})


MOVES = Video("8 camera moves", SHOTS, {"zoom": [1.0, 1.12]}, "8 camera moves")
FEEDBACK = Video("feedback, 4 keyframes/s", 1, {"feedback": {"rate": 4}}, "feedback, 4 keyframes/s")
VIDEOS = (
    MOVES,
    Video("walk, 2 keyframes/s", 1, {"walk": {"to": "elsewhere", "rate": 2}}, ""),
    Video("walk, 6 keyframes/s", 1, {"walk": {"to": "elsewhere", "rate": 6}}, ""),
    Video("walk, 8 keyframes/s", 1, {"walk": {"to": "elsewhere", "rate": 8}}, "walk, 8 keyframes/s"),
    FEEDBACK,
    Video("walk, 2 keyframes/s of 0.25 megapixels", 1, {"walk": {"to": "elsewhere", "rate": 2}}, "", 0.25),
    Video("walk, 6 keyframes/s of 0.25 megapixels, 2 steps", 1, {"walk": {"to": "elsewhere", "rate": 6}}, "", 0.25, 2),
    Video("feedback, 4 keyframes/s of 0.25 megapixels", 1, {"feedback": {"rate": 4}}, "", 0.25),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--usd-per-hour", type=float, default=USD_PER_HOUR, help="price of the machine")
    parser.add_argument("--docs", type=Path, default=PAGE, help="page that gets the tables")
    asked = parser.parse_args()
    console = Console(highlight=False, width=120)
    for name, table in tables(asked.usd_per_hour, DOCS.read_text(encoding="utf-8")).items():
        table.show(console)
        write_section(asked.docs, f"arithmetic-{name}", table.markdown())


def tables(usd_per_hour: float, benchmarks: str) -> Mapping[str, Table]:
    """By the name of their section."""
    return {
        "step": _step_table(),
        "videos": _video_table(usd_per_hour),
        "stages": _stage_table(films(benchmarks)),
        "start": _start_table(usd_per_hour),
    }


# seconds


def step_s(width: int, height: int, share: float, *, fp8: bool) -> float:
    """Of the GPU for one step."""
    work = step(width, height)
    return (work.linear / (FP8_FLOPS if fp8 else BF16_FLOPS) + work.attention / BF16_FLOPS) / share


def gpu_s(layout: Plan, share: float, *, fp8: bool) -> float:
    """Of the GPU for a film's keyframes: prompts read, denoised, decoded."""
    prompts = {text for recipe in layout.recipes for text in (recipe.prompt, recipe.toward and recipe.toward.prompt)}
    read = prompt()
    total = len(prompts - {None}) * (read.linear / (FP8_FLOPS if fp8 else BF16_FLOPS) + read.attention / BF16_FLOPS)
    seconds = total / share
    for recipe in layout.recipes:
        seconds += recipe.evaluations * step_s(recipe.width, recipe.height, share, fp8=fp8)
        seconds += decode(recipe.width, recipe.height) / BF16_FLOPS / share
    return seconds


def cold_s(gb_a_second: float) -> float:
    """From the start of a machine to its first step."""
    return START_S + IMPORTS_S + BYTES_FP8 / 1e9 / gb_a_second


def films(benchmarks: str) -> dict[str, tuple[float, float]]:
    """Seconds of filming 30 s on eight CPUs, at best and at worst, from the page that bench/film.py writes."""
    title = "### Scaled to 8 vCPUs"
    rows = re.findall(r"^\| ([^|]+) \|.*\| (\d+) to (\d+) \|", benchmarks.partition(title)[2], flags=re.MULTILINE)
    return {name: (float(best), float(worst)) for name, best, worst in rows}


# tables


def _step_table() -> Table:
    rows = []
    for megapixels, label in ((MEGAPIXELS, "1.0"), (None, "the model's own"), (0.25, "0.25")):
        width, height = _size(megapixels)
        work = step(width, height)
        seconds = [f"{step_s(width, height, share, fp8=fp8):.2f}" for fp8 in (False, True) for share in (1.0, USUAL)]
        cells = (f"{width}x{height}", f"{work.all / 1e12:.1f}", f"{work.attention / work.all:.0%}", *seconds)
        rows.append((label, *cells, f"{decode(width, height) / 1e12:.1f}"))
    columns = (
        "`render.megapixels`",
        "keyframe",
        "TFLOP a step",
        "of it attention",
        "bf16, s at 100 %",
        f"at {USUAL:.0%}",
        "fp8, s at 100 %",
        f"at {USUAL:.0%}",
        "TFLOP to decode",
    )
    return Table("A keyframe of a vertical video", columns, tuple(rows))


def _size(megapixels: float | None) -> tuple[int, int]:
    layout = Video("", 1, "still", "", megapixels or load_models()["flux-schnell"].megapixels).layout
    return layout.recipes[0].width, layout.recipes[0].height


def _video_table(usd_per_hour: float) -> Table:
    rows = []
    for video in VIDEOS:
        layout = video.layout
        seconds = [gpu_s(layout, share, fp8=True) for share in SHARES]
        bf16 = gpu_s(layout, USUAL, fp8=False)
        usd = gpu_s(layout, USUAL, fp8=True) * usd_per_hour / 3600
        fits = [f"{share:.0%}" for share, each in zip(SHARES, seconds, strict=True) if _fits(each, usd_per_hour)]
        cells = (str(len(layout.recipes)), str(layout.evaluations), *(f"{each:.0f}" for each in seconds), f"{bf16:.0f}")
        rows.append((video.name, *cells, f"${usd:.3f}", f"from {fits[0]}" if fits else "no"))
    columns = (
        "30 s of 1080x1920 in fp8: GPU seconds at ... of peak",
        "keyframes",
        "steps in all",
        *(f"{share:.0%}" for share in SHARES),
        f"bf16 at {USUAL:.0%}",
        f"fp8 at {USUAL:.0%}, USD",
        f"within {WANTED_GPU_S:g} s and ${WANTED_USD:g}",
    )
    return Table("One video, the model being loaded", columns, tuple(rows))


def _fits(seconds: float, usd_per_hour: float) -> bool:
    return seconds <= WANTED_GPU_S and seconds * usd_per_hour / 3600 <= WANTED_USD


def _stage_table(filmed: Mapping[str, tuple[float, float]]) -> Table:
    rows = []
    for video in VIDEOS:
        if video.film not in filmed:
            continue
        best, worst = filmed[video.film]
        low, high = (gpu_s(video.layout, share, fp8=True) for share in (SHARES[-1], SHARES[0]))
        keeps = "yes" if worst <= low else "no" if best > high else "not in every case"
        rows.append((video.name, f"{low:.0f} to {high:.0f}", f"{best:.0f} to {worst:.0f}", keeps))
    columns = ("video", "keyframes on the GPU, s", "film on 8 vCPUs, s", "does the film stage keep up?")
    return Table("The two stages side by side", columns, tuple(rows))


def _start_table(usd_per_hour: float) -> Table:
    video_s = gpu_s(MOVES.layout, USUAL, fp8=True)
    rows = []
    for number in (1, 3, 10, 30, 100):
        cells = []
        for rate in LOAD_GB_S:
            all_s = cold_s(rate) + number * video_s
            usd = all_s / number * usd_per_hour / 3600
            cells.append(f"{cold_s(rate) / all_s:.0%}, ${usd:.3f}")
        rows.append((str(number), *cells))
    columns = ("videos in the batch", *(f"{rate:g} GB/s: start {cold_s(rate):.0f} s" for rate in LOAD_GB_S))
    return Table("The start's share, and what a video costs with it", columns, tuple(rows))


if __name__ == "__main__":
    main()
