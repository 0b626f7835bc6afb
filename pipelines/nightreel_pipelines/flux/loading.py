"""A folder in diffusers' layout -> a FluxPipeline that is ready to paint. Imports torch and diffusers."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # read once, when the hub's client is imported: weights are a folder, never a download
)

import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging

# Both libraries write advice to the worker's log: to install torchvision (which breaks CPU installs), that CLIP reads
# only the start of a long prompt (FLUX is made so). What matters of it, weights that are missing, is an error below.
for _logging in (diffusers_logging, transformers_logging):
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()

from diffusers import FluxPipeline
from transformers import CLIPTextModel, PreTrainedModel, T5EncoderModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_pipeline(folder: Path, precision: str, device: str) -> FluxPipeline:
    """Load all parts onto the device. Raises whatever the libraries raise, and LookupError when tensors are missing."""
    pipe = FluxPipeline.from_pretrained(
        folder,
        text_encoder=_load_text_encoder(CLIPTextModel, folder / "text_encoder", precision),
        text_encoder_2=_load_text_encoder(T5EncoderModel, folder / "text_encoder_2", precision),
        dtype=DTYPES[precision],
        local_files_only=True,
        use_safetensors=True,
    )
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe.to(device)


def _load_text_encoder(kind: type[PreTrainedModel], folder: Path, precision: str) -> PreTrainedModel:
    """Load one part by itself: transformers fills missing tensors with random numbers, and tells only who asks."""
    model, report = kind.from_pretrained(
        folder, dtype=DTYPES[precision], local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if report["missing_keys"]:
        raise LookupError(f"{folder.name} lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    return model
