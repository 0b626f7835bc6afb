"""What makes a GPU faster and a CPU not: compiled blocks with a cache of them, other attention kernels. Imports torch.

Compiling a transformer's blocks takes tens of seconds for each size of picture. A compile cache ("mega-cache",
https://docs.pytorch.org/docs/stable/compile/programming_model.html) keeps the compiled code; it fits one version of torch and
triton and one GPU model. It lies in a hidden folder beside the weights, so that it is no part of their revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..errors import SourceUnavailable
from ..models import ModelSpec
from .card import find_card

CACHES = ".nightreel/compiled"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a compile cache is tied to."""

    torch: str
    triton: str
    gpu: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def this_machine() -> Machine:
    """Raises SourceUnavailable without a GPU."""
    card = find_card(0)
    if card is None:
        raise SourceUnavailable("a compile cache is made on the GPU that it is for; this machine has none")
    return Machine(torch.__version__, _version("triton"), card.name)


def set_attention(transformer: Any, backend: str, device: str) -> None:
    """Choose how attention is computed. Raises SourceUnavailable for a backend that is unknown, missing, or not for a CPU."""
    if backend == "native":
        return
    if device == "cpu":
        raise SourceUnavailable(f"attention {backend} needs a GPU: leave NIGHTREEL_ATTENTION at native")
    try:
        transformer.set_attention_backend(backend)
    except Exception as exc:  # each backend's package has errors of its own
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise SourceUnavailable(
            f"attention {backend} cannot be had here ({reason}): install it, or leave NIGHTREEL_ATTENTION at native"
        ) from exc


def compile_blocks(
    transformer: Any, spec: ModelSpec, folder: Path, device: str, warm: Callable[[int, int], None]
) -> str:
    """Compile as the model's entry says; returns what was done, in words, empty for nothing.

    `cached`: only if there is a cache for this machine; its sizes are warmed, and other sizes run as they are. `warm` makes
    one step of a picture of that width and height.
    """
    if spec.compile == "off":
        return ""
    if device == "cpu":
        return "not compiled: no GPU"
    if spec.compile == "on":
        transformer.compile_repeated_blocks(fullgraph=True)
        return "compiled"
    sizes = load_cache(folder, this_machine())
    if not sizes:
        return "not compiled: no compile cache for this torch, triton and GPU"
    transformer.compile_repeated_blocks(fullgraph=True)
    for width, height in sizes:
        warm(width, height)
    torch.compiler.set_stance("eager_on_recompile")
    return f"compiled for {', '.join(f'{width}x{height}' for width, height in sizes)}"


def save_cache(folder: Path, machine: Machine, sizes: Sequence[tuple[int, int]]) -> Path:
    """Keep what this process has compiled. Raises SourceUnavailable when that is nothing."""
    artifacts = torch.compiler.save_cache_artifacts()
    if artifacts is None:
        raise SourceUnavailable("nothing was compiled: the cache would be empty")
    place = folder / CACHES
    place.mkdir(parents=True, exist_ok=True)
    about = {"machine": asdict(machine), "sizes": [list(size) for size in sizes]}
    for name, data in ((f"{machine.key}.bin", artifacts[0]), (f"{machine.key}.json", json.dumps(about).encode())):
        draft = place / f"{name}.draft"
        draft.write_bytes(data)
        draft.replace(place / name)
    return place / f"{machine.key}.bin"


def load_cache(folder: Path, machine: Machine) -> list[tuple[int, int]]:
    """Give torch what was compiled on a machine like this one; returns the sizes, none when there is no such cache."""
    about, data = (folder / CACHES / f"{machine.key}{suffix}" for suffix in (".json", ".bin"))
    try:
        sizes = [(int(width), int(height)) for width, height in json.loads(about.read_text(encoding="utf-8"))["sizes"]]
        loaded = torch.compiler.load_cache_artifacts(data.read_bytes())
    except (OSError, ValueError, KeyError):
        return []
    return sizes if loaded is not None else []


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
