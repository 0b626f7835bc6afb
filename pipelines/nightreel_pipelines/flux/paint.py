"""Recipes and their prompts' embeddings -> pictures, several of one size in one go of the transformer. Imports torch.

A GPU that a single keyframe does not fill makes several in less time. On a CPU the last bits of a picture then depend on
its neighbours, so the default is one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxPipeline

from ..base import Picture, Pictures, Tick
from ..beginning import beginning
from ..errors import Unrenderable
from ..recipe import Recipe
from .control import Controls
from .memory import enough_memory
from .mixing import mixed, prompts_of
from .noise import Noisy, noisy
from .stripes import decode
from .text import Embedding, Texts


def check_size(pipe: FluxPipeline, recipe: Recipe) -> None:
    """Raises Unrenderable for a size that the model cannot make exactly; diffusers would quietly make a smaller one."""
    multiple = _side_multiple(pipe)
    if recipe.width % multiple or recipe.height % multiple:
        raise Unrenderable(
            f"a keyframe of {recipe.width}x{recipe.height}: this model's sides are multiples of {multiple}; "
            "set multiple in the models file"
        )


class Painter:
    """Makes keyframes with a loaded pipeline and its control checkpoints."""

    def __init__(self, pipe: FluxPipeline, nets: Mapping[str, FluxControlNetModel]) -> None:
        """`nets` by their types."""
        self._pipe, self._controls = pipe, Controls(pipe, nets)

    def paint(
        self, recipes: Sequence[Recipe], texts: Texts, pictures: Pictures, tick: Tick, *, striped: bool = False
    ) -> list[Picture]:
        """Make keyframes that `take` put together; decoded one by one. `pictures` as a Source gets it.

        `tick` is called after each step, before each keyframe is decoded, and at the end. `striped`: as `decode` takes it.
        Raises OutOfMemory when there is not enough memory, Unrenderable when the numbers overflow, and whatever `tick`
        and `pictures` raise.
        """
        read = [mixed(texts[prompts_of(recipe)], recipe) for recipe in recipes]
        over = [beginning(recipe, pictures) for recipe in recipes]
        with enough_memory(*_work(recipes)), torch.inference_mode():
            begun = [noisy(self._pipe, recipe, picture) for recipe, picture in zip(recipes, over, strict=True)]
            with self._controls.steering(recipes, pictures):
                latents = _denoise(self._pipe, recipes[0], read, begun, tick)
            made = []
            for recipe, one in zip(recipes, torch.split(latents, 1), strict=True):
                tick()
                made.append(finish(self._pipe, recipe, one, striped))
            tick()
        return made


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


def _work(recipes: Sequence[Recipe]) -> tuple[str, str]:
    """What did not fit, and the mend."""
    size = f"{recipes[0].width}x{recipes[0].height}"
    if len(recipes) == 1:
        return f"a keyframe of {size}", "lower render.megapixels, or use a larger machine"
    return f"{len(recipes)} keyframes of {size} at once", "set the model's batch lower"


def _denoise(
    pipe: FluxPipeline, recipe: Recipe, texts: Sequence[Embedding], begun: Sequence[Noisy], tick: Tick
) -> torch.Tensor:
    """Latents (keyframes, channels, 2h, 2w), as the VAE's decoder takes them. `recipe`: of what all have alike."""

    def on_step_end(*_: Any) -> dict[str, torch.Tensor]:
        tick()
        return {}

    latents = torch.cat([each.latents for each in begun])
    if recipe.evaluations == 0:
        return latents.to(pipe.vae.device, pipe.vae.dtype)
    packed = pipe(
        prompt_embeds=torch.cat([text.tokens for text in texts]),
        pooled_prompt_embeds=torch.cat([text.pooled for text in texts]),
        latents=pipe._pack_latents(latents, *latents.shape),
        num_inference_steps=recipe.evaluations,
        sigmas=begun[0].sigmas,
        guidance_scale=recipe.guidance,
        height=recipe.height,
        width=recipe.width,
        callback_on_step_end=on_step_end,
        output_type="latent",
    ).images
    made: torch.Tensor = pipe._unpack_latents(packed, recipe.height, recipe.width, pipe.vae_scale_factor)
    return made


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
