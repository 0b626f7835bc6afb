"""FLUX.1 [schnell]'s sizes, and what it multiplies to make a picture, by arithmetic. No torch here.

The configurations are those that Black Forest Labs publish with the weights (huggingface.co/black-forest-labs/FLUX.1-schnell).
A multiplication and its addition count as two operations; norms, activations and modulation, which work on vectors, are not
counted: less than 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

TRANSFORMER: dict[str, Any] = {
    "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128, "num_attention_heads": 24,
    "joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": False, "axes_dims_rope": (16, 56, 56),
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False, "use_cache": False, "dropout_rate": 0.0,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16, "norm_num_groups": 32,
    "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False,
    "use_post_quant_conv": False,
}  # fmt: skip

PROMPT_TOKENS = 256  # that every prompt is padded to
PATCH_PX = 16  # side of the square that one token of the picture stands for: 8 by the VAE, 2 by packing
MLP_RATIO = 4
BYTES_FP8 = 17.2e9  # of the prepared folder: 16 GiB


@dataclass(frozen=True, slots=True)
class Work:
    """Operations (FLOP)."""

    linear: float
    """In layers whose weights are 8-bit when they are prepared."""
    attention: float
    """Between activations; always in bf16."""

    @property
    def all(self) -> float:
        return self.linear + self.attention


def step(width: int, height: int) -> Work:
    """One step of the transformer for a picture of width x height pixels.

    With S tokens of text and picture together, d numbers each: a block of either kind multiplies 12 d^2 numbers a token
    (attention's four matrices and the two of its MLP), and attention S^2 d numbers twice.
    """
    picture = (width // PATCH_PX) * (height // PATCH_PX)
    tokens = picture + PROMPT_TOKENS
    d = TRANSFORMER["attention_head_dim"] * TRANSFORMER["num_attention_heads"]
    blocks = TRANSFORMER["num_layers"] + TRANSFORMER["num_single_layers"]
    ends = 2 * TRANSFORMER["in_channels"] * d * picture + TRANSFORMER["joint_attention_dim"] * d * PROMPT_TOKENS
    linear = blocks * (4 + 2 * MLP_RATIO) * d**2 * tokens + ends
    return Work(2.0 * linear, 2.0 * blocks * 2 * tokens**2 * d)


def prompt() -> Work:
    """T5 reads one prompt. CLIP's part is less than 1 % of it."""
    d, inner = T5["d_model"], T5["d_kv"] * T5["num_heads"]
    layer = 4 * d * inner + 3 * d * T5["d_ff"]
    tokens, layers = PROMPT_TOKENS, T5["num_layers"]
    return Work(2.0 * layers * layer * tokens, 2.0 * layers * 2 * tokens**2 * inner)


def decode(width: int, height: int) -> float:
    """The VAE's decoder: 3x3 convolutions at an eighth of the picture's sides, a quarter, half, and all of them."""
    wide = VAE["block_out_channels"][::-1]
    places = (width // 8) * (height // 8)
    top = wide[0]
    per_place = 9 * VAE["latent_channels"] * top + 2 * _resnet(top, top) + 4 * top**2
    work = places * per_place + 2 * places**2 * top  # and attention over all places
    for level, (before, channels) in enumerate(pairwise((top, *wide))):
        here = places * 4**level
        work += here * (_resnet(before, channels) + VAE["layers_per_block"] * _resnet(channels, channels))
        if level < len(wide) - 1:
            work += 4 * here * 9 * channels**2  # enlarged, then smoothed
    work += places * 4 ** (len(wide) - 1) * 9 * wide[-1] * 3
    return float(2 * work)


def _resnet(before: int, after: int) -> int:
    """Multiplications a pixel: two convolutions, and a shortcut where the width changes."""
    return 9 * before * after + 9 * after**2 + (before * after if before != after else 0)
