"""Which tensors of a model become what, and in which files: planned from the source's headers, before any is read.

Big linear weights become 8-bit floats with scales; all other floats become bfloat16, all else stays. Equal sources give
equal plans. No torch here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .tensors import BYTES_OF, Stored, header, list_tensors

SHARD_BYTES = 1_000_000_000
RECIPE = {
    "transformer": r"(single_)?transformer_blocks\..*\.weight",
    "text_encoder_2": r"encoder\.block\..*\.(q|k|v|o|wi|wi_0|wi_1|wo)\.weight",
}
"""Names of the matrices that become float8_e4m3fn, by part."""
_FILES = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}  # others are transformers' models
_FLOATS = {"F64", "F32", "F16", "BF16"}
_SIDES = {"codes": "F8_E4M3", "scales": "F32", "bf16": "BF16"}


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of the prepared folder."""

    name: str
    kind: str
    """codes or scales of a quantized matrix; bf16; copy."""
    source: Stored

    @property
    def dtype(self) -> str:
        return _SIDES.get(self.kind, self.source.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape[:1] if self.kind == "scales" else self.source.shape

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * BYTES_OF[self.dtype]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the prepared folder."""

    name: str
    """Path below the folder."""
    outputs: tuple[Output, ...]
    """In the order of their bytes: the widest numbers first, so that each lies on a multiple of its size."""

    @property
    def header(self) -> bytes:
        return header((each.name, each.dtype, each.shape) for each in self.outputs)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(each.size_bytes for each in self.outputs)


def plan_part(folder: Path, part: str, shard_bytes: int) -> tuple[list[Shard], dict[str, bytes]]:
    """The files of one part, and its index if there are several. Raises LookupError, ValueError, OSError."""
    groups: list[list[Output]] = [[]]
    for tensor in list_tensors(folder / part).values():
        outputs = list(_outputs(part, tensor))
        if groups[-1] and _bytes(groups[-1]) + _bytes(outputs) > shard_bytes:
            groups.append([])
        groups[-1] += outputs
    base = f"{part}/{_FILES.get(part, 'model')}"
    names = [f"{base}-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    if len(groups) == 1:
        names = [f"{base}.safetensors"]
    shards = [Shard(name, _in_order(group)) for name, group in zip(names, groups, strict=True)]
    return shards, {f"{base}.safetensors.index.json": _index(shards)} if len(shards) > 1 else {}


def _outputs(part: str, tensor: Stored) -> Iterator[Output]:
    """What one tensor becomes; a matrix and its scales stay together."""
    if tensor.dtype not in _FLOATS:
        yield Output(tensor.name, "copy", tensor)
    elif len(tensor.shape) == 2 and re.fullmatch(RECIPE.get(part, r"(?!)"), tensor.name):
        yield Output(tensor.name, "codes", tensor)
        yield Output(f"{tensor.name}_scale", "scales", tensor)
    else:
        yield Output(tensor.name, "bf16", tensor)


def _bytes(outputs: list[Output]) -> int:
    return sum(each.size_bytes for each in outputs)


def _in_order(outputs: list[Output]) -> tuple[Output, ...]:
    return tuple(sorted(outputs, key=lambda each: (-BYTES_OF[each.dtype], each.name)))


def _index(shards: list[Shard]) -> bytes:
    """As diffusers and transformers write it."""
    files = {each.name: shard.name.rpartition("/")[2] for shard in shards for each in shard.outputs}
    total = sum(each.size_bytes for shard in shards for each in shard.outputs)
    index: Mapping[str, object] = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    return (json.dumps(index, indent=2) + "\n").encode()
