"""Control checkpoints: folders with a FluxControlNetModel that must fit the transformer it steers. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ..errors import SourceUnavailable
from ..models import ModelSpec
from .tensors import list_tensors

MODES = {"pose": 4}
"""What union checkpoints (those with num_mode) call each type: InstantX and Shakker Labs, FLUX.1-dev-ControlNet-Union(-Pro)."""
_SHARED = {
    "in_channels": 64,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": [16, 56, 56],
}
"""What checkpoint and transformer must have alike, with the value of one that does not say it: FLUX.1's."""


def check_controls(spec: ModelSpec, folder: Path, controls: Mapping[str, Path]) -> None:
    """Compare configurations: what reads guidance gets some, and checkpoints fit. Raises SourceUnavailable with the mend."""
    transformer = _config(spec, folder / "transformer", "copy the whole model there again")
    configs = {
        kind: _config(spec, place, "put a FluxControlNetModel in diffusers' layout there")
        for kind, place in controls.items()
    }
    for kind, config in configs.items():
        if trouble := _misfit(kind, config, transformer):
            raise SourceUnavailable(f"model {spec.name}: control.{kind}: {controls[kind]} {trouble}")
    reads_guidance = any(config.get("guidance_embeds") for config in (transformer, *configs.values()))
    if reads_guidance and not spec.guidance:
        raise SourceUnavailable(
            f"model {spec.name} reads guidance: set it in its entry of the models file, such as 3.5"
        )
    if spec.guidance and not reads_guidance:
        raise SourceUnavailable(f"model {spec.name} reads no guidance (no guidance_embeds): remove it from its entry")


def sizes_gib(spec: ModelSpec, controls: Mapping[str, Path]) -> float:
    """Of all checkpoints together, in bfloat16. Raises SourceUnavailable for one without whole safetensors files."""
    total = 0
    for kind, folder in controls.items():
        try:
            total += sum(prod(tensor.shape) for tensor in list_tensors(folder).values())
        except (LookupError, ValueError, OSError) as exc:
            raise SourceUnavailable(
                f"model {spec.name}: control.{kind} ({folder}): {exc}; copy the whole checkpoint there again, as safetensors"
            ) from exc
    return 2 * total / 2**30


def _config(spec: ModelSpec, folder: Path, mend: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SourceUnavailable(f"model {spec.name}: {folder}/config.json cannot be read ({exc}); {mend}") from exc
    if not isinstance(config, dict):
        raise SourceUnavailable(f"model {spec.name}: {folder}/config.json holds no configuration; {mend}")
    return config


def _misfit(kind: str, config: Mapping[str, Any], transformer: Mapping[str, Any]) -> str:
    """What keeps a checkpoint from steering this transformer; empty when nothing does."""
    if config.get("_class_name") != "FluxControlNetModel":
        return f"holds a {config.get('_class_name')}; a FluxControlNetModel is needed"
    for name, usual in _SHARED.items():
        theirs, ours = config.get(name, usual), transformer.get(name, usual)
        if theirs != ours:
            return f"has {name} {theirs}, the transformer {ours}: take a checkpoint made for this model"
    modes = config.get("num_mode")
    if modes is not None and modes <= MODES[kind]:
        return f"has {modes} modes; {kind} is mode {MODES[kind]} of union checkpoints: take one that has it"
    return ""
