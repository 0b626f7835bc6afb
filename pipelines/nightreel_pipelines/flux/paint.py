"""A recipe and its prompt's embedding -> a picture. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxPipeline

from ..base import Picture, Tick
from ..errors import Unrenderable
from ..recipe import Recipe
from .memory import enough_memory
from .noise import noisy
from .stripes import decode
from .text import Embedding


def check_size(pipe: FluxPipeline, recipe: Recipe) -> None:
    """Raises Unrenderable for a size that the model cannot make exactly; diffusers would quietly make a smaller one."""
    multiple = _side_multiple(pipe)
    if recipe.width % multiple or recipe.height % multiple:
        raise Unrenderable(
            f"a keyframe of {recipe.width}x{recipe.height}: this model's sides are multiples of {multiple}; "
            "set multiple in the models file"
        )


def paint(
    pipe: FluxPipeline, recipe: Recipe, text: Embedding, over: Picture | None, tick: Tick, striped: bool = False
) -> Picture:
    """Make one keyframe; `tick` is called after each step, before the latents are decoded, and after.

    `over` is the picture that it is drawn over, of the recipe's size; None for noise alone. `striped`: as `decode` takes it.

    Raises OutOfMemory when there is not enough memory, Unrenderable when the numbers overflow, and whatever `tick` raises.
    """
    work = f"a keyframe of {recipe.width}x{recipe.height}"
    with enough_memory(work, "lower render.megapixels, or use a larger machine"), torch.inference_mode():
        latents = _denoise(pipe, recipe, text, over, tick)
        tick()
        picture = finish(pipe, recipe, latents, striped)
        tick()
    return picture


def finish(pipe: FluxPipeline, recipe: Recipe, latents: torch.Tensor, striped: bool) -> Picture:
    """Latents (1, channels, 2h, 2w) -> the picture. Raises Unrenderable when the numbers overflow."""
    pixels = _decode(pipe, latents, striped)
    if not torch.isfinite(pixels).all():
        # Not a matter of luck: the same recipe overflows on every attempt, so trying again would only cost money.
        raise Unrenderable(
            f"the model made no picture (numbers overflow in {recipe.precision}) of {recipe.prompt[:40]!r}: "
            "set the model's precision to fp32 or bf16, or check its weights"
        )
    return _to_picture(pixels)


def _denoise(pipe: FluxPipeline, recipe: Recipe, text: Embedding, over: Picture | None, tick: Tick) -> torch.Tensor:
    """Latents (1, channels, 2h, 2w), as the VAE's decoder takes them."""

    def on_step_end(*_: Any) -> dict[str, torch.Tensor]:
        tick()
        return {}

    begun = noisy(pipe, recipe, over)
    if recipe.evaluations == 0:
        return begun.latents.to(pipe.vae.device, pipe.vae.dtype)
    packed = pipe(
        prompt_embeds=text.tokens,
        pooled_prompt_embeds=text.pooled,
        latents=pipe._pack_latents(begun.latents, *begun.latents.shape),
        num_inference_steps=recipe.evaluations,
        sigmas=begun.sigmas,
        guidance_scale=recipe.guidance,
        height=recipe.height,
        width=recipe.width,
        callback_on_step_end=on_step_end,
        output_type="latent",
    ).images
    latents: torch.Tensor = pipe._unpack_latents(packed, recipe.height, recipe.width, pipe.vae_scale_factor)
    return latents


def _decode(pipe: FluxPipeline, latents: torch.Tensor, striped: bool) -> torch.Tensor:
    """Pixels (1, 3, H, W), from -1 to 1."""
    scale, shift = pipe.vae.config.scaling_factor, pipe.vae.config.shift_factor
    return decode(pipe.vae, latents / scale + shift, striped=striped)


def _to_picture(pixels: torch.Tensor) -> Picture:
    levels = ((pixels[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture: Picture = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    return picture


def _side_multiple(pipe: FluxPipeline) -> int:
    """Pixels of a token's side: the VAE's, in patches of 2x2 latents."""
    return 2 * int(pipe.vae_scale_factor)
