"""Frames -> MP4 through ffmpeg, and the check that the file is what the job asked for.

The worker's parent process checks videos too, so nothing here needs numpy, torch or OpenCV.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from .errors import BadVideo, EncoderFailed

if TYPE_CHECKING:
    from .base import Picture

CHECK_TIMEOUT_S = 900.0  # the longest, largest film that a job may ask for decodes in a fraction of this
POSTER_AT = Fraction(1, 3)  # of the film: past the opening, before the end
POSTER_QUALITY = 3  # ffmpeg's JPEG scale, 2 is best
SAMPLE_RATE = 48_000  # of every film's sound, in Hz
SOUND_FRAME = 1024  # samples in AAC's unit: a sound that is as much too long or too short still fits
LAST_LINES = 8  # of ffmpeg's complaints, that an error quotes
QUIET = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "error")
TO_BT709 = (  # converts the numbers, and tags every frame with what they now mean; x264 writes the tags into the stream
    "scale=in_range=pc:out_range=tv:out_color_matrix=bt709:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
TO_JPEG = "scale=out_range=pc:out_color_matrix=bt601:flags=accurate_rnd+full_chroma_int,format=yuvj420p"


def ffmpeg() -> str:
    """Path of the ffmpeg that imageio-ffmpeg brought, or that IMAGEIO_FFMPEG_EXE names. Raises EncoderFailed."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]  # has no types

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError) as exc:
        raise EncoderFailed(f"no ffmpeg: pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE ({exc})") from exc


class Encoder:
    """One ffmpeg that turns raw frames into a video file: H.264, yuv420p, BT.709, its index in front.

    Equal frames and sounds give equal files on one machine. ffmpeg stays in the caller's process group and ends with it.
    As a context it finishes the file, or aborts it when the body raises.
    """

    def __init__(
        self,
        video: Path,
        *,
        width: int,
        height: int,
        fps: int,
        crf: int,
        preset: str = "medium",
        sound: Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """`video` is overwritten; `preset` is x264's, from ultrafast to veryslow; `sound` is one that `audio.prepare` made;
        `tags` by ffmpeg's names for MP4.

        Raises EncoderFailed.
        """
        self._video = video
        self._size = (height, width, 3)
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0")
        x264 = ("-c:v", "libx264", "-preset", preset, "-crf", str(crf), "-pix_fmt", "yuv420p")
        same = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact")
        said = [word for name, value in (tags or {}).items() for word in ("-metadata", f"{name}={value}")]
        mp4 = (*said, "-movflags", "+faststart", "-f", "mp4", f"file:{video}")
        beside = ("-i", f"file:{sound}", "-map", "0:v:0", "-map", "1:a:0", "-c:a", "copy") if sound else ("-an",)
        command = (ffmpeg(), *QUIET, "-y", *raw, *beside, "-vf", TO_BT709, *x264, *same, *mp4)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish and abort; a file never fills up, as a pipe that nobody reads would
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said)
        assert self._process.stdin is not None
        self._stdin = self._process.stdin

    def write(self, frame: Picture) -> None:
        """Append a frame: uint8 (height, width, 3), RGB, contiguous. Raises EncoderFailed."""
        if frame.shape != self._size:
            raise ValueError(f"a frame is {frame.shape}, the film {self._size}")
        try:
            self._stdin.write(frame.data)
        except BrokenPipeError as exc:
            raise self._failure() from exc

    def finish(self) -> None:
        """Complete the file. Raises EncoderFailed, and leaves no file, when ffmpeg did not take every frame."""
        if self._said.closed:
            return
        try:
            self._stdin.close()
        except BrokenPipeError as exc:
            raise self._failure() from exc
        if self._process.wait() != 0:
            raise self._failure()
        self._said.close()

    def abort(self) -> None:
        """End ffmpeg at once and remove the unfinished file. After `finish` there is nothing to abort."""
        if self._said.closed:
            return
        self._process.kill()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def _failure(self) -> EncoderFailed:
        """What ended ffmpeg, in its own words. It closed its end of the pipe or is gone, so waiting is short."""
        code = self._process.wait()
        self._said.seek(0)
        said = "; ".join(complaints(self._said.read())[-LAST_LINES:])
        self._end()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return EncoderFailed(f"ffmpeg {how} before the last frame of {self._video.name}: {said or 'it said nothing'}")

    def _end(self) -> None:
        """Close everything. The pipe may still hold bytes that nobody wants any more."""
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._said.close()
        self._video.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a video turned out to hold when every frame of it was decoded."""

    frames: int
    width: int
    """Pixels."""
    height: int
    fps: int
    duration_s: float
    sound_s: float | None
    """How long the sound is; None without one."""
    size_bytes: int
    digest: str
    """sha256 (hex) over the checksums of the decoded frames, sound left out: equal pictures have equal digests."""


def check(
    video: Path,
    *,
    width: int,
    height: int,
    fps: int,
    frames: int,
    poster: Path,
    sound: bool = False,
    timeout_s: float = CHECK_TIMEOUT_S,
    tick: Callable[[], None] = lambda: None,
) -> Decoded:
    """Decode the whole video once, and write the JPEG `poster` on the way. Raises BadVideo that says what is wrong.

    `sound` says whether it must have one, which is as long as the pictures, or must have none.

    Raises EncoderFailed when ffmpeg was killed, which says nothing about the video. `tick` is called while frames come
    out of the decoder; what it raises ends the check.
    """
    report = _Report(video, fps)
    try:
        for line in _decode(video, int(frames * POSTER_AT), poster, timeout_s):
            report.read(line)
            tick()
        decoded = report.decoded()
        _compare(decoded, width, height, frames)
        _compare_sound(decoded, sound)
        if not poster.is_file():
            raise BadVideo(f"{video.name}: ffmpeg made no poster of it")
    except BadVideo:
        poster.unlink(missing_ok=True)
        raise
    return decoded


def _decode(video: Path, poster_frame: int, poster: Path, timeout_s: float) -> Iterator[str]:
    """The lines of ffmpeg's framehash report of the video's streams; its first error ends it."""
    poster.unlink(missing_ok=True)
    strict = ("-xerror", "-err_detect", "explode")
    streams = ("-map", "0:v:0", "-map", "0:a?")
    hashes = (*streams, "-fps_mode", "passthrough", "-f", "framehash", "-hash", "murmur3", "pipe:1")
    chosen = ("-map", "0:v:0", "-vf", f"select=eq(n\\,{poster_frame}),{TO_JPEG}", "-frames:v", "1")
    jpeg = ("-q:v", str(POSTER_QUALITY), "-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "image2")
    command = (ffmpeg(), *QUIET, "-y", *strict, "-i", f"file:{video}", *hashes, *chosen, *jpeg)
    with tempfile.TemporaryFile() as said:
        code = yield from lines_of((*command, "-update", "1", f"file:{poster}"), said, timeout_s)
        said.seek(0)
        complained = complaints(said.read())
    if code is None:
        raise BadVideo(f"{video.name}: decoding it took more than {timeout_s:g} s")
    if code < 0:
        raise EncoderFailed(f"ffmpeg was ended by signal {-code} while it decoded {video.name}")
    if code != 0 or complained:
        first = next(iter(complained), f"ffmpeg ended with code {code}")  # the others follow from it
        raise BadVideo(f"{video.name} does not decode: {first}")


def lines_of(command: Sequence[str], said: IO[bytes], timeout_s: float) -> Generator[str, None, int | None]:
    """The output of a command, line by line, then its exit code; None when it took too long."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
    too_long = threading.Timer(timeout_s, process.kill)
    too_long.start()
    try:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                yield line.decode().rstrip()
        code = process.wait()
        return None if too_long.finished.is_set() else code
    finally:
        too_long.cancel()
        process.kill()
        process.wait()


