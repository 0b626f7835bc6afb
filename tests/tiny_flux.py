"""Builds an untrained FLUX of 0.1 million parameters, in the folder layout of FLUX.1 [schnell] or [dev], without a network.

It paints noise, but through the same code and the same kinds of files as the real one.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

_LETTERS = [chr(code) for code in range(33, 127)]
_WIDTH = 32
_CHANNELS = 16
_SHAPE: dict[str, Any] = {
    "in_channels": 4 * _CHANNELS,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": _WIDTH,
    "pooled_projection_dim": _WIDTH,
    "axes_dims_rope": (4, 6, 6),
}


def build(folder: Path, seed: int = 0, *, dev: bool = False, sure: bool = False) -> None:
    """Write the model; the seed decides its weights.

    `dev`: with guidance, and a schedule that depends on the size. `sure`: its VAE has no doubt what a picture's latents are.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = _clip_tokenizer(), _t5_tokenizer()
    schedule = {"use_dynamic_shifting": True, "shift": 3.0} if dev else {"shift": 1.0}
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**schedule),
        vae=_vae(sure),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_t5(len(tokenizer_2)),
        tokenizer_2=tokenizer_2,
        transformer=_transformer(dev),
    ).save_pretrained(folder, safe_serialization=True)


def build_control(folder: Path, seed: int = 1, **config: Any) -> None:
    """Write an untrained control checkpoint for it. New ones steer nothing (zeros), so all weights are drawn anew."""
    torch.manual_seed(seed)
    warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)  # by diffusers, which uses it
    net = FluxControlNetModel(**_SHAPE | {"num_layers": 1, "num_single_layers": 1} | config)
    for name, parameter in net.named_parameters():
        if name.startswith(("controlnet_", "input_hint_block.conv_out")):
            torch.nn.init.normal_(parameter, std=0.2)
    net.save_pretrained(folder, safe_serialization=True)


def _clip_tokenizer() -> CLIPTokenizer:
    """Spells every word letter by letter; the last token's id is the highest, where CLIP looks for its summary."""
    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _t5_tokenizer() -> T5TokenizerFast:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(letter, -4.0) for letter in ["▁", *_LETTERS]]
    return T5TokenizerFast(vocab=special + letters, extra_ids=0, model_max_length=512)


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _t5(vocab_size: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocab_size,
        d_model=_WIDTH,
        d_kv=16,
        d_ff=2 * _WIDTH,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def _transformer(dev: bool) -> FluxTransformer2DModel:
    return (
        FluxTransformer2DModel(**_SHAPE, num_layers=3, num_single_layers=2, guidance_embeds=True)
        if dev
        else (FluxTransformer2DModel(**_SHAPE, num_layers=1, num_single_layers=1, guidance_embeds=False))
    )


def _vae(sure: bool) -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=_CHANNELS,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    if sure:
        torch.nn.init.zeros_(vae.encoder.conv_out.weight[_CHANNELS:])
        torch.nn.init.constant_(vae.encoder.conv_out.bias[_CHANNELS:], -30.0)  # logarithm of the variance
    return vae
