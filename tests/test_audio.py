"""A film's sound: as long as its pictures, as loud as asked for, in time; and strangers' files that are none."""

from __future__ import annotations

import os
import re
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nightreel_pipelines import audio as sounds
from nightreel_pipelines.audio import BadSound, prepare
from nightreel_pipelines.encode import SAMPLE_RATE, Decoded, Encoder, check, ffmpeg
from nightreel_pipelines.errors import BadVideo, EncoderFailed
from nightreel_queue.audio import Audio

Wave = npt.NDArray[np.float32]

WIDTH, HEIGHT, FPS, FRAMES = 64, 64, 8, 24
FILM_S = FRAMES / FPS
ADDRESS = "gs://sounds/x"
SINE = "sine=f=440:r=48000:d={seconds}"
LAME_DB = -0.45  # the MP3 encoder makes everything that much softer by itself
CODECS = {
    "a.wav": ("-c:a", "pcm_s16le"),
    "deep.wav": ("-c:a", "pcm_f32le", "-ar", "96000"),
    "a.mp3": ("-c:a", "libmp3lame", "-ar", "44100"),
    "a.flac": (),
    "a.ogg": ("-c:a", "libvorbis"),
    "a.opus": ("-c:a", "libopus"),
    "a.m4a": ("-c:a", "aac", "-b:a", "128k"),
    "lossless.m4a": ("-c:a", "alac"),
    "a.aac": ("-c:a", "aac", "-b:a", "128k"),
}


