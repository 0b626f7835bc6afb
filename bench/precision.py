"""8-bit weights against full precision on the two models that need no GPU: latents step by step, and pictures.

    python bench/precision.py

The pocket model draws; the tiny one is untrained noise. Both are prepared as FLUX.1 would be and computed in float32, so
what is seen is the rounding of weights alone; `fp8 inputs` rounds the layers' inputs as well, as a GPU's 8-bit matmul does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, as in the renderer

import torch
from common import Table, arguments, median, publish
from diffusers import FluxPipeline
from subjects import latents_of

from nightreel_pipelines.flux.loading import load_pipeline
from nightreel_pipelines.flux.paint import finish
from nightreel_pipelines.flux.placing import Placement
from nightreel_pipelines.flux.prepare import FolderTarget, Preparation
from nightreel_pipelines.models import load_models
from nightreel_pipelines.recipe import Recipe

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import tiny_flux

STEPS = 4
PROMPTS = (
    "a red sun over blue hills at sunset",
    "a green boat on a calm sea at night",
    "a white house and a tree on green hills by day",
    "a yellow tent on dunes under a moon",
)


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    prepared: bool
    placement: Placement


WAYS = (
    Way("bf16", False, Placement("bf16", "cpu", "bf16")),
    Way("fp8 weights, fp32", True, Placement("fp8/fp32", "cpu")),
    Way("fp8 weights, bf16", True, Placement("fp8/bf16", "cpu", "bf16")),
    Way("fp8 weights and inputs, bf16", True, Placement("fp8", "cpu", "bf16", matmul=True)),
)


def main() -> None:
    asked = arguments("8-bit weights against full precision, on a CPU.").parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_flux.build(folder / "tiny")
        models = {"pocket": load_models()["pocket"].folder(None), "tiny (untrained)": folder / "tiny"}
        tables = [
            compare(model, source, folder / f"fp8-{source.name}", asked.quick) for model, source in models.items()
        ]
    publish("precision", tables, asked)


def compare(model: str, source: Path, prepared: Path, quick: bool) -> Table:
    """Each way against float32, over all recipes: the median, and the worst."""
    Preparation(source, model, FolderTarget(prepared)).run(lambda step: None)
    recipes = list(_recipes(quick, model))
    exact = _made(load_pipeline(source, Placement("fp32", "cpu")), recipes)
    rows = []
    for way in WAYS:
        made = _made(load_pipeline(prepared if way.prepared else source, way.placement), recipes)
        errors = [
            [_relative(one, other) for one, other in zip(*pair, strict=True)]
            for pair in zip(made[0], exact[0], strict=True)
        ]
        psnr = [_psnr(one, other) for one, other in zip(made[1], exact[1], strict=True)]
        steps = tuple(f"{median([each[step] for each in errors]):.3f}" for step in range(STEPS))
        rows.append(
            (way.name, *steps, f"{max(each[-1] for each in errors):.3f}", f"{median(psnr):.1f} ({min(psnr):.1f})")
        )
    return Table(
        title=f"Against fp32: {model}",
        columns=("way", *(f"step {number}" for number in range(1, STEPS + 1)), "worst of step 4", "PSNR, dB (worst)"),
        rows=tuple(rows),
        notes=(
            f"{len(recipes)} recipes. Steps: median relative error (L2) of the latents behind each. PSNR: of the pictures.",
            "What is lost of FLUX.1's pictures does not follow: its layers are far larger, and nobody has looked.",
        ),
    )


def _recipes(quick: bool, model: str) -> Iterator[Recipe]:
    for seed in range(1 if quick else 4):
        for prompt in PROMPTS[:1] if quick else PROMPTS:
            yield Recipe("", "", "", prompt, seed=seed, steps=STEPS, guidance=0, width=160, height=96)


def _made(pipe: FluxPipeline, recipes: list[Recipe]) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
    """Latents behind each step, and pictures as float (H, W, 3), for each recipe."""
    latents = [latents_of(pipe, recipe, sequence=64) for recipe in recipes]
    pictures = []
    with torch.inference_mode():
        for recipe, steps in zip(recipes, latents, strict=True):
            unpacked = pipe._unpack_latents(steps[-1], recipe.height, recipe.width, pipe.vae_scale_factor)
            picture = finish(pipe, recipe, unpacked.to(pipe.vae.dtype), striped=False)
            pictures.append(torch.from_numpy(picture).float())
    return latents, pictures


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, capped at 99."""
    error = (one - other).square().mean().item()
    return 99.0 if error == 0 else min(99.0, 10 * log10(255.0**2 / error))


if __name__ == "__main__":
    main()
