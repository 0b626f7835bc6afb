"""Single frames out of a finished video, in small: for contact sheets."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .encode import QUIET, ffmpeg
from .errors import BadVideo

if TYPE_CHECKING:
    from .base import Picture

LIMIT_S = 60.0  # for one video: seeking decodes at most one group of pictures, ten seconds of it


def stills(video: Path, at: Sequence[int], *, fps: int, width: int, height: int) -> list[Picture]:
    """Frames number `at` of a video as uint8 (height, width, 3), RGB. Raises BadVideo, EncoderFailed."""
    inputs = [part for frame in at for part in ("-ss", f"{max(0.0, (frame - 0.5) / fps):.6f}", "-i", f"file:{video}")]
    scale = f"trim=end_frame=1,scale={width}:{height}:flags=area+accurate_rnd:out_range=pc,format=rgb24,setpts=0"
    parts = ";".join(f"[{index}:v:0]{scale}[f{index}]" for index in range(len(at)))
    joined = "".join(f"[f{index}]" for index in range(len(at))) + f"concat=n={len(at)}"
    raw = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    command = (ffmpeg(), *QUIET, *inputs, "-filter_complex", f"{parts};{joined}", *raw)
    try:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise BadVideo(f"{video.name}: taking frames out of it took more than {LIMIT_S:g} s") from exc
    size = width * height * 3
    if done.returncode != 0 or len(done.stdout) != size * len(at):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadVideo(f"{video.name} does not decode: {said[0] if said else 'frames are missing'}")
    return list(np.frombuffer(done.stdout, np.uint8).reshape(len(at), height, width, 3))
