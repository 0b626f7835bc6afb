"""What lies between two ends of a walk: noise and prompts, mixed. Imports torch."""

from __future__ import annotations

import torch

from ..recipe import Recipe
from .text import Embedding

PARALLEL = 1e-6  # sine of an angle below which two noises count as one direction


def prompts_of(recipe: Recipe) -> tuple[str, ...]:
    """The prompts that a recipe mixes; one that does not walk has one."""
    return (recipe.prompt,) if recipe.toward is None else (recipe.prompt, recipe.toward.prompt)


def mixed(texts: tuple[Embedding, ...], recipe: Recipe) -> Embedding:
    """The recipe's place between the embeddings of `prompts_of`, which have one length."""
    if recipe.toward is None or recipe.toward.prompt == recipe.prompt:
        return texts[0]
    near, far = texts
    at = recipe.toward.at
    return Embedding(torch.lerp(near.tokens, far.tokens, at), torch.lerp(near.pooled, far.pooled, at))


def slerp(near: torch.Tensor, far: torch.Tensor, at: float) -> torch.Tensor:
    """Along the arc between two noises; their lengths, nearly equal, are mixed linearly (K. Shoemake, 1985).

    float32 of any one shape; the ends themselves at 0 and 1. A straight line between two independent noises would pass
    through noise of 0.7 times the strength, from which a model draws washed-out pictures.
    """
    if at in (0.0, 1.0):
        return near if at == 0.0 else far
    one, other = near.flatten().double(), far.flatten().double()  # so that no sum depends on the number of threads
    lengths = one.norm(), other.norm()
    cosine = torch.dot(one / lengths[0], other / lengths[1]).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if torch.sin(angle) < PARALLEL:
        return torch.lerp(near, far, at)
    direction = torch.sin((1 - at) * angle) * one / lengths[0] + torch.sin(at * angle) * other / lengths[1]
    length = torch.lerp(lengths[0], lengths[1], at)
    arc: torch.Tensor = direction / torch.sin(angle) * length
    return arc.float().reshape(near.shape)
