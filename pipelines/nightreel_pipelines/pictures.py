"""Pictures as lossless files: what a keyframe is stored as, and what every film starts from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .base import Picture

_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # a third larger than the best compression, ten times as fast


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
