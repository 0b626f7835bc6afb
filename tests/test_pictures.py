"""Pictures that people give us: shown as people see them, and refused when they are not pictures, or bombs."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from nightreel_pipelines.pictures import BadPicture, load_any, load_png, save_png

RED, GREEN, BLUE = (200, 30, 40), (30, 160, 60), (20, 40, 190)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "given"


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red left, blue right, so that its orientation can be told."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def near(picture: np.ndarray, y: int, x: int, color: tuple[int, int, int], by: int = 6) -> bool:
    return bool(np.abs(picture[y, x].astype(int) - color).max() <= by)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_usual_kinds_are_read(file: Path, kind: str) -> None:
    quarters().save(file, kind)

    picture = load_any(file)

    assert picture.shape == (32, 64, 3)
    assert picture.dtype == np.uint8
    assert near(picture, 16, 8, RED, by=12)
    assert near(picture, 16, 56, BLUE, by=12)


def test_a_photo_is_shown_upright(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn a quarter clockwise to see it
    quarters().save(file, "JPEG", exif=exif)

    picture = load_any(file)

    assert picture.shape == (64, 32, 3)
    assert near(picture, 8, 16, RED, by=12)
    assert near(picture, 56, 16, BLUE, by=12)


def test_what_is_transparent_is_black(file: Path) -> None:
    image = Image.new("RGBA", (8, 8), (*GREEN, 255))
    image.paste((*RED, 0), (0, 0, 4, 8))
    image.save(file, "PNG")

    picture = load_any(file)

    assert near(picture, 4, 1, (0, 0, 0))
    assert near(picture, 4, 6, GREEN)


def test_a_palette_with_a_transparent_colour_is_black_there(file: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (4, 0, 8, 8))
    image.save(file, "PNG", transparency=0)

    picture = load_any(file)

    assert near(picture, 4, 1, (0, 0, 0))
    assert near(picture, 4, 6, GREEN)


def test_sixteen_bits_of_grey_keep_their_shades(file: Path) -> None:
    shades = np.array([[0, 0x4000, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(shades).save(file, "PNG")

    assert load_any(file)[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]


def test_colours_of_a_profile_are_shown_in_srgb(file: Path) -> None:
    """A profile whose red is sRGB's green, and the other way round."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(file, "PNG", icc_profile=swapped)

    assert near(load_any(file), 4, 4, (0, 255, 0))


def test_a_profile_that_cannot_be_read_counts_as_srgb(file: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"nonsense", lab):
        quarters().save(file, "PNG", icc_profile=profile)
        assert near(load_any(file), 16, 8, RED)


def test_print_colours_become_screen_colours(file: Path) -> None:
    quarters().convert("CMYK").save(file, "JPEG")

    assert near(load_any(file), 16, 8, RED, by=20)


def test_an_animation_is_its_first_picture(file: Path) -> None:
    Image.new("RGB", (8, 8), RED).save(
        file, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)], lossless=True
    )

    assert near(load_any(file), 4, 4, RED)


def test_a_large_picture_is_kept_at_what_the_camera_can_use(file: Path) -> None:
    quarters(8000, 4000).save(file, "PNG")

    picture = load_any(file)

    assert 19.9e6 < picture.shape[0] * picture.shape[1] <= 20.1e6
    assert near(picture, 100, 100, RED)


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(file: Path, side: int) -> None:
    """A PNG that says it has many pixels, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )

    with pytest.raises(BadPicture, match="pixels; 50 megapixels are allowed: make it smaller"):
        load_any(file)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_kind_that_nobody_asked_for_is_never_decoded(file: Path) -> None:
    for kind in ("GIF", "TIFF", "BMP", "PPM", "TGA"):
        quarters().save(file, kind)
        with pytest.raises(BadPicture, match="is not a whole PNG, JPEG or WebP picture"):
            load_any(file)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n"], ids=repr)
def test_what_is_no_picture_is_refused_with_the_mend(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(BadPicture, match=r"is not a whole PNG, JPEG or WebP picture .*: export it again"):
        load_any(file)


def test_a_picture_that_was_cut_off_is_refused(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        Image.fromarray(noise).save(file, kind)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(BadPicture):
            load_any(file)


def whole(kind: str) -> bytes:
    content = io.BytesIO()
    quarters(16, 16).save(content, kind)
    return content.getvalue()


WHOLE = [whole(kind) for kind in ("PNG", "JPEG", "WEBP")]


@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_a_picture_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: list[tuple[int, int]]
) -> None:
    hurt = bytearray(content)
    for at, value in damage:
        hurt[at % len(hurt)] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(hurt)

    try:
        picture = load_any(file)
    except BadPicture:
        return
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


def test_a_keyframe_comes_back_as_it_was_saved(file: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (24, 40, 3), dtype=np.uint8)

    save_png(file, picture)

    assert np.array_equal(load_png(file), picture)
