"""FLUX.1 [schnell]'s architecture with random weights, as a folder, without a download; or a smaller one of the same kind.

The configurations are those that Black Forest Labs publish with the weights (huggingface.co/black-forest-labs/FLUX.1-schnell);
the numbers are noise of the size that such layers have, so times and memory are the real model's and pictures are not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from flux_sizes import CLIP, T5, TRANSFORMER, VAE
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from nightreel_pipelines.flux.dtypes import bytes_of
from nightreel_pipelines.flux.tensors import header
from nightreel_pipelines.models import load_models

SHARD_BYTES = 4_000_000_000
Changes = Mapping[str, dict[str, Any]]
FULL: Changes = {}
FEW_LAYERS: Changes = {"transformer": {"num_layers": 1, "num_single_layers": 2}, "t5": {"num_layers": 2}}
TINY: Changes = {  # vocabularies of pocket's tokenizers
    "transformer": {
        "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 32, "num_attention_heads": 4,
        "joint_attention_dim": 96, "pooled_projection_dim": 64, "axes_dims_rope": (8, 12, 12),
    },
    "t5": {"vocab_size": 391, "d_model": 96, "d_kv": 32, "d_ff": 192, "num_layers": 2, "num_heads": 3},
    "clip": {
        "vocab_size": 780, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
        "projection_dim": 64, "max_position_embeddings": 32,
    },
    "vae": {"block_out_channels": (16, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4},
}  # fmt: skip


def build(folder: Path, *, device: str, changes: Changes = FULL) -> None:
    """Write the folder: 34 GB in bfloat16; FEW_LAYERS 3 GB, TINY less than 2 MB. Numbers are drawn on `device`."""
    pocket = load_models()["pocket"].folder(None)  # its tokenizers spell words; FLUX.1's vocabularies are larger
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(pocket / part, folder / part)
    shutil.copy(pocket / "model_index.json", folder)
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    ends = {
        name: json.loads((pocket / "text_encoder" / "config.json").read_text())[f"{name}_token_id"]
        for name in ("bos", "eos", "pad")
    }
    with init_empty_weights(include_buffers=False):
        transformer = FluxTransformer2DModel(**(TRANSFORMER | changes.get("transformer", {})))
        t5 = T5EncoderModel(T5Config(**(T5 | changes.get("t5", {}))))
        tokens = {f"{name}_token_id": number for name, number in ends.items()}
        clip = CLIPTextModel(CLIPTextConfig(**(CLIP | changes.get("clip", {}) | tokens)))
        vae = AutoencoderKL(**(VAE | changes.get("vae", {})))
    for part, model in (("transformer", transformer), ("text_encoder_2", t5), ("text_encoder", clip), ("vae", vae)):
        (folder / part).mkdir()
        (model.save_config if part in ("transformer", "vae") else model.config.save_pretrained)(folder / part)
        base = "diffusion_pytorch_model" if part in ("transformer", "vae") else "model"
        _write(model, folder / part, base, device)


def _write(model: nn.Module, part: Path, base: str, device: str) -> None:
    """All parameters in bfloat16, in files of SHARD_BYTES and an index, as diffusers and transformers read them."""
    torch.manual_seed(0)
    tied = getattr(model, "_tied_weights_keys", None) or {}
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters() if name not in tied}
    weight_map, total = {}, 0
    for number, names in enumerate(_groups(shapes), start=1):
        file = part / f"{base}-{number:05}.safetensors"
        with file.open("wb") as opened:
            opened.write(header((name, "BF16", shapes[name]) for name in names))
            for name in names:
                opened.write(bytes_of(_draw(name, shapes[name], device)))
                weight_map[name] = file.name
                total += 2 * prod(shapes[name])
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (part / f"{base}.safetensors.index.json").write_text(json.dumps(index))


def _groups(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    group, size_bytes = list[str](), 0
    for name, shape in shapes.items():
        if group and size_bytes + 2 * prod(shape) > SHARD_BYTES:
            yield group
            group, size_bytes = [], 0
        group.append(name)
        size_bytes += 2 * prod(shape)
    yield group


def _draw(name: str, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Ones for scales of norms, zeros for biases, else noise that keeps a layer's output as large as its input."""
    if len(shape) == 1:
        filled = torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
        return filled.to(torch.bfloat16)
    fan_in = prod(shape[1:])
    noise: torch.Tensor = torch.randn(shape, device=device, dtype=torch.bfloat16) * fan_in**-0.5
    return noise.cpu()
