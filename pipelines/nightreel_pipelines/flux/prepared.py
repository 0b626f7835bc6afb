"""A folder of prepared weights: its manifest, whether it is finished, and whether it is whole. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import SourceUnavailable

MANIFEST = "nightreel-weights.json"  # written last: a folder that has one is finished
PROGRESS = "nightreel-progress.json"  # written first: a folder that has it and no manifest is not finished
_CHUNK_BYTES = 8 << 20


class File(BaseModel):
    """One file of the folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size_bytes: int
    sha256: str


class Prepared(BaseModel):
    """The manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    source: str
    """A hub id, or a local folder's name."""
    source_revision: str
    """Of the folder that was read, as `revision` computes it."""
    precision: Literal["fp8"] = "fp8"
    recipe: dict[str, str]
    """What was done to the tensors."""
    files: dict[str, File]
    """By path below the folder."""


def manifest_of(folder: Path, *, sizes: bool = True) -> Prepared | None:
    """The folder's manifest; None for a folder that was not prepared.

    Raises SourceUnavailable, with the mend, for one that is unfinished, unreadable, or (if `sizes`) lacks files or holds
    some of another size.
    """
    path = folder / MANIFEST
    if (folder / PROGRESS).exists() and not path.exists():
        raise SourceUnavailable(
            f"{folder} is not finished: give the command `nightreel weights prepare` that began it once more"
        )
    if not path.exists():
        return None
    try:
        manifest = Prepared.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as exc:
        raise SourceUnavailable(f"{path} cannot be read: prepare the weights again") from exc
    for problem in _sizes(folder, manifest) if sizes else ():
        raise SourceUnavailable(f"{folder}: {problem}; prepare the weights again, or copy them there again")
    return manifest


def problems(folder: Path, manifest: Prepared, tick: Callable[[str, int], None]) -> Iterator[str]:
    """What is wrong with the folder's files: missing, of another size, of another content, or nobody's.

    Reads all of them; `tick` gets a file's name and the bytes read just now.
    """
    wrong = dict.fromkeys(name.partition(":")[0] for name in _sizes(folder, manifest))
    yield from _sizes(folder, manifest)
    for name, file in manifest.files.items():
        if name not in wrong and sha256_of(folder / name, lambda count, name=name: tick(name, count)) != file.sha256:  # type: ignore[misc]  # a default in a lambda
            yield f"{name}: its content is not what was prepared"
    known = manifest.files.keys() | {MANIFEST}
    for path in sorted(folder.rglob("*.safetensors*")):
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in known:
            yield f"{name}: not part of what was prepared"


def sha256_of(path: Path, tick: Callable[[int], None] = lambda _: None) -> str:
    """Hex; `tick` gets the bytes read just now."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            tick(len(chunk))
    return digest.hexdigest()


def _sizes(folder: Path, manifest: Prepared) -> Iterator[str]:
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: is missing"
        elif path.stat().st_size != file.size_bytes:
            yield f"{name}: has {path.stat().st_size:,} bytes instead of {file.size_bytes:,}"
