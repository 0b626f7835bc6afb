"""Pictures and sounds on the user's own disk: a manifest names them by path, a job by content.

Only whoever reads the user's own manifests may look at local files: a manifest from elsewhere would read ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path as FilePath

from .problems import ADDRESS, forms_at
from .trees import Path, Tree

MAX_FILE_MB = 200.0
HEAD_BYTES = 16  # enough to tell what a file is

_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters at least: C: is a drive
_PICTURES: dict[str, re.Pattern[bytes]] = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
_SOUNDS: dict[str, re.Pattern[bytes]] = {
    "wav": re.compile(rb"RIFF....WAVE", re.DOTALL),
    "flac": re.compile(rb"fLaC"),
    "ogg": re.compile(rb"OggS"),
    "m4a": re.compile(rb"....ftyp", re.DOTALL),
    "mp3": re.compile(rb"ID3|\xff[\xe2-\xff]"),
}


class LocalFiles:
    """The local files that one manifest names. `folder` is where its paths begin."""

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self.found: dict[str, FilePath] = {}
        """Paths by address."""
        self._known: dict[tuple[str, bool], str | _Unusable] = {}

    def by_content(self, tree: Tree) -> tuple[Tree, list[tuple[Path, str]]]:
        """A job with addresses of contents in place of paths, and what is wrong with which field's file."""
        wrong: list[tuple[Path, str]] = []

        def address(text: str, path: Path) -> str:
            try:
                return self._address(text, path[-1] == "image")
            except _Unusable as exc:
                wrong.append((path, str(exc)))
                return "input:sha256:" + "0" * 64 + ".none"  # a sound one: the file is what is wrong

        for path in _address_paths():
            tree = _replaced(tree, path, (), address)
        return tree, wrong

    def _address(self, text: str, picture: bool) -> str:
        known = self._known.get((text, picture))
        if known is None:
            known = self._known[text, picture] = self._look(text, picture)
        if isinstance(known, _Unusable):
            raise known
        return known

    def _look(self, text: str, picture: bool) -> str | _Unusable:
        path = self.folder / text
        try:
            if path.is_dir():
                return _Unusable(f"{path} is a folder: name a file")
            if not path.is_file() and path.exists():
                return _Unusable(f"{path} is no ordinary file: name one")
            size_mb = path.stat().st_size / 1e6
            if size_mb > MAX_FILE_MB:
                return _Unusable(f"{path} has {size_mb:,.0f} MB; {MAX_FILE_MB:g} are allowed: make it smaller")
            with path.open("rb") as file:
                kind = _kind(file.read(HEAD_BYTES), picture)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as exc:
            words = exc.strerror if isinstance(exc, OSError) else str(exc)
            return _Unusable(f"{path} cannot be read ({words}): check the path; it begins at the manifest's folder")
        if kind is None:
            wanted = "PNG, JPEG or WebP picture" if picture else "WAV, MP3, M4A, FLAC or Ogg sound"
            return _Unusable(f"{path} is not a {wanted}: save it as one")
        address = f"input:sha256:{digest}.{kind}"
        self.found[address] = path
        return address


class _Unusable(Exception):
    """Raised when a local file cannot be an input."""


def _kind(head: bytes, picture: bool) -> str | None:
    kinds = _PICTURES if picture else _SOUNDS
    return next((kind for kind, form in kinds.items() if form.match(head)), None)


def _replaced(tree: Tree, path: Path, at: Path, address: Callable[[str, Path], str]) -> Tree:
    """The tree with local paths at `path` replaced; 0 in the path stands for every item."""
    if not path:
        if isinstance(tree.value, str) and tree.value.strip() and not _HAS_SCHEME.match(tree.value):
            return Tree(address(tree.value, at), tree.line, tree.field)
        return tree
    step, rest = path[0], path[1:]
    if step == 0 and isinstance(tree.value, tuple):
        items = [_replaced(item, rest, (*at, index), address) for index, item in enumerate(tree.value)]
        changed = any(new is not old for new, old in zip(items, tree.value, strict=True))
        return Tree(tuple(items), tree.line, tree.field) if changed else tree
    if isinstance(step, str) and isinstance(tree.value, dict) and step in tree.value:
        old = tree.value[step]
        new = _replaced(old, rest, (*at, step), address)
        return tree if new is old else Tree(tree.value | {step: new}, tree.line, tree.field)
    return tree


@cache
def _address_paths() -> tuple[Path, ...]:
    """Where a job may have an address that workers fetch; 0 stands for every item of a list."""
    return tuple(_below(()))


def _below(path: Path) -> Iterator[Path]:
    for form in forms_at(path):
        if form.get("pattern") == ADDRESS:
            yield path
        for name in form.get("properties", {}):
            yield from _below((*path, name))
        if "items" in form:
            yield from _below((*path, 0))
