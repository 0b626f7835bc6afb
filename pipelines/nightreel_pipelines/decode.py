"""Clip -> frames through ffmpeg, a frame at a time; and the check that a clip is one. No numpy before a frame is wanted."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .encode import QUIET, complaints, ffmpeg, lines_of
from .errors import BadVideo, EncoderFailed

if TYPE_CHECKING:
    from .base import Picture

HELD_S = Fraction(1, 2)  # that a clip may be too short: its last frame is held, as a shot's end is nearly still anyway
CHECK_TIMEOUT_S = 300.0  # a minute of 4K decodes in a fraction of this


def decoded(clip: Path, *, width: int, height: int, fps: int, count: int) -> Iterator[Picture]:
    """The first `count` frames of a clip at this rate: uint8 (height, width, 3), RGB, only to be read.

    The clip is enlarged until it covers the frame, and its middle is cut out; its sound is left out. ffmpeg runs as long as
    the frames are asked for. Raises BadVideo for one that does not decode, or is more than half a second too short.
    """
    import numpy as np  # the parent checks clips without it

    cover = (
        f"scale={width}:{height}:force_original_aspect_ratio=increase:in_color_matrix=bt709:in_range=tv:out_range=pc"
    )
    filters = f"fps={fps},{cover}:flags=lanczos+accurate_rnd+full_chroma_int,crop={width}:{height}"
    raw = ("-frames:v", str(count), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    command = (ffmpeg(), *QUIET, "-i", f"file:{clip}", "-map", "0:v:0", "-an", "-vf", filters, *raw)
    size_bytes = width * height * 3
    frame: Picture | None = None
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        try:
            for at in range(count):
                data = process.stdout.read(size_bytes)
                if len(data) < size_bytes:
                    frame = _held(frame, clip, count - at, fps, said)
                else:
                    frame = np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)
                yield frame
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _held(last: Picture | None, clip: Path, missing: int, fps: int, said: IO[bytes]) -> Picture:
    """The last frame once more, where the clip has ended a little too soon."""
    if last is None or missing > HELD_S * fps:
        said.seek(0)
        why = next(iter(complaints(said.read())), f"{missing} frames are missing at its end")
        raise BadVideo(f"{clip.name}: the clip cannot be filmed: {why}")
    return last


def check(clip: Path, seconds: int, tick: Callable[[], None] = lambda: None) -> None:
    """Decode a whole clip once. Raises BadVideo when it does not decode, or is more than half a second too short.

    `tick` is called while frames come out of the decoder; what it raises ends the check.
    """
    strict = ("-xerror", "-err_detect", "explode")
    hashes = ("-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framehash", "-hash", "murmur3", "pipe:1")
    unit_s = end_s = Fraction(0)
    with tempfile.TemporaryFile() as said:
        lines = lines_of((ffmpeg(), *QUIET, *strict, "-i", f"file:{clip}", *hashes), said, CHECK_TIMEOUT_S)
        code: int | None = None
        try:
            while True:
                line = next(lines)
                tick()
                if line.startswith("#tb 0: "):
                    unit_s = Fraction(line.removeprefix("#tb 0: "))
                elif line and not line.startswith("#"):
                    _, _, pts, duration, *_ = line.split(",")
                    end_s = (int(pts) + int(duration)) * unit_s
        except StopIteration as exc:
            code = exc.value
        finally:
            lines.close()
        said.seek(0)
        complained = complaints(said.read())
    if code is not None and code < 0:
        raise EncoderFailed(f"ffmpeg was ended by signal {-code} while it decoded {clip.name}")
    if code != 0 or complained:
        raise BadVideo(f"{clip.name} does not decode: {next(iter(complained), f'ffmpeg ended with {code}')}")
    if end_s < seconds - HELD_S:
        raise BadVideo(f"{clip.name} lasts {float(end_s):.2f} s, and {seconds} s were asked for")
