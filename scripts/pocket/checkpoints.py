"""Files of a training that a kill leaves whole: written beside their place, then put there in one go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and optimizer states."""
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    os.replace(beside, path)


def load(path: Path) -> dict[str, Any] | None:
    """What was saved last, on the CPU; None when nothing was. Plain data only: a checkpoint cannot run code."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    beside = path.with_suffix(".part")
    save_file(tensors, beside)
    os.replace(beside, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    return load_file(path) if path.exists() else None
