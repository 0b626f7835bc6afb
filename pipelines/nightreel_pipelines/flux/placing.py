"""In which numbers a model computes on this machine, and what lies where. No torch here.

FLUX.1 [schnell] has 11.9 billion parameters in the transformer, 3.2 of them in modulation layers, and 4.8 in T5: 34 GB in
bfloat16. As 8-bit floats it takes 16 GiB. In exact bfloat16 a card of 24 GB holds it without its modulation layers, whose
outputs are computed ahead, and with T5 in the host's memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..errors import SourceUnavailable
from .tensors import list_tensors

MATMUL_CAPABILITY = (8, 9)  # Ada and newer multiply 8-bit floats
WORKING_GIB = 4.0  # an allowance for activations and decoding at a megapixel; not measured
MODULATION = re.compile(r"(.*\.norm(1|1_context)?|norm_out)\.linear\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU."""

    name: str
    capability: tuple[int, int]
    memory_gib: float
    """That may be used."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What was decided."""

    precision: str
    """As it stands in recipes: fp32, bf16, or fp8 (multiplied as such), fp8/bf16, fp8/fp32 (kept as such, multiplied as)."""
    device: str
    computed_in: str = "fp32"
    """fp32 or bf16: all that is not 8-bit."""
    matmul: bool = False
    """Whether 8-bit floats are multiplied as such."""
    modulation_on_host: bool = False
    t5_on_host: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a model in bfloat16, in GiB."""

    transformer: float
    modulation: float
    """Part of the transformer."""
    t5: float
    others: float

    @property
    def all(self) -> float:
        return self.transformer + self.t5 + self.others

    @property
    def exact(self) -> float:
        """What the card holds of bf16-exact."""
        return self.transformer - self.modulation + self.others


def sizes_of(folder: Path) -> Sizes:
    """Raises LookupError, ValueError, OSError for a folder that is no whole model."""
    parts = {part: _elements(folder / part) for part in ("transformer", "text_encoder_2", "text_encoder", "vae")}
    modulation = sum(count for name, count in parts["transformer"].items() if MODULATION.fullmatch(name))
    gib = {part: 2 * sum(counts.values()) / 2**30 for part, counts in parts.items()}
    return Sizes(gib["transformer"], 2 * modulation / 2**30, gib["text_encoder_2"], gib["text_encoder"] + gib["vae"])


def place(wanted: str, folder: Path, card: Card | None, *, prepared: bool, beside_gib: float = 0.0) -> Placement:
    """Decide. `wanted`: auto, fp32, bf16, bf16-exact, fp8. `beside_gib`: what lies on the GPU besides, in bfloat16.

    Raises SourceUnavailable, with the mend, for what cannot be.
    """
    if wanted == "fp8" and not prepared:
        raise SourceUnavailable(f"{folder} has no 8-bit weights: nightreel weights prepare {folder} {folder}-fp8")
    if prepared and wanted not in ("auto", "fp8"):
        raise SourceUnavailable(f"{folder} has 8-bit weights: set the precision to auto or fp8, not {wanted}")
    if prepared:
        return _fp8(card)
    if card is None:
        return _on_cpu(wanted)
    return _whole(wanted, card) if wanted in ("fp32", "bf16") else _fitting(wanted, folder, card, beside_gib)


def _fp8(card: Card | None) -> Placement:
    if card is None:
        return Placement("fp8/fp32", "cpu")
    if card.capability >= MATMUL_CAPABILITY:
        return Placement("fp8", "cuda", "bf16", matmul=True)
    return Placement("fp8/bf16", "cuda", "bf16")


def _on_cpu(wanted: str) -> Placement:
    match wanted:
        case "bf16-exact":
            return Placement("bf16", "cpu", "bf16", modulation_on_host=True, t5_on_host=True)
        case "bf16":
            return Placement("bf16", "cpu", "bf16")
        case _:
            return Placement("fp32", "cpu")


def _whole(wanted: str, card: Card) -> Placement:
    return Placement(wanted, "cuda", wanted)


def _fitting(wanted: str, folder: Path, card: Card, beside_gib: float) -> Placement:
    """auto and bf16-exact on a GPU."""
    sizes, besides = sizes_of(folder), WORKING_GIB + beside_gib
    if wanted == "auto" and sizes.all + besides <= card.memory_gib:
        return _whole("bf16", card)
    if sizes.exact + besides <= card.memory_gib:
        t5_on_host = sizes.exact + sizes.t5 + besides > card.memory_gib
        return Placement("bf16", "cuda", "bf16", modulation_on_host=True, t5_on_host=t5_on_host)
    beside = f", {beside_gib:.1f} of it for control checkpoints" if beside_gib else ""
    raise SourceUnavailable(
        f"{folder} needs {sizes.exact + besides:.1f} GiB of GPU memory at least{beside}, {card.name} gives"
        f" {card.memory_gib:.1f}: nightreel weights prepare {folder} {folder}-fp8 makes it half as large"
    )


def _elements(part: Path) -> Mapping[str, int]:
    return {name: prod(tensor.shape) for name, tensor in list_tensors(part).items()}
