"""A trained pocket -> a folder in diffusers' layout, in 16-bit safetensors, with its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from string import Template
from typing import Any

import torch
from diffusers import FluxPipeline

from .captions import vocabulary
from .parts import CLIP_TOKENS, Painter, make_scheduler
from .settings import Settings
from .tokens import clip_tokenizer, t5_tokenizer

CARD = Path(__file__).with_name("MODEL_CARD.md")
MB = 1_000_000
MAX_BYTES = 20 * MB


def write_folder(folder: Path, painter: Painter, vae: Any, facts: dict[str, str]) -> None:
    """Write or replace the model, whole or not at all; `facts` fill the card's gaps. Changes the parts' precision."""
    share_case(painter)
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    _pipeline(painter, vae).save_pretrained(beside, safe_serialization=True)
    _forget_places(beside)
    size_bytes = sum(path.stat().st_size for path in beside.rglob("*") if path.is_file())
    if size_bytes > MAX_BYTES:
        raise SystemExit(f"the model takes {size_bytes / MB:.1f} MB; the package has room for {MAX_BYTES / MB:.0f}")
    (beside / "MODEL_CARD.md").write_text(_card(painter, vae, size_bytes, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def share_case(painter: Painter) -> None:
    """Give `Sun` and `SUN` the embedding of `sun`: training reads lower case alone, and T5's tokenizer minds case."""
    numbers = painter.t5_tokenizer.get_vocab()
    embeddings = painter.t5.get_input_embeddings().weight
    with torch.no_grad():
        for word in vocabulary():
            for spelling in (word.capitalize(), word.upper()):
                embeddings[numbers[f"▁{spelling}"]] = embeddings[numbers[f"▁{word}"]]


def model_facts(settings: Settings, steps: int, decibels: float) -> dict[str, str]:
    """What the card says of a training."""
    return {
        "seed": str(settings.seed),
        "vae_steps": f"{settings.vae_steps:,}",
        "decoder_steps": f"{settings.decoder_steps:,}",
        "flow_steps": f"{steps:,}",
        "seen": f"{steps * settings.flow_batch:,}",
        "pictures": f"{2 * settings.pictures:,}",
        "decibels": f"{decibels:.1f}",
    }


def _pipeline(painter: Painter, vae: Any) -> Any:
    """With new tokenizers, because the painter's remember, and would write, what they were last asked to cut."""
    return FluxPipeline(
        scheduler=make_scheduler(),
        vae=vae.half(),
        text_encoder=painter.clip.half(),
        tokenizer=clip_tokenizer(CLIP_TOKENS),
        text_encoder_2=painter.t5.half(),
        tokenizer_2=t5_tokenizer(),
        transformer=painter.transformer.half(),
    )


def _forget_places(folder: Path) -> None:
    """Take out where the parts lay on the machine that trained them."""
    for path in sorted(folder.rglob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(painter: Painter, vae: Any, size_bytes: int, facts: dict[str, str]) -> str:
    parts = {"transformer": painter.transformer, "vae": vae, "clip": painter.clip, "t5": painter.t5}
    counts = {f"{name}_parameters": f"{_count(part):,}" for name, part in parts.items()}
    return Template(CARD.read_text(encoding="utf-8")).substitute(facts, size_mb=f"{size_bytes / MB:.1f}", **counts)


def _count(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())
