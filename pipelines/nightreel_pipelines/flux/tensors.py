"""Files of tensors (safetensors) read and written piece by piece, so that no file is ever in memory whole. No torch here.

A file is 8 bytes with the length of its header, the header as JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # safetensors' own limit
_ALIGNMENT = 8  # of the first tensor, as safetensors writes it
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file."""

    name: str
    file: Path
    dtype: str
    """As safetensors calls it: F32, BF16, F8_E4M3."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * BYTES_OF[self.dtype]


def list_tensors(part: Path) -> dict[str, Stored]:
    """The tensors of one part of a model, by name, in the order of their names.

    Reads the file that the part has, or those that its index names. Raises LookupError when there is none or an index
    lies, ValueError for a file that is damaged or cut off, and OSError.
    """
    found: dict[str, Stored] = {}
    for file in weight_files(part):
        found |= {tensor.name: tensor for tensor in read_header(file)}
    return dict(sorted(found.items()))


def weight_files(part: Path) -> list[Path]:
    """The files that hold a part's tensors. Raises LookupError, ValueError."""
    indexes = sorted(part.glob("*.safetensors.index.json"))
    if indexes:
        names = set(json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(name for name in names if not (part / name).is_file()):
            raise LookupError(f"{part.name} lacks {', '.join(missing[:3])}")
        return [part / name for name in sorted(names)]
    files = sorted(part.glob("*.safetensors"))
    if len(files) != 1:
        raise LookupError(f"{part.name} holds {len(files)} files *.safetensors and no index of them")
    return files


def read_header(file: Path) -> list[Stored]:
    """What a file holds. Raises ValueError when it is damaged or cut off."""
    size_bytes = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size_bytes
        if length > min(size_bytes - _LENGTH.size, _LONGEST_HEADER):
            raise ValueError(f"{file.name} is cut off, or no safetensors file")
        entries = json.loads(opened.read(length))
    entries.pop("__metadata__", None)
    tensors = [_stored(name, file, entry, _LENGTH.size + length) for name, entry in entries.items()]
    if any(tensor.offset + tensor.size_bytes > size_bytes for tensor in tensors):
        raise ValueError(f"{file.name} is cut off")
    return tensors


def _stored(name: str, file: Path, entry: Any, data_at: int) -> Stored:
    try:
        begin, end = (int(each) for each in entry["data_offsets"])
        tensor = Stored(name, file, str(entry["dtype"]), tuple(entry["shape"]), data_at + begin)
        if tensor.size_bytes == end - begin and begin >= 0:
            return tensor
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{file.name}: the header's entry {name} makes no sense") from exc
    raise ValueError(f"{file.name}: the header's entry {name} makes no sense")


def read_into(file: Path, offset: int, target: memoryview) -> None:
    """Fill `target` with a file's bytes from `offset` on. Raises ValueError at the file's end; safe in threads."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        done = 0
        while done < len(target):
            count = os.preadv(descriptor, [target[done : done + (1 << 28)]], offset + done)
            if count == 0:
                raise ValueError(f"{file.name} is cut off")
            done += count
    finally:
        os.close(descriptor)


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The first bytes of a file with these tensors (name, dtype, shape), whose data follow in this order."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape in tensors:
        end = at + prod(shape) * BYTES_OF[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return _LENGTH.pack(len(text)) + text