def run(*arguments: object) -> bytes:
    command = [ffmpeg(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def recorded(path: Path, source: str = SINE, *codec: str, seconds: float = 5.0) -> Path:
    """A file made by one of ffmpeg's own sources."""
    run("-f", "lavfi", "-i", source.format(seconds=seconds), *(codec or CODECS.get(path.name, ())), path)
    return path


def heard(path: Path) -> Wave:
    """(samples, 2) at 48 kHz, full scale 1."""
    return np.frombuffer(run("-i", path, "-map", "0:a", "-f", "f32le", "-"), np.float32).reshape(-1, 2)


def prepared(given: Path, frames: int = FRAMES, fps: int = FPS, **fields: Any) -> Wave:
    """The sound of a film, as a player hears it; without a fade unless one is asked for."""
    sound = given.with_name("sound.m4a")
    audio = Audio.model_validate({"uri": ADDRESS, "fade_out": 0.0} | fields)
    prepare(given, sound, audio, frames=frames, fps=fps)
    assert sorted(given.parent.iterdir()) == sorted([given, sound]), "nothing else is left behind"
    return heard(sound)


def level_db(wave: Wave) -> float:
    """RMS of the first channel, against that of ffmpeg's own sine (1/8 of full scale)."""
    return float(20 * np.log10(np.sqrt(np.mean(wave[:, 0].astype(float) ** 2)) / (0.125 / np.sqrt(2))))


def filmed(folder: Path, name: str, sound: Path | None, frames: int = FRAMES) -> Path:
    video = folder / name
    with Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=18, preset="ultrafast", sound=sound) as encoder:
        for index in range(frames):
            encoder.write(np.full((HEIGHT, WIDTH, 3), 5 * index, dtype=np.uint8))
    return video


def checked(video: Path, sound: bool = True) -> Decoded:
    poster = video.with_suffix(".jpg")
    return check(video, width=WIDTH, height=HEIGHT, fps=FPS, frames=FRAMES, poster=poster, sound=sound)


# What is heard


@pytest.mark.parametrize("name", CODECS)
def test_every_kind_of_file_is_heard_in_full_and_as_loud_as_it_is(tmp_path: Path, name: str) -> None:
    wave = prepared(recorded(tmp_path / name))

    assert len(wave) == FILM_S * SAMPLE_RATE
    assert level_db(wave[2000:-2000]) == pytest.approx(LAME_DB if name == "a.mp3" else 0, abs=0.1)
    assert np.abs(wave[:, 0] - wave[:, 1]).max() < 0.01  # one channel becomes two


def test_of_many_channels_two_are_heard(tmp_path: Path) -> None:
    source = "aevalsrc='0|0|0|0|0.1*sin(2764.6*t)|0':c=5.1:s=48000:d={seconds}"  # at the left, behind

    wave = prepared(recorded(tmp_path / "a.wav", source))

    assert level_db(wave[2000:-2000]) > -20
    assert np.abs(wave[:, 1]).max() < 0.01


def test_what_a_file_is_decides_its_content_and_not_its_name(tmp_path: Path) -> None:
    given = recorded(tmp_path / "a.mp3").rename(tmp_path / "input-0")

    assert level_db(prepared(given)) == pytest.approx(LAME_DB, abs=0.1)


@pytest.mark.parametrize(("frames", "fps"), [(1, 8), (7, 9), (29, 23), (100, 60)])
def test_the_sound_is_as_long_as_the_pictures_to_a_sample(tmp_path: Path, frames: int, fps: int) -> None:
    wave = prepared(recorded(tmp_path / "a.wav"), frames, fps)

    assert len(wave) == round(frames / fps * SAMPLE_RATE)


def test_a_short_file_is_followed_by_silence(tmp_path: Path) -> None:
    wave = prepared(recorded(tmp_path / "a.wav", seconds=1.0))

    assert len(wave) == FILM_S * SAMPLE_RATE
    assert level_db(wave[2000:46000]) == pytest.approx(0, abs=0.1)
    assert np.abs(wave[SAMPLE_RATE + 2000 :]).max() < 1e-4


@pytest.mark.parametrize("gain_db", [-60.0, -6.0, 12.0])
def test_the_gain_is_what_was_asked_for(tmp_path: Path, gain_db: float) -> None:
    wave = prepared(recorded(tmp_path / "a.wav"), gain_db=gain_db)

    assert level_db(wave[2000:-2000]) == pytest.approx(gain_db, abs=1.0 if gain_db == -60 else 0.1)


def test_what_becomes_too_loud_is_clipped_and_does_not_wrap(tmp_path: Path) -> None:
    wave = prepared(recorded(tmp_path / "a.wav"), gain_db=24)

    assert 0.95 < np.abs(wave).max() < 1.3  # AAC overshoots a little
    assert level_db(wave[2000:-2000]) == pytest.approx(18 + 2.3, abs=1.0)  # near that of a square wave of full scale


def test_a_sound_rises_and_falls_in_a_straight_line(tmp_path: Path) -> None:
    # Given a second's rise and two seconds' fall
    wave = prepared(recorded(tmp_path / "a.wav"), fade_in=1, fade_out=2)

    # When its level is taken ten times a second
    parts = wave.reshape(30, -1, 2)
    levels = np.array([np.sqrt(np.mean(part[:, 0].astype(float) ** 2)) for part in parts]) / (0.125 / np.sqrt(2))

    # Then it follows the two lines
    middle = (np.arange(30) + 0.5) / 10
    assert levels == pytest.approx(np.minimum(middle, (3 - middle) / 2), abs=0.03)


def test_a_sound_falls_before_its_own_end_and_for_a_second_unless_asked_otherwise(tmp_path: Path) -> None:
    wave = prepared(recorded(tmp_path / "a.wav", seconds=2.0), fade_out=None)

    assert level_db(wave[2000:46000]) == pytest.approx(0, abs=0.1)
    assert level_db(wave[70000:74000]) == pytest.approx(-6, abs=0.3)
    assert level_db(wave[94500:95500]) < -30


def test_a_sound_shorter_than_its_fade_falls_all_the_way(tmp_path: Path) -> None:
    wave = prepared(recorded(tmp_path / "a.wav", seconds=0.5), fade_out=None)

    assert level_db(wave[11000:13000]) == pytest.approx(-6, abs=0.3)


CLICKS = "aevalsrc='if(lt(mod(t,1),0.002),0.9*gt(t,0.5),0)':s=48000:d={seconds}"


def onsets(wave: Wave) -> Wave:
    """Seconds at which something is heard after silence."""
    loud = np.flatnonzero(np.abs(wave[:, 0]) > 0.3)
    first = np.concatenate([[True], np.diff(loud) > 4800])
    seconds: Wave = (loud[first] / SAMPLE_RATE).astype(np.float32)
    return seconds


def test_start_leaves_out_the_begin_of_the_file(tmp_path: Path) -> None:
    wave = prepared(recorded(tmp_path / "a.wav", CLICKS), start=1.25)

    assert onsets(wave) == pytest.approx([0.75, 1.75, 2.75], abs=0.002)


def test_a_loop_begins_again_at_start(tmp_path: Path) -> None:
    # Given a file of two seconds with one click, at its first second, of which 0.4 s are left out
    wave = prepared(recorded(tmp_path / "a.wav", CLICKS, seconds=2.0), start=0.4, loop=True, frames=40)

    # Then it is heard every 1.6 s, up to the film's end
    assert len(wave) == 5 * SAMPLE_RATE
    assert onsets(wave) == pytest.approx([0.6, 2.2, 3.8], abs=0.002)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.m4a"])
def test_a_click_is_heard_when_it_should_be(tmp_path: Path, name: str) -> None:
    """The encoder's own delay, and that of the file's, are made up for."""
    (tmp_path / "in").mkdir()
    prepared(recorded(tmp_path / "in" / name, CLICKS))

    video = filmed(tmp_path, "film.mp4", tmp_path / "in" / "sound.m4a")

    assert onsets(heard(video)) == pytest.approx([1.0, 2.0], abs=0.002)


# In the film


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    prepared(recorded(tmp_path / "in" / "a.wav"))
    return tmp_path / "in" / "sound.m4a"


def test_a_sound_changes_neither_the_pictures_nor_the_length(tmp_path: Path, sound: Path) -> None:
    silent, loud = filmed(tmp_path, "silent.mp4", None), filmed(tmp_path, "loud.mp4", sound)

    assert checked(silent, sound=False).digest == checked(loud).digest
    assert (checked(silent, sound=False).sound_s, checked(loud).sound_s) == (None, FILM_S)
    assert "Duration: 00:00:03.00" in said_of(silent)
    assert "Duration: 00:00:03.00, start: 0.000000" in said_of(loud)


def said_of(video: Path) -> str:
    return subprocess.run([ffmpeg(), "-hide_banner", "-i", video], capture_output=True, text=True, check=False).stderr


def test_a_film_has_aac_at_48_khz_in_stereo_and_its_index_in_front(tmp_path: Path, sound: Path) -> None:
    video = filmed(tmp_path, "film.mp4", sound)

    assert re.search(r"Audio: aac \(LC\).*, 48000 Hz, stereo", said_of(video))
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_equal_pictures_and_sounds_give_equal_files(tmp_path: Path) -> None:
    films = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prepared(recorded(tmp_path / name / "a.mp3"), loop=True, gain_db=-3, fade_in=0.5)
        films.append(filmed(tmp_path, f"{name}.mp4", tmp_path / name / "sound.m4a").read_bytes())

    assert films[0] == films[1]


def test_a_film_without_the_sound_that_was_asked_for_is_refused(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(BadVideo, match="no sound, the job asked for one"):
        checked(filmed(tmp_path, "silent.mp4", None))
    with pytest.raises(BadVideo, match="a sound of its own"):
        checked(filmed(tmp_path, "loud.mp4", sound), sound=False)


def test_a_film_whose_sound_is_too_short_is_refused(tmp_path: Path, sound: Path) -> None:
    short = tmp_path / "short.m4a"
    run("-i", sound, "-c", "copy", "-t", "2.5", short)

    with pytest.raises(BadVideo, match=r"sound lasts 2\.\d+ s, its pictures 3\.000 s"):
        checked(filmed(tmp_path, "film.mp4", short))


def test_a_film_whose_sound_begins_late_is_refused(tmp_path: Path, sound: Path) -> None:
    late = tmp_path / "late.mp4"
    run("-i", filmed(tmp_path, "film.mp4", sound), "-itsoffset", "0.1", "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", late)  # fmt: skip

    with pytest.raises(BadVideo, match="not one whole"):
        checked(late)


def test_a_film_whose_sound_is_damaged_is_refused(tmp_path: Path, sound: Path) -> None:
    video = filmed(tmp_path, "film.mp4", sound)
    content = bytearray(video.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) * 2 // 3
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    video.write_bytes(content)

    with pytest.raises(BadVideo, match=r"does not decode|not one whole"):
        checked(video)


# Strangers' files


def hostile(folder: Path, name: str) -> Path:
    """A file that is no sound, or not only one."""
    given = folder / "given"
    song = run("-f", "lavfi", "-i", SINE.format(seconds=5), "-f", "mp3", "-")
    match name:
        case "text":
            given.write_text("not a sound")
        case "empty":
            given.touch()
        case "picture":
            run("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", 1, "-f", "image2", "-c:v", "png", given)
        case "silent film":
            filmed(folder, "given", None)
        case "playlist":
            given.write_text(
                f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{folder}/song.mp3\n#EXT-X-ENDLIST\n"
            )
        case "concat":
            given.write_text("ffconcat version 1.0\nfile song.mp3\n")
        case "raw address":
            given.write_text("http://127.0.0.1:9/song.mp3\n")
        case "half of it noise":
            given.write_bytes(song[: len(song) // 2] + np.random.default_rng(1).bytes(len(song) // 2))
        case "cut M4A":
            whole = run("-f", "lavfi", "-i", SINE.format(seconds=5), "-f", "ipod", "-movflags", "frag_keyframe", "-")
            given.write_bytes(whole[:400])
        case "AC-3":
            run("-f", "lavfi", "-i", SINE.format(seconds=5), "-f", "ac3", given)
        case "AC-3 in MP4":
            run("-f", "lavfi", "-i", SINE.format(seconds=5), "-c:a", "ac3", "-f", "mp4", given)
    return given


HOSTILE = ("text", "empty", "picture", "silent film", "playlist", "concat", "raw address", "half of it noise")


@pytest.mark.parametrize("name", [*HOSTILE, "cut M4A", "AC-3", "AC-3 in MP4"])
def test_what_is_no_sound_is_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    given = hostile(tmp_path, name)
    recorded(tmp_path / "song.mp3")
    before = sorted(tmp_path.iterdir())

    with pytest.raises(BadSound, match="export it again") as refused:
        prepare(given, tmp_path / "sound.m4a", Audio(uri=ADDRESS), frames=FRAMES, fps=FPS)

    assert str(tmp_path) not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_ends_before_start_is_refused_with_the_field(tmp_path: Path) -> None:
    with pytest.raises(BadSound, match=r"no sound after 5 s: lower audio\.start"):
        prepared(recorded(tmp_path / "a.wav"), start=5)


def test_a_cover_picture_and_odd_tags_do_no_harm(tmp_path: Path) -> None:
    # Given an MP3 with a cover in front, and rubbish behind
    cover, given = tmp_path / "cover.png", tmp_path / "given"
    run("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", 1, cover)
    song = recorded(tmp_path / "song.mp3")
    run(
        "-i",
        song,
        "-i",
        cover,
        "-map",
        0,
        "-map",
        1,
        "-c",
        "copy",
        "-disposition:v",
        "attached_pic",
        "-f",
        "mp3",
        given,
    )
    given.write_bytes(given.read_bytes() + b"APETAGEX" + bytes(range(256)) * 2)
    for each in (cover, song):
        each.unlink()

    # Then it is heard all the same
    assert level_db(prepared(given)[4000:-2000]) == pytest.approx(LAME_DB, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_a_small_damage_is_heard_and_fails_nothing(tmp_path: Path, name: str) -> None:
    given = recorded(tmp_path / name, seconds=30)
    content = bytearray(given.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = np.random.default_rng(1).bytes(600)
    given.write_bytes(content)

    wave = prepared(given, frames=30 * FPS)

    assert len(wave) == 30 * SAMPLE_RATE
    assert level_db(wave[2000:400_000]) == pytest.approx(LAME_DB if name == "a.mp3" else 0, abs=0.1)


def test_only_as_much_of_a_file_is_decoded_as_the_film_needs(tmp_path: Path) -> None:
    """Hours of silence are a few megabytes of FLAC, and would be gigabytes."""
    given = recorded(tmp_path / "a.flac", "anullsrc=r=48000:cl=stereo:d={seconds}", seconds=300)
    sizes = []

    def counted(raw: Path, *rest: Any) -> None:
        sizes.append(raw.stat().st_size)
        encode(raw, *rest)

    encode = sounds._encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sounds, "_encode", counted)
        wave = prepared(given)

    assert sizes == [pytest.approx(len(wave) * 4, abs=200)]


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "LIMIT_S", 0.5)
    os.mkfifo(tmp_path / "given")  # nobody writes to it

    with pytest.raises(BadSound, match=r"more than 0\.5 s to decode"):
        prepare(tmp_path / "given", tmp_path / "sound.m4a", Audio(uri=ADDRESS), frames=FRAMES, fps=FPS)


def test_an_ffmpeg_that_is_killed_says_nothing_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "ffmpeg"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sounds, "ffmpeg", lambda: str(killed))

    with pytest.raises(EncoderFailed, match="signal 9"):
        prepare(tmp_path / "given", tmp_path / "sound.m4a", Audio(uri=ADDRESS), frames=FRAMES, fps=FPS)


def test_an_ffmpeg_that_complains_without_end_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one that says 20 MB and then fails
    babbling = tmp_path / "ffmpeg"
    babbling.write_text("#!/bin/sh\ntrap '' PIPE\nyes 'this will not do' | head -c 20000000 >&2\nexit 1\n")
    babbling.chmod(0o755)
    monkeypatch.setattr(sounds, "ffmpeg", lambda: str(babbling))

    # When it is asked for a sound, then its first words are told, and not much more is kept
    tracemalloc.start()
    with pytest.raises(BadSound, match="this will not do"):
        prepare(tmp_path / "given", tmp_path / "sound.m4a", Audio(uri=ADDRESS), frames=FRAMES, fps=FPS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000
