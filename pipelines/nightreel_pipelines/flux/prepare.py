"""A model's folder -> a folder with 8-bit weights, tensor by tensor, in files of about a gigabyte. Imports torch.

Each file is written whole or not at all, and noted in the destination's state; who is killed goes on after the last one
that was noted. The manifest comes last: a folder without it is refused by whoever would load it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..errors import SourceUnavailable
from .dtypes import TORCH_OF, bytes_of
from .fp8 import quantize
from .prepared import MANIFEST, PROGRESS, File, Prepared, manifest_of, sha256_of
from .revision import revision
from .shards import RECIPE, SHARD_BYTES, Output, Shard, plan_part
from .tensors import Stored, read_into

_NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".gguf"}


@dataclass(frozen=True, slots=True)
class Step:
    """Some bytes of the source have been dealt with."""

    file: str
    """That is being written."""
    done_bytes: int
    """Of the source, those of files that were there already included."""
    all_bytes: int
    finished: bool = False
    """The file is in its place now."""
    resumed: bool = False
    """It was there already."""


@dataclass(slots=True)
class Steps:
    """Counts within one file."""

    file: str
    done_bytes: int
    all_bytes: int
    heard: Callable[[Step], None]

    def add(self, count: int) -> None:
        self.done_bytes += count
        self.heard(Step(self.file, self.done_bytes, self.all_bytes))


class Target(Protocol):
    """Where the prepared files go."""

    def scratch(self) -> Path:
        """A local folder for a file in the making."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file, or None."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, or replace it, whole or not at all."""
        ...

    def add(self, name: str, file: Path) -> None:
        """Move a file out of the scratch folder to its place, whole or not at all."""
        ...

    def is_empty(self) -> bool: ...


class Preparation:
    """One source on its way to one target. Raises SourceUnavailable for a source or target that cannot be used."""

    def __init__(self, folder: Path, name: str, target: Target, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._target = folder, target
        self._shards, self._small = _plan(folder, shard_bytes)
        self._manifest = Prepared(
            source=name,
            source_revision=revision(folder),
            recipe=RECIPE | {"format": "float8_e4m3fn, float32 scale a row", "torch": torch.__version__.split("+")[0]},
            files={},
        )
        shape = [self._manifest.model_dump_json(), *(f"{shard.name} {shard.size_bytes}" for shard in self._shards)]
        self._id = hashlib.sha256("\n".join(shape).encode()).hexdigest()

    def run(self, heard: Callable[[Step], None]) -> Prepared:
        """Write what is missing. Raises SourceUnavailable, and OSError or the target's errors for what it cannot write."""
        if finished := self._finished():
            return finished
        state = self._state()
        all_bytes, done = sum(_read_bytes(shard) for shard in self._shards), 0
        for shard in self._shards:
            known = shard.name in state
            if not known:
                state[shard.name] = self._write(shard, Steps(shard.name, done, all_bytes, heard))
                self._note(state)
            done += _read_bytes(shard)
            heard(Step(shard.name, done, all_bytes, finished=True, resumed=known))
        for name, data in self._small.items():
            self._target.write(name, data)
            state[name] = File(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest = self._manifest.model_copy(update={"files": dict(sorted(state.items()))})
        self._target.write(MANIFEST, _pretty(manifest))
        return manifest

    def _finished(self) -> Prepared | None:
        """The manifest of a target that holds just this already. Raises SourceUnavailable when it holds other weights."""
        found = self._target.read(MANIFEST)
        if found is None:
            return None
        manifest = Prepared.model_validate_json(found)
        if manifest.model_copy(update={"files": {}}) != self._manifest:
            raise SourceUnavailable(
                f"the destination holds other weights: {manifest.source}, revision {manifest.source_revision}; name another"
            )
        return manifest

    def _state(self) -> dict[str, File]:
        """The files that are there. Raises SourceUnavailable when they are not ours."""
        found = self._target.read(PROGRESS)
        if found is None:
            if not self._target.is_empty():
                raise SourceUnavailable("the destination is not empty: name another, or empty it")
            self._note({})
            return {}
        state = json.loads(found)
        if state.get("id") != self._id:
            raise SourceUnavailable(
                "the destination holds the beginning of another preparation (another source, shard size or torch): "
                "name another, or empty it"
            )
        return {name: File.model_validate(each) for name, each in state["files"].items()}

    def _note(self, files: dict[str, File]) -> None:
        state = {"id": self._id, "files": {name: each.model_dump() for name, each in files.items()}}
        self._target.write(PROGRESS, (json.dumps(state, indent=2) + "\n").encode())

    def _write(self, shard: Shard, steps: Steps) -> File:
        """Make one file and put it into its place."""
        draft = self._target.scratch() / shard.name.replace("/", "--")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            _write_at(descriptor, 0, shard.header)
            for count in _write_tensors(descriptor, shard):
                steps.add(count)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        file = File(size_bytes=draft.stat().st_size, sha256=sha256_of(draft))
        self._target.add(shard.name, draft)
        return file


class FolderTarget:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def scratch(self) -> Path:
        scratch = self._folder / ".nightreel"  # hidden: no part of the weights, and on the same disk
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def read(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.scratch(), delete=False) as draft:
            draft.write(data)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).chmod(0o644)
        self.add(name, Path(draft.name))

    def add(self, name: str, file: Path) -> None:
        place = self._folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
        descriptor = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name, too, survives a power cut
        finally:
            os.close(descriptor)

    def is_empty(self) -> bool:
        return not self._folder.exists() or all(path.name == ".nightreel" for path in self._folder.iterdir())


