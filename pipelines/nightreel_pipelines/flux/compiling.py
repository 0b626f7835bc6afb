"""A compile cache for prepared weights, made on the GPU that it is for. Imports torch and diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models import ModelSpec
from .card import find_card
from .engine import Engine
from .placing import place
from .prepared import manifest_of
from .revision import revision
from .speed import save_cache, this_machine


def make_cache(folder: Path, sizes: Sequence[tuple[int, int]]) -> str:
    """Compile for pictures of these widths and heights, and keep the code beside the weights; says where.

    Raises SourceUnavailable without a GPU, and whatever the libraries raise.
    """
    machine = this_machine()
    placement = place("auto", folder, find_card(0), prepared=manifest_of(folder) is not None)
    spec = ModelSpec(name="compiling", source="flux", megapixels=1, compile="on")
    engine = Engine(folder, spec, placement)
    for width, height in sizes:
        engine.warm(width, height)
    file = save_cache(folder, machine, sizes)
    return f"{file}: compiled for torch {machine.torch}, triton {machine.triton}, {machine.gpu}; revision {revision(folder)}"
