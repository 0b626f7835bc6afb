"""PNG files as a careful reader takes them, without numpy: whole, of the size that was asked for, and nothing but pixels.

The format: PNG (Portable Network Graphics) Specification, third edition, W3C, sections 5 and 9 to 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_RGB, _BITS = 2, 8
_CHANNELS = 3
_FILTERS = 5


class NoPng(Exception):
    """Raised for a file of another kind than asked for; continues a sentence that begins with `the output`."""


class BrokenPng(Exception):
    """Raised for a PNG that was damaged on its way: asking again may help."""


def checked(data: bytes, width: int, height: int) -> bytes:
    """The same picture with its pixels alone: ComfyUI writes the whole workflow, prompt included, into its files.

    Raises NoPng, BrokenPng.
    """
    if len(data) < len(SIGNATURE):
        raise BrokenPng("it was cut off")
    if not data.startswith(SIGNATURE):
        raise NoPng(f"is no PNG ({_kind(data)}): end the workflow in SaveImage or PreviewImage")
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != _HEADER.size or chunks[-1][0] != b"IEND":
        raise BrokenPng("its chunks are not those of a PNG")
    _check_header(chunks[0][1], width, height)
    packed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    _check_pixels(packed, width, height)
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in ((*chunks[0],), (b"IDAT", packed), (b"IEND", b"")))


def _check_header(header: bytes, width: int, height: int) -> None:
    wide, high, bits, colour, _, _, interlaced = _HEADER.unpack(header)
    if (wide, high) != (width, height):
        raise NoPng(
            f"is {wide}x{high}, and {width}x{height} was asked for: title the node that decides the size nightreel:size"
        )
    if (bits, colour, interlaced) != (_BITS, _RGB, 0):
        raise NoPng(
            "is a PNG of another kind than 8-bit RGB without transparency: end the workflow in SaveImage with plain pictures"
        )


def _check_pixels(packed: bytes, width: int, height: int) -> None:
    """That it inflates to exactly its pixels, each row with a filter that exists; reads no byte more than that."""
    row = width * _CHANNELS + 1
    inflate = zlib.decompressobj()
    try:
        pixels = inflate.decompress(packed, row * height + 1)
    except zlib.error as exc:
        raise BrokenPng(f"its pixels do not unpack ({exc})") from exc
    if len(pixels) != row * height or not inflate.eof or max(pixels[::row]) >= _FILTERS:
        raise BrokenPng("its pixels are not as many as its size says")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(data):
        if at + 12 > len(data):
            raise BrokenPng("it was cut off")
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if at + 12 + length > len(data):
            raise BrokenPng("it was cut off")
        if struct.unpack_from(">I", data, at + 8 + length) != (zlib.crc32(kind + body),):
            raise BrokenPng("a checksum does not fit")
        yield kind, body
        at += 12 + length
        if kind == b"IEND":
            return
    raise BrokenPng("it was cut off")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _kind(data: bytes) -> str:
    kinds = {
        b"\xff\xd8": "a JPEG",
        b"RIFF": "a WebP or a video",
        b"GIF8": "a GIF",
        b"<": "a page of HTML",
        b"{": "JSON",
    }
    return next(
        (words for start, words in kinds.items() if data.startswith(start)), f"{len(data):,} bytes of something"
    )
