"""A stranger's sound file -> the sound of one film: AAC of exactly its length, to be put beside the pictures as it is.

Two runs of ffmpeg. The first decodes what a stranger gave us, held on a short leash: it opens this one file, no playlist
and nothing that is named in it, knows a few formats and decoders only, and ends within its time. The second one mixes and
encodes what the first has made.
"""

from __future__ import annotations

import subprocess
import threading
import wave
from pathlib import Path

from nightreel_queue.audio import Audio

from .encode import QUIET, SAMPLE_RATE, complaints, ffmpeg, samples_of
from .errors import EncoderFailed, PipelineError

BITRATE = "192k"
LIMIT_S = 120.0  # for each run; an hour of MP3 decodes in a few seconds
DAMAGED = 0.02  # share of a file that may fail to decode: odd tags between the frames of an MP3 are usual, and harmless
SAID_BYTES = 65536  # of complaints that are read: a hostile file may cause gigabytes
LARGEST_BLOCK = 2**28  # bytes that a decoder may ask for at once
FORMATS = "wav,mp3,flac,ogg,mov,aac"  # mov: M4A too
DECODERS = (
    "pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,mp3,mp3float,flac,vorbis,libvorbis,opus,libopus,aac,alac"
)
TWICE = "pan=stereo|c0=c0|c1=c0"  # one channel is heard on both sides as loud as it is; ffmpeg's own way is 3 dB softer


class BadSound(PipelineError):
    """Raised when a file is no sound that can be used; continues a sentence that begins with its address."""


def prepare(given: Path, sound: Path, audio: Audio, *, frames: int, fps: int) -> None:
    """Write `sound`, an MP4 of AAC in 48 kHz stereo, for a film of `frames`. Raises BadSound, EncoderFailed, OSError."""
    wanted = samples_of(frames, fps)
    raw = sound.with_suffix(".wav")
    try:
        _decode(given, raw, audio, wanted)
        with wave.open(str(raw)) as decoded:
            found, channels = decoded.getnframes(), decoded.getnchannels()
        if not found:
            after = f" after {audio.start:g} s: lower audio.start" if audio.start else ": export it again"
            raise BadSound(f"has no sound{after}")
        heard = wanted if audio.loop else min(found, wanted)
        _encode(raw, sound, audio, TWICE if channels == 1 else "", heard, wanted)
    finally:
        raw.unlink(missing_ok=True)


def _decode(given: Path, raw: Path, audio: Audio, wanted: int) -> None:
    """What is heard of a file, made louder, in one channel or two: at most `wanted` samples. Pictures are left out."""
    leash = ("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS, "-codec_whitelist", DECODERS)
    limits = ("-max_alloc", str(LARGEST_BLOCK), "-max_error_rate", str(DAMAGED))
    first = round(audio.start * SAMPLE_RATE)
    chosen = f"asetpts=N/SR/TB,atrim=start_sample={first}:end_sample={first + wanted},asetpts=N/SR/TB"
    louder = f"volume={audio.gain_db}dB:precision=float,aformat=channel_layouts=mono|stereo"
    filters = ("-map", "0:a:0", "-af", f"aresample={SAMPLE_RATE},{chosen},{louder}", "-c:a", "pcm_s16le", "-f", "wav")
    code, said = _run(*limits, *leash, "-i", f"file:{given}", *filters, f"file:{raw}")
    if code is None:
        raise BadSound(f"takes more than {LIMIT_S:g} s to decode: export it again")
    if code != 0:
        why = next(iter(said), f"ffmpeg ended with code {code}").replace(str(given), "the file")
        raise BadSound(f"is not a whole WAV, MP3, FLAC, Ogg, M4A or AAC file ({why}): export it again")


def _encode(raw: Path, sound: Path, audio: Audio, mixing: str, heard: int, wanted: int) -> None:
    """Repeat or fill up with silence to `wanted` samples, and fade; `heard` of them are sound."""
    again = ("-stream_loop", "-1") if audio.loop else ()
    filters = [f"atrim=end_sample={heard}", *filter(None, [mixing])]
    if rising := round(audio.fade_in * SAMPLE_RATE):
        filters.append(f"afade=t=in:ns={rising}")
    if falling := round(audio.fade_out_s(heard / SAMPLE_RATE) * SAMPLE_RATE):
        filters.append(f"afade=t=out:ss={heard - falling}:ns={falling}")
    filters.append(f"apad=whole_len={wanted}")
    same = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
    aac = ("-af", ",".join(filters), "-c:a", "aac", "-b:a", BITRATE, *same, "-f", "mp4")
    code, said = _run(*again, "-i", f"file:{raw}", *aac, f"file:{sound}")
    if code != 0:
        raise EncoderFailed(f"ffmpeg could not encode the sound: {'; '.join(said) or f'code {code}'}")


def _run(*arguments: str) -> tuple[int | None, list[str]]:
    """How an ffmpeg ended, None when it took too long, and its complaints. Raises EncoderFailed when it was killed."""
    command = (ffmpeg(), *QUIET, "-y", *arguments)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    too_long = threading.Timer(LIMIT_S, process.kill)
    too_long.start()
    try:
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read(SAID_BYTES)
        code = process.wait()
        if too_long.finished.is_set():
            return None, []
    finally:
        too_long.cancel()
        process.kill()
        process.wait()
    if code < 0:
        raise EncoderFailed(f"ffmpeg was ended by signal {-code} while it made the sound")
    return code, complaints(said)
