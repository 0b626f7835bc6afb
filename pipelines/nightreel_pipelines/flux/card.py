"""The GPU that there is. Imports torch."""

from __future__ import annotations

import torch

from .placing import Card


def find_card(limit_gib: float) -> Card | None:
    """The first CUDA device that is visible, or None. A limit above 0 is kept to by torch from now on, in this process."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    memory_gib = properties.total_memory / 2**30
    if 0 < limit_gib < memory_gib:
        torch.cuda.set_per_process_memory_fraction(limit_gib / memory_gib)
        memory_gib = limit_gib
    return Card(properties.name, (properties.major, properties.minor), memory_gib)
