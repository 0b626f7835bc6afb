"""Where a keyframe's denoising begins: its noise, and how much of a picture shows through it. Imports torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from ..base import Picture
from ..recipe import Recipe
from .mixing import slerp


@dataclass(frozen=True, slots=True)
class Noisy:
    """What denoising begins with."""

    latents: torch.Tensor
    """float32 (1, channels, 2h, 2w)."""
    sigmas: Sequence[float] | None
    """Noise before each step, as the pipeline takes it; None: the pipeline's own, from 1. Empty: nothing to denoise."""


def noisy(pipe: FluxPipeline, recipe: Recipe, picture: Picture | None) -> Noisy:
    """The recipe's noise, or a mixture of it with the picture: latents = (1 - sigma) picture + sigma noise.

    The first sigma is the recipe's strength itself, not the nearest of a few steps: 0.50 and 0.55 differ.
    """
    noise, sigmas = make_noise(pipe, recipe), sigmas_of(pipe, recipe)
    if picture is None or sigmas is None:
        return Noisy(noise, None)
    latents = encode(pipe, picture)
    if not sigmas:
        return Noisy(latents, ())
    sigma = _first_sigma(pipe, sigmas, _tokens(pipe, recipe))
    return Noisy((1 - sigma) * latents + sigma * noise, sigmas)


def sigmas_of(pipe: FluxPipeline, recipe: Recipe) -> list[float] | None:
    """As in Noisy."""
    if recipe.start is None or recipe.start.strength == 1.0:
        return None
    if recipe.evaluations == 0:
        return []
    first = _unshifted(pipe, recipe.start.strength, _tokens(pipe, recipe))
    sigmas: list[float] = np.linspace(first, first / recipe.evaluations, recipe.evaluations).tolist()
    return sigmas


def make_noise(pipe: FluxPipeline, recipe: Recipe) -> torch.Tensor:
    """The recipe's noise: float32 (1, channels, 2h, 2w), each latent being 8 pixels wide for FLUX.1.

    Drawn on the CPU and in float32, whatever the model runs on and computes in, so that a seed is the same noise everywhere.
    """
    rows, columns = (side // int(pipe.vae_scale_factor) for side in (recipe.height, recipe.width))
    shape = (1, pipe.transformer.config.in_channels // 4, rows, columns)
    near = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(recipe.seed))
    if recipe.toward is None:
        return near
    far = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(recipe.toward.seed))
    return slerp(near, far, recipe.toward.at)


def encode(pipe: FluxPipeline, picture: Picture) -> torch.Tensor:
    """A picture (both sides multiples of a token) as latents, float32 on the CPU: the likeliest ones, no sample."""
    found = pipe.vae.encode(to_pixels(picture).to(pipe.vae.device, pipe.vae.dtype)).latent_dist.mode()
    latents: torch.Tensor = (found - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    return latents.float().cpu()


def to_pixels(picture: Picture) -> torch.Tensor:
    """float32 (1, 3, H, W) on the CPU, from -1 to 1."""
    return torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def _first_sigma(pipe: FluxPipeline, sigmas: list[float], tokens: int) -> float:
    """The noise that the model will take the latents to have, after whatever its scheduler does to the sigmas."""
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(sigmas=sigmas, mu=_mu(pipe, tokens))
    return float(scheduler.sigmas[0])


def _unshifted(pipe: FluxPipeline, sigma: float, tokens: int) -> float:
    """What the scheduler shifts to `sigma`: the inverse of s' = k s / (1 + (k - 1) s), and of its form that depends on size."""
    config = pipe.scheduler.config
    shift = float(pipe.scheduler.shift)
    if config.use_dynamic_shifting:
        mu = _mu(pipe, tokens)
        shift = math.exp(mu) if config.time_shift_type == "exponential" else mu
    return sigma / (shift - (shift - 1) * sigma)


def _tokens(pipe: FluxPipeline, recipe: Recipe) -> int:
    multiple = 2 * int(pipe.vae_scale_factor)
    return (recipe.width // multiple) * (recipe.height // multiple)


def _mu(pipe: FluxPipeline, tokens: int) -> float:
    config = pipe.scheduler.config
    return float(
        calculate_shift(
            tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        )
    )
