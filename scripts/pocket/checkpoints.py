"""Files of a training that a kill leaves whole: written beside their place, then put there in one go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and optimizer states."""
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    beside.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What was saved last, on the CPU; None when nothing was. Plain data only: a checkpoint cannot run code."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def once(path: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A tensor from a file; it is made and put there if there is none."""
    if not path.exists():
        beside = path.with_suffix(".part")
        save_file({"it": make()}, beside)
        beside.replace(path)
    return load_file(path)["it"]