class _Report:
    """Reads ffmpeg's framehash report a line at a time, so that a long film needs no more memory than a short one.

    First come notes, `#tb 0: 1/30` and `#dimensions 0: 64x36`; then, for each frame of pictures (stream 0) or of sound
    (stream 1), `stream, dts, pts, duration, bytes, hash`.
    """

    def __init__(self, video: Path, fps: int) -> None:
        self._video, self._fps = video, fps
        self._notes: dict[str, str] = {}
        self._frames = 0
        self._sound_s: Fraction | None = None
        self._digest = hashlib.sha256()

    def read(self, line: str) -> None:
        """Raises BadVideo for a frame that is shown, or heard, at the wrong time."""
        if line.startswith("#"):
            name, _, value = line[1:].partition(": ")
            self._notes[name] = value
        elif line:
            stream, _, pts, duration, _, checksum = (cell.strip() for cell in line.split(","))
            unit_s = Fraction(self._notes[f"tb {stream}"])
            if stream == "0":
                self._see(int(pts) * unit_s, checksum)
            else:
                self._hear(int(pts) * unit_s, int(duration) * unit_s)

    def _see(self, at_s: Fraction, checksum: str) -> None:
        if at_s * self._fps != self._frames:
            where = f"frame {self._frames} is shown at {float(at_s):.4f} s"
            raise BadVideo(f"{self._video.name}: {where}, which is not {self._fps} fps")
        self._digest.update(f"{checksum}\n".encode())
        self._frames += 1

    def _hear(self, at_s: Fraction, duration_s: Fraction) -> None:
        heard_s = self._sound_s or Fraction(0)
        if abs(at_s - heard_s) * SAMPLE_RATE > 1:
            raise BadVideo(f"{self._video.name}: its sound is not one whole at {float(heard_s):.4f} s")
        self._sound_s = heard_s + duration_s

    def decoded(self) -> Decoded:
        """What the video holds. Raises BadVideo when that is nothing."""
        if not self._frames or "dimensions 0" not in self._notes:
            raise BadVideo(f"{self._video.name}: no frame in it")
        width, height = (int(side) for side in self._notes["dimensions 0"].split("x"))
        return Decoded(
            frames=self._frames,
            width=width,
            height=height,
            fps=self._fps,
            duration_s=self._frames / self._fps,
            sound_s=None if self._sound_s is None else float(self._sound_s),
            size_bytes=self._video.stat().st_size,
            digest=self._digest.hexdigest(),
        )


def _compare(decoded: Decoded, width: int, height: int, frames: int) -> None:
    if (decoded.width, decoded.height) != (width, height):
        raise BadVideo(f"the video is {decoded.width}x{decoded.height}, the job asked for {width}x{height}")
    if decoded.frames != frames:
        raise BadVideo(f"the video has {decoded.frames} frames, the job asked for {frames}")


def _compare_sound(decoded: Decoded, wanted: bool) -> None:
    if decoded.sound_s is None or not wanted:
        if wanted or decoded.sound_s is not None:
            raise BadVideo(
                "the video has no sound, the job asked for one" if wanted else "the video has a sound of its own"
            )
    elif abs(decoded.sound_s - decoded.duration_s) * SAMPLE_RATE > SOUND_FRAME:
        raise BadVideo(f"the video's sound lasts {decoded.sound_s:.3f} s, its pictures {decoded.duration_s:.3f} s")


def samples_of(frames: int, fps: int) -> int:
    """How long the sound of a film is, in samples."""
    return round(Fraction(frames * SAMPLE_RATE, fps))


def complaints(said: bytes) -> list[str]:
    """What ffmpeg wrote to its standard error, line by line."""
    return [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
