"""Several keyframes of one size in one go of the transformer. Imports torch.

A GPU that a single keyframe does not fill makes several in less time. On a CPU the last bits of a picture then depend on
its neighbours, so the default is one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FluxPipeline

from ..base import Picture, Tick
from ..recipe import Recipe
from .memory import enough_memory
from .paint import finish, make_noise, paint
from .text import Embedding


def take(waiting: deque[Recipe], texts: Mapping[str, Embedding], most: int) -> list[Recipe]:
    """Take the first recipe from the line, and those behind it that can be made together with it."""
    group = [waiting.popleft()]
    while waiting and len(group) < most and _kind(waiting[0], texts) == _kind(group[0], texts):
        group.append(waiting.popleft())
    return group


def paint_together(
    pipe: FluxPipeline, recipes: Sequence[Recipe], texts: Mapping[str, Embedding], tick: Tick, striped: bool
) -> list[Picture]:
    """Make keyframes that `take` put together; decoded one by one. Ticks and raises as `paint`."""
    if len(recipes) == 1:
        return [paint(pipe, recipes[0], texts[recipes[0].prompt], tick, striped)]
    first = recipes[0]
    work = f"{len(recipes)} keyframes of {first.width}x{first.height} at once"
    with enough_memory(work, "set the model's batch lower"), torch.inference_mode():
        pictures = []
        for recipe, latents in zip(recipes, torch.split(_denoise(pipe, recipes, texts, tick), 1), strict=True):
            tick()
            pictures.append(finish(pipe, recipe, latents, striped))
        tick()
    return pictures


def _kind(recipe: Recipe, texts: Mapping[str, Embedding]) -> tuple[object, ...]:
    return recipe.width, recipe.height, recipe.steps, recipe.guidance, texts[recipe.prompt].tokens.shape


def _denoise(pipe: FluxPipeline, recipes: Sequence[Recipe], texts: Mapping[str, Embedding], tick: Tick) -> torch.Tensor:
    """Latents (number of recipes, channels, 2h, 2w)."""

    def on_step_end(*_: Any) -> dict[str, torch.Tensor]:
        tick()
        return {}

    first = recipes[0]
    noise = torch.cat([make_noise(pipe, recipe) for recipe in recipes])
    packed = pipe(
        prompt_embeds=torch.cat([texts[recipe.prompt].tokens for recipe in recipes]),
        pooled_prompt_embeds=torch.cat([texts[recipe.prompt].pooled for recipe in recipes]),
        latents=pipe._pack_latents(noise, *noise.shape),
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        height=first.height,
        width=first.width,
        callback_on_step_end=on_step_end,
        output_type="latent",
    ).images
    latents: torch.Tensor = pipe._unpack_latents(packed, first.height, first.width, pipe.vae_scale_factor)
    return latents
