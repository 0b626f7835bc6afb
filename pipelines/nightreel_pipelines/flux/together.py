"""Several keyframes of one size in one go of the transformer. Imports torch.

A GPU that a single keyframe does not fill makes several in less time. On a CPU the last bits of a picture then depend on
its neighbours, so the default is one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxPipeline

from ..base import Picture, Pictures, Tick
from ..beginning import beginning
from ..recipe import Recipe
from .memory import enough_memory
from .mixing import mixed, prompts_of
from .noise import make_noise
from .paint import finish, paint
from .text import Texts


def take(waiting: deque[Recipe], texts: Texts, most: int) -> list[Recipe]:
    """Take the first recipe from the line, and those behind it that can be made together with it.

    Only keyframes from noise alone that walk nowhere are: a feedback keyframe needs the picture before it.
    """
    group = [waiting.popleft()]
    if not _is_plain(group[0]):
        return group
    kind = _kind(group[0], texts)
    while waiting and len(group) < most and _is_plain(waiting[0]) and _kind(waiting[0], texts) == kind:
        group.append(waiting.popleft())
    return group


def paint_together(
    pipe: FluxPipeline, recipes: Sequence[Recipe], texts: Texts, pictures: Pictures, tick: Tick, striped: bool
) -> list[Picture]:
    """Make keyframes that `take` put together; decoded one by one. Ticks and raises as `paint`."""
    first = recipes[0]
    if len(recipes) == 1:
        text = mixed(texts[prompts_of(first)], first)
        return [paint(pipe, first, text, beginning(first, pictures), tick, striped)]
    work = f"{len(recipes)} keyframes of {first.width}x{first.height} at once"
    with enough_memory(work, "set the model's batch lower"), torch.inference_mode():
        made = []
        for recipe, latents in zip(recipes, torch.split(_denoise(pipe, recipes, texts, tick), 1), strict=True):
            tick()
            made.append(finish(pipe, recipe, latents, striped))
        tick()
    return made


def _is_plain(recipe: Recipe) -> bool:
    return recipe.start is None and recipe.toward is None


def _kind(recipe: Recipe, texts: Texts) -> tuple[object, ...]:
    return recipe.width, recipe.height, recipe.steps, recipe.guidance, texts[prompts_of(recipe)][0].tokens.shape


def _denoise(pipe: FluxPipeline, recipes: Sequence[Recipe], texts: Texts, tick: Tick) -> torch.Tensor:
    """Latents (number of recipes, channels, 2h, 2w)."""

    def on_step_end(*_: Any) -> dict[str, torch.Tensor]:
        tick()
        return {}

    first = recipes[0]
    read = [texts[prompts_of(recipe)][0] for recipe in recipes]
    noise = torch.cat([make_noise(pipe, recipe) for recipe in recipes])
    packed = pipe(
        prompt_embeds=torch.cat([text.tokens for text in read]),
        pooled_prompt_embeds=torch.cat([text.pooled for text in read]),
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
