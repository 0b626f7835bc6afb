"""The keyframe cache: equal recipes are never paid for twice, and a damaged picture is never shown."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nightreel_storage.base import Entry, Store
from nightreel_storage.connect import open_store
from nightreel_storage.folder import FolderStore
from nightreel_storage.keyframes import Keyframe, Keyframes

FOLDER = pytest.mark.parametrize("store_url", ["folder"], indirect=True)  # whose files can be damaged by hand
FINGERPRINT = hashlib.sha256(b"a recipe").hexdigest()


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def keyframes(store: Store) -> Keyframes:
    return Keyframes(store)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    """A keyframe as a renderer leaves it; its content does not matter here."""
    return picture(tmp_path / "made.png", b"picture")


def picture(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def stored_file(tmp_path: Path) -> Path:
    [file] = (tmp_path / "out/.nightreel/keyframes").rglob("*.png")
    return file


def test_a_keyframe_that_nobody_made_is_a_miss(keyframes: Keyframes, tmp_path: Path) -> None:
    assert keyframes.fetch(FINGERPRINT, tmp_path / "got.png") is None
    assert not (tmp_path / "got.png").exists()


def test_a_stored_keyframe_is_copied_with_the_attempt_that_made_it(
    keyframes: Keyframes, png: Path, store: Store, tmp_path: Path
) -> None:
    keyframes.put(FINGERPRINT, png, "run1.b.film.1.1")

    got = keyframes.fetch(FINGERPRINT, tmp_path / "got.png")

    assert got == Keyframe(tmp_path / "got.png", "run1.b.film.1.1")
    assert (tmp_path / "got.png").read_bytes() == b"picture"
    assert [entry.content_type for entry in store.list(".nightreel/keyframes/")] == ["image/png"]


def test_another_recipe_is_another_keyframe(keyframes: Keyframes, png: Path, tmp_path: Path) -> None:
    keyframes.put(FINGERPRINT, png, "run1.b.film.1.1")

    assert keyframes.fetch(FINGERPRINT[:-1] + "x", tmp_path / "got.png") is None


def test_the_first_of_two_equal_keyframes_stays(keyframes: Keyframes, png: Path, tmp_path: Path) -> None:
    keyframes.put(FINGERPRINT, png, "first")

    keyframes.put(FINGERPRINT, picture(tmp_path / "again.png", b"same but for the encoder"), "second")

    assert keyframes.fetch(FINGERPRINT, tmp_path / "got.png") == Keyframe(tmp_path / "got.png", "first")
    assert (tmp_path / "got.png").read_bytes() == b"picture"


@FOLDER
@pytest.mark.parametrize("damage", [b"", b"pict", b"PICTURE", b"picture and more"], ids=repr)
def test_a_damaged_keyframe_is_a_miss_until_the_next_one_mends_it(
    keyframes: Keyframes, png: Path, tmp_path: Path, damage: bytes
) -> None:
    keyframes.put(FINGERPRINT, png, "first")
    stored_file(tmp_path).write_bytes(damage)

    # Then it is not used, and nothing of it lies about
    assert keyframes.fetch(FINGERPRINT, tmp_path / "got.png") is None
    assert not (tmp_path / "got.png").exists()

    # And the next put takes its place
    keyframes.put(FINGERPRINT, png, "second")
    assert keyframes.fetch(FINGERPRINT, tmp_path / "got.png") == Keyframe(tmp_path / "got.png", "second")
    assert stored_file(tmp_path).read_bytes() == b"picture"


class Overtaken(FolderStore):
    """A store in which somebody else mends the keyframe between our look and our put."""

    def get(self, name: str) -> tuple[bytes, Entry]:
        found = super().get(name)
        other = self._root.parent / "other.png"
        Keyframes(FolderStore(self._root)).put(FINGERPRINT, picture(other, b"mended"), "faster")
        return found


@FOLDER
def test_a_keyframe_that_somebody_else_has_just_mended_stays_mended(
    keyframes: Keyframes, png: Path, tmp_path: Path
) -> None:
    keyframes.put(FINGERPRINT, png, "first")
    stored_file(tmp_path).write_bytes(b"damaged")

    Keyframes(Overtaken(tmp_path / "out")).put(FINGERPRINT, png, "slower")

    assert keyframes.fetch(FINGERPRINT, tmp_path / "got.png") == Keyframe(tmp_path / "got.png", "faster")
