"""What the painter learns from: drawn pictures as latents, several captions for each, and the layout of each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline

from . import checkpoints
from .captions import T5_LENGTHS, training_captions
from .drawing import draw
from .layout import TOKEN_PIXELS, Layout, Spoken, draw_layout, places
from .parts import CLIP_TOKENS, Painter
from .scene import Scene, draw_scene
from .settings import Settings

CAPTIONS = 6  # of each picture; the first half fit into the shortest of T5_LENGTHS
LENGTH_SHARES = (0.6, 0.15, 0.25)  # of T5_LENGTHS
OBJECT_WEIGHT = 5.0  # more, of the token that differs most from the rest of its row
_ENCODED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pictures with one caption each, on the device."""

    latents: torch.Tensor
    """Normalised and packed: float32 (batch, tokens, 64)."""
    possible: torch.Tensor
    """Whether the picture's thing might stand at a token: bool (batch, tokens)."""
    place: torch.Tensor
    """Token where it stands: int64 (batch,)."""
    said: torch.Tensor
    """What noise says there: float32 (batch, SAID)."""
    ground: torch.Tensor
    """What it says of the ground: float32 (batch, GROUND_SAID)."""
    weights: torch.Tensor
    """Of each token's loss, 1 in the mean: float32 (batch, tokens, 1)."""
    clip: torch.Tensor
    """Token numbers: int64 (batch, CLIP_TOKENS)."""
    t5: torch.Tensor
    """Token numbers: int64 (batch, one of T5_LENGTHS)."""
    places: torch.Tensor
    """Rows and columns of the tokens, as FLUX takes them: float32 (tokens, 3)."""


class Dataset:
    """All pictures of one size; their latents are kept in the folder, because a training may be started again."""

    def __init__(
        self, vae: Any, painter: Painter, size: tuple[int, int], count: int, settings: Settings, folder: Path
    ) -> None:
        seeds = [settings.seed_for("picture", size, number) for number in range(count)]
        scenes = [draw_scene(random.Random(seed)) for seed in seeds]
        drawn = [draw_layout(scene, size, _chance(seed)) for scene, seed in zip(scenes, seeds, strict=True)]
        layouts, spoken = [layout for layout, _ in drawn], [said for _, said in drawn]
        self._possible, self._place, self._said, self._ground = _spoken(scenes, spoken, size)
        self._clip, self._t5 = _captions(painter, scenes, seeds)
        path = folder / f"latents-{size[0]}x{size[1]}.safetensors"
        self._latents = checkpoints.once(path, lambda: _encode(vae, scenes, layouts, size))
        self._weights = token_weights(self._latents, size)
        self._places = _places(size)

    def batch(self, count: int, chance: torch.Generator, device: str) -> Batch:
        """Pictures, their captions and a sequence length at random."""
        chosen = torch.randint(len(self._latents), (count,), generator=chance)
        longer = int(torch.multinomial(torch.tensor(LENGTH_SHARES), 1, generator=chance))
        captions = CAPTIONS if longer else CAPTIONS // 2
        caption = torch.randint(captions, (count,), generator=chance)
        length = max(T5_LENGTHS[longer], int((self._t5[chosen, caption] != 0).sum(1).max()))
        parts = (self._latents, self._possible, self._place, self._said, self._ground, self._weights)
        latents, possible, place, said, ground, weights = (part[chosen].to(device) for part in parts)
        clip, t5 = self._clip[chosen, caption].to(device), self._t5[chosen, caption, :length].to(device)
        return Batch(latents, possible, place, said, ground, weights, clip, t5, self._places.to(device))


def normalise(vae: Any, settings: Settings, count: int = 256) -> None:
    """Give the VAE the shift and scale that make latents 0 in the mean and 1 in the standard deviation."""
    seeds = [settings.seed_for("normalise", number) for number in range(min(count, settings.pictures))]
    scenes = [draw_scene(random.Random(seed)) for seed in seeds]
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    size = settings.sizes[0]
    layouts = [draw_layout(scene, size, _chance(seed))[0] for scene, seed in zip(scenes, seeds, strict=True)]
    latents = _encode(vae, scenes, layouts, size)
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))


def token_weights(latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(pictures, tokens, 1), 1 in the mean of each picture.

    A landscape is much the same along a row and a small boat is not: a token weighs 1 to 6, by how far it lies from its
    row's median. Without it small things come out last, or not at all.
    """
    width, height = size
    rows = latents.reshape(len(latents), height // TOKEN_PIXELS, width // TOKEN_PIXELS, -1)
    differs = (rows - rows.median(2, keepdim=True).values).abs().mean(-1).flatten(1)
    weights = 1 + OBJECT_WEIGHT * differs / differs.amax(1, keepdim=True).clamp_min(1e-6)
    even: torch.Tensor = (weights / weights.mean(1, keepdim=True)).unsqueeze(-1)
    return even


def _chance(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _spoken(
    scenes: list[Scene], spoken: list[Spoken], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As Batch has them: possible, place, said, ground."""
    tokens = size[0] * size[1] // TOKEN_PIXELS**2
    possible = torch.zeros(len(scenes), tokens, dtype=torch.bool)
    for row, scene in zip(possible, scenes, strict=True):
        row[places(scene, size)] = True
    said = torch.from_numpy(np.stack([one.numbers for one in spoken]))
    ground = torch.from_numpy(np.stack([one.ground for one in spoken]))
    return possible, torch.tensor([one.place for one in spoken]), said, ground


def _captions(painter: Painter, scenes: list[Scene], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token numbers for CLIP (pictures, CAPTIONS, CLIP_TOKENS) and for T5 (pictures, CAPTIONS, longest)."""
    texts: list[str] = []
    for scene, seed in zip(scenes, seeds, strict=True):
        texts += training_captions(scene, random.Random(seed + 1), CAPTIONS)
    clip = _numbers(painter.clip_tokenizer, texts, CLIP_TOKENS)
    # In lower case: the other spellings of a word get its embedding when the model is written.
    t5 = _numbers(painter.t5_tokenizer, [text.lower() for text in texts], T5_LENGTHS[-1])
    return clip.reshape(len(scenes), CAPTIONS, -1), t5.reshape(len(scenes), CAPTIONS, -1)


def _numbers(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    numbers: torch.Tensor = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return numbers


def _encode(vae: Any, scenes: list[Scene], layouts: list[Layout], size: tuple[int, int]) -> torch.Tensor:
    """float32 (pictures, tokens, 64), normalised by the VAE's own shift and scale."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    packed = []
    for pixels in _drawn(scenes, layouts, size):
        with torch.inference_mode():
            latents = (vae.encode(pixels.to(vae.device)).latent_dist.mode().cpu() - shift) * scale
        packed.append(FluxPipeline._pack_latents(latents.contiguous(), *latents.shape))
    return torch.cat(packed)


def _drawn(scenes: list[Scene], layouts: list[Layout], size: tuple[int, int]) -> Iterator[torch.Tensor]:
    """Some pictures after others: float32 (some, 3, height, width) from -1 to 1."""
    for start in range(0, len(scenes), _ENCODED_AT_ONCE):
        some = slice(start, start + _ENCODED_AT_ONCE)
        pairs = zip(scenes[some], layouts[some], strict=True)
        levels = np.stack([draw(scene, layout, *size) for scene, layout in pairs])
        yield torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _places(size: tuple[int, int]) -> torch.Tensor:
    width, height = size
    places: torch.Tensor = FluxPipeline._prepare_latent_image_ids(
        1, height // TOKEN_PIXELS, width // TOKEN_PIXELS, "cpu", torch.float32
    )
    return places
