"""The five trained or made parts of pocket, untrained: diffusers' and transformers' own classes, small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .tokens import clip_tokenizer, t5_tokenizer

CLIP_TOKENS = 32  # that CLIP reads of a prompt
CLIP_WIDTH, T5_WIDTH = 64, 96
HEADS, HEAD_WIDTH, ROPE = 4, 32, (8, 12, 12)
VAE_CHANNELS, LATENT_CHANNELS = (16, 32, 48, 64), 16
TINY_VAE_CHANNELS = (4, 4, 4, 4)


@dataclass(frozen=True, slots=True)
class Painter:
    """What turns captions and noise into latents; trained together."""

    clip: Any
    t5: Any
    transformer: Any
    clip_tokenizer: Any
    t5_tokenizer: Any

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        return (self.clip, self.t5, self.transformer)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for module in self.modules for parameter in module.parameters()]


def make_vae(tiny: bool, seed: int) -> Any:
    """An AutoencoderKL with 8 pixels and 16 channels to a latent, as FLUX has it."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=TINY_VAE_CHANNELS if tiny else VAE_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    return vae.to(memory_format=torch.channels_last)


def make_painter(tiny: bool, seed: int) -> Painter:
    """Text encoders, their tokenizers and the transformer, with the parameters' first values."""
    torch.manual_seed(seed)
    clip_tokens, t5_tokens = clip_tokenizer(CLIP_TOKENS), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=1 if tiny else 4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=1 if tiny else HEADS,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=ROPE,
    )
    _first_values(transformer)
    return Painter(_clip(clip_tokens), _t5(t5_tokens), transformer, clip_tokens, t5_tokens)


def make_scheduler() -> Any:
    """FLUX.1 [schnell]'s: evenly spaced noise levels, 1, 0.75, 0.5, 0.25 for four steps."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)


def _clip(tokenizer: Any) -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CLIP_WIDTH,
            intermediate_size=2 * CLIP_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=CLIP_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5(tokenizer: Any) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_WIDTH,
            d_kv=32,
            d_ff=2 * T5_WIDTH,
            num_layers=1,
            num_heads=3,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            dropout_rate=0.0,
        )
    )


def _first_values(transformer: torch.nn.Module) -> None:
    """Xavier's for all linear layers, zeros for what modulates and what comes last ("adaLN-zero", Peebles & Xie 2023)."""
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            last = name == "proj_out" or (".norm" in f".{name}" and name.endswith("linear"))
            torch.nn.init.zeros_(module.weight) if last else torch.nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