def read_tensor(stored: Stored) -> torch.Tensor:
    """A tensor of its own memory, as the file has it."""
    tensor = torch.empty(stored.shape, dtype=TORCH_OF[stored.dtype])
    read_into(stored.file, stored.offset, bytes_of(tensor))
    return tensor


def _plan(folder: Path, shard_bytes: int) -> tuple[list[Shard], dict[str, bytes]]:
    """All files with tensors, and all others with their contents; the index of the model comes last."""
    if manifest_of(folder) is not None:
        raise SourceUnavailable(f"{folder} is prepared already")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts = sorted(name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None)
        shards, small = [], dict[str, bytes]()
        for part in parts:
            if any((folder / part).glob("*.safetensors")):
                files, indexes = plan_part(folder, part, shard_bytes)
                shards += files
                small |= indexes
            small |= {f"{part}/{path.name}": path.read_bytes() for path in _notes(folder / part)}
        small |= {path.name: path.read_bytes() for path in _notes(folder)}
    except (OSError, ValueError, LookupError, AttributeError) as exc:
        raise SourceUnavailable(f"{folder} is no whole model in diffusers' layout: {exc}") from exc
    return shards, dict(sorted(small.items(), key=lambda item: (item[0] == "model_index.json", item[0])))


def _notes(folder: Path) -> Iterator[Path]:
    """Configurations, vocabularies, licences: what is copied as it is."""
    for path in sorted(folder.iterdir()):
        weights = path.suffix in _NOT_COPIED or path.name.endswith(".index.json")
        if path.is_file() and not path.name.startswith(".") and not weights:
            yield path


def _write_tensors(descriptor: int, shard: Shard) -> Iterator[int]:
    """Read each tensor once and write what becomes of it; yields the bytes that were read."""
    at, places = len(shard.header), dict[str, int]()
    for output in shard.outputs:
        places[output.name] = at
        at += output.size_bytes
    for output in sorted(shard.outputs, key=lambda each: each.name):
        if output.kind == "scales":
            continue
        tensor = read_tensor(output.source)
        for name, made in _convert(output, tensor):
            _write_at(descriptor, places[name], bytes_of(made.contiguous()))
        yield output.source.size_bytes


def _convert(output: Output, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if output.kind == "copy":
        yield output.name, tensor
    elif output.kind == "bf16":
        yield output.name, tensor.to(torch.bfloat16)
    else:
        try:
            codes, scales = quantize(tensor)
        except ValueError as exc:
            raise SourceUnavailable(f"{output.source.file}: {output.name} {exc}; copy the model there again") from exc
        yield output.name, codes
        yield f"{output.name}_scale", scales


def _write_at(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _read_bytes(shard: Shard) -> int:
    """Of the source."""
    return sum(each.source.size_bytes for each in shard.outputs if each.kind != "scales")


def _pretty(manifest: Prepared) -> bytes:
    return (manifest.model_dump_json(indent=2) + "\n").encode()
