"""The timesteps that FluxPipeline will take, known before it takes them. Imports torch and diffusers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

from ..recipe import Recipe
from .noise import sigmas_of


def timesteps(pipe: FluxPipeline, recipe: Recipe, like: torch.Tensor) -> list[torch.Tensor]:
    """As the transformer gets them: each (1,), from 0 to 1, with the dtype and device of `like`. As in FluxPipeline.__call__."""
    if recipe.evaluations == 0:
        return []
    scheduler = copy.deepcopy(pipe.scheduler)
    config = scheduler.config
    multiple = 2 * int(pipe.vae_scale_factor)
    mu = calculate_shift(
        (recipe.width // multiple) * (recipe.height // multiple),
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    sigmas: Any = sigmas_of(pipe, recipe)
    if sigmas is None:
        sigmas = np.linspace(1.0, 1 / recipe.steps, recipe.steps)
    if config.get("use_flow_sigmas"):
        sigmas = None
    steps, _ = retrieve_timesteps(scheduler, recipe.evaluations, like.device, sigmas=sigmas, mu=mu)
    return [step.expand(1).to(like.dtype) / 1000 for step in steps]
