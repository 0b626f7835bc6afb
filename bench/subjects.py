"""What bench/gpu.py measures: plain diffusers, and Nightreel's engine in several placements."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import FluxPipeline

from nightreel_pipelines.base import no_pictures
from nightreel_pipelines.errors import OutOfMemory
from nightreel_pipelines.flux.card import find_card
from nightreel_pipelines.flux.engine import Engine
from nightreel_pipelines.flux.loading import load_pipeline
from nightreel_pipelines.flux.noise import make_noise
from nightreel_pipelines.flux.placing import Placement, place
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Recipe

PROMPT = "a red sun over blue hills at sunset, a boat on the sea"
ON_GPU = torch.cuda.is_available()


class Painter(Protocol):
    """Makes pictures."""

    @property
    def placement(self) -> str: ...

    def paint(self, recipes: list[Recipe]) -> None: ...


@dataclass(slots=True)
class Plain:
    """diffusers as its page shows it."""

    pipe: FluxPipeline
    placement: str = "all bf16"

    def paint(self, recipes: list[Recipe]) -> None:
        first = recipes[0]
        self.pipe(
            [recipe.prompt for recipe in recipes],
            generator=[torch.Generator().manual_seed(recipe.seed) for recipe in recipes],
            num_inference_steps=first.steps,
            guidance_scale=0.0,
            height=first.height,
            width=first.width,
            max_sequence_length=256,
        )


@dataclass(slots=True)
class Ours:
    """Nightreel's engine."""

    engine: Engine

    @property
    def placement(self) -> str:
        return self.engine.placement

    def paint(self, recipes: list[Recipe]) -> None:
        list(self.engine.keyframes(recipes, no_pictures, lambda: None))


def load(subject: str, folder: Path, cap_gib: float) -> Painter:
    """Raises torch.OutOfMemoryError, SourceUnavailable when it does not fit."""
    card = find_card(cap_gib)
    if subject == "diffusers":
        pipe = FluxPipeline.from_pretrained(folder / "bf16", dtype=torch.bfloat16, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        return Plain(pipe.to("cuda" if ON_GPU else "cpu"))
    fields: dict[str, Any] = {"name": "bench", "source": "flux", "megapixels": 1, "prompt_tokens": 256}
    compiled = "on" if subject.endswith("-compiled") else "off"
    spec = ModelSpec.model_validate(fields | {"batch": 8, "compile": compiled})
    is_fp8 = subject.startswith("fp8")
    where = folder / ("fp8" if is_fp8 else "bf16")
    return Ours(Engine(where, spec, place("fp8" if is_fp8 else "bf16-exact", where, card, prepared=is_fp8)))


def time_it(painter: Painter, size: tuple[int, int], number: int, steps: int) -> dict[str, Any]:
    """Seconds of the second of two runs, and the peak of both in GiB; or why there are none."""
    recipe = Recipe("", "", "", PROMPT, seed=0, steps=steps, guidance=0, width=size[0], height=size[1])
    recipes = [replace(recipe, seed=seed) for seed in range(number)]
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(2):
            began = time.monotonic()
            painter.paint(recipes)
            if ON_GPU:
                torch.cuda.synchronize()
            seconds = time.monotonic() - began
    except (torch.OutOfMemoryError, OutOfMemory):
        if ON_GPU:
            torch.cuda.empty_cache()
        return {"failed": "out of memory"}
    return {"seconds": seconds, "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if ON_GPU else 0.0}


def errors(folder: Path, size: tuple[int, int], steps: int) -> list[float]:
    """Relative error of the latents behind each step: 8-bit weights against bf16, from the same noise and prompt."""
    card = find_card(0)
    exact = Placement("bf16", "cuda", "bf16") if card else Placement("fp32", "cpu")
    recipe = Recipe("", "", "", PROMPT, seed=0, steps=steps, guidance=0, width=size[0], height=size[1])
    wanted = latents_of(load_pipeline(folder / "bf16", exact), recipe)
    if ON_GPU:
        torch.cuda.empty_cache()
    made = latents_of(load_pipeline(folder / "fp8", place("fp8", folder / "fp8", card, prepared=True)), recipe)
    return [((one - other).norm() / other.norm()).item() for one, other in zip(made, wanted, strict=True)]


def latents_of(pipe: FluxPipeline, recipe: Recipe, sequence: int = 256) -> list[torch.Tensor]:
    """float32 on the CPU, behind each step."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: int, ___: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kept.append(values["latents"].float().cpu())
        return {}

    noise = make_noise(pipe, recipe)
    with torch.inference_mode():
        pipe(
            recipe.prompt,
            latents=pipe._pack_latents(noise, *noise.shape),
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            height=recipe.height,
            width=recipe.width,
            max_sequence_length=sequence,
            callback_on_step_end=keep,
            output_type="latent",
        )
    return kept


def gpu() -> str:
    return torch.cuda.get_device_name(0) if ON_GPU else ""


def weight_bytes(subject: str, folder: Path) -> int:
    where = folder / ("fp8" if subject.startswith("fp8") else "bf16")
    return sum(path.stat().st_size for path in where.glob("*/*.safetensors"))
