"""Pictures as files: what keyframes are stored as, and what people give us."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from .base import Picture
from .errors import PipelineError

MAX_GIVEN_MEGAPIXELS = 50.0  # more is refused before it is decoded: a file of a few KB can hold gigabytes
KEPT_MEGAPIXELS = 20.0  # of a given picture: what the camera works on
FORMATS = ("PNG", "JPEG", "WEBP")  # other decoders never see a stranger's bytes
_ALLOWED = f"{MAX_GIVEN_MEGAPIXELS:g} megapixels are allowed"
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # a third larger than the best compression, ten times as fast


class BadPicture(PipelineError):
    """Raised when a file is no picture that can be used; continues a sentence that begins with its address."""


def save_png(path: Path, picture: Picture) -> None:
    """Write uint8 (H, W, 3) RGB as a PNG. Raises OSError."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _FAST)
    if not ok:
        raise OSError(f"cannot encode {path.name} as PNG")
    path.write_bytes(data.tobytes())


def load_png(path: Path) -> Picture:
    """Read a PNG as uint8 (H, W, 3) RGB. Raises OSError when the file is missing or not a picture."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(f"{path} is not a picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def load_any(path: Path) -> Picture:
    """A stranger's picture as people see it: upright, in sRGB, over black where it is transparent.

    Returns uint8 (H, W, 3) of at most 20 megapixels. The first picture of an animation. Raises BadPicture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but harmless headers; the size is checked below
            with Image.open(path, formats=FORMATS) as image:
                _check_size(image)
                return _as_seen(image)
    except BadPicture:
        raise
    except Image.DecompressionBombError as exc:
        raise BadPicture(f"has too many pixels; {_ALLOWED}: make it smaller") from exc
    except Exception as exc:  # decoders raise anything on broken bytes
        raise BadPicture(f"is not a whole PNG, JPEG or WebP picture ({exc}): export it again") from exc


def _check_size(image: Image.Image) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_GIVEN_MEGAPIXELS:
        raise BadPicture(f"has {image.width}x{image.height} pixels; {_ALLOWED}: make it smaller")


def _as_seen(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(_eight_bits(image))
    flat = _flattened(upright)
    seen = _in_srgb(flat, profile) if profile else flat.convert("RGB")
    shrink = (seen.width * seen.height / 1e6 / KEPT_MEGAPIXELS) ** 0.5
    if shrink > 1:
        size = (max(1, round(seen.width / shrink)), max(1, round(seen.height / shrink)))
        seen = seen.resize(size, Image.Resampling.LANCZOS)
    return np.ascontiguousarray(seen, dtype=np.uint8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow keeps 16 bits of grey, and cuts them off above 255 when it converts."""
    if not image.mode.startswith("I"):
        return image
    values = np.clip(np.asarray(image, dtype=np.int64) >> 8, 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def _flattened(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours of a camera or a print as a screen shows them. A profile that cannot be read counts as sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")
    return converted or image.convert("RGB")
