"""Latents -> pixels, in overlapping tiles where the whole picture would need too much memory. Imports torch.

diffusers' own tiling leaves narrow tiles at the right and lower edges, whose statistics (the decoder normalizes over the
tile) differ most; here all tiles are of one size, spread evenly, and fade into each other over at least a quarter.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import torch

TILED_ABOVE_PIXELS = 2_100_000  # 2048x1024 is decoded whole; so the size alone decides, on every machine
TILE_LATENTS = 128  # 1024 pixels for FLUX.1
SMALL_TILE_LATENTS = 64  # when memory is short
OVERLAP = 0.25  # of a tile, at least


def decode(vae: Any, latents: torch.Tensor, tile_latents: int | None = None) -> torch.Tensor:
    """Decode latents (1, channels, h, w), scaled for the VAE, to pixels (1, 3, H, W), from -1 to 1.

    `tile_latents`: side of the tiles; by default the picture's size decides whether there are any.
    """
    step = 2 ** (len(vae.config.block_out_channels) - 1)
    if tile_latents is None:
        tile_latents = (
            TILE_LATENTS if prod(latents.shape[-2:]) * step**2 > TILED_ABOVE_PIXELS else max(latents.shape[-2:])
        )
    if max(latents.shape[-2:]) <= tile_latents:
        whole: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return whole
    return _in_tiles(vae, latents, tile_latents, step)


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along one side: of one length, evenly spread, overlapping by at least OVERLAP."""
    tile = min(tile, length)
    stride = tile - ceil(tile * OVERLAP)
    count = 1 + ceil((length - tile) / stride) if length > tile else 1
    starts = [(length - tile) * number // max(1, count - 1) for number in range(count)]
    return [(start, start + tile) for start in starts]


def _in_tiles(vae: Any, latents: torch.Tensor, tile: int, step: int) -> torch.Tensor:
    height, width = (side * step for side in latents.shape[-2:])
    pixels = torch.zeros((1, 3, height, width), dtype=torch.float32, device=latents.device)
    weights = torch.zeros((1, 1, height, width), dtype=torch.float32, device=latents.device)
    for top, bottom in spans(latents.shape[-2], tile):
        for left, right in spans(latents.shape[-1], tile):
            made = vae.decode(latents[..., top:bottom, left:right], return_dict=False)[0].float()
            fade = _fade(top, bottom, latents.shape[-2], step)[:, None] * _fade(left, right, latents.shape[-1], step)
            fade = fade.to(made.device)
            pixels[..., top * step : bottom * step, left * step : right * step] += made * fade
            weights[..., top * step : bottom * step, left * step : right * step] += fade
    return pixels.div_(weights)


def _fade(start: int, end: int, length: int, step: int) -> torch.Tensor:
    """A tile's weight along one side: float32 (pixels,), less towards each edge that lies within the picture."""
    size = (end - start) * step
    ramp = max(1, int(size * OVERLAP))
    at = torch.arange(size, dtype=torch.float32) + 0.5
    weight = torch.ones(size)
    if start > 0:
        weight = torch.minimum(weight, at / ramp)
    if end < length:
        weight = torch.minimum(weight, (size - at) / ramp)
    return weight
