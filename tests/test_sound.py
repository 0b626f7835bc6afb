"""Jobs with a sound: fetched, heard, refused before anything is drawn, and still there when a worker was killed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from house import House, job, kill, until, verdict
from web_servers import Server, says

from nightreel_pipelines.encode import ffmpeg
from nightreel_queue.job import Job


def tone(seconds: float = 5.0) -> bytes:
    source = f"sine=f=440:r=48000:d={seconds}"
    command = [ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, "-f", "flac", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(says(200, tone())) as server:
        yield server


@pytest.fixture
def open_house(house: House, web: Server) -> House:
    """That takes files from this server."""
    house.environment |= {"NIGHTREEL_INPUT_HTTPS": "true", "NIGHTREEL_TRUSTED_HOSTS": web.host}
    return house


def sounding(id_: str, url: str, *prompts: str, **audio: Any) -> Job:
    return job(id_, *(prompts or ("first", "second")), audio={"uri": url, "fade_out": 0.0} | audio)


def heard(house: House, name: str) -> npt.NDArray[np.float32]:
    """The first channel of a stored video's sound."""
    video = house.folder / "look.mp4"
    video.write_bytes(house.store.get(f"{house.batch}/{name}.mp4")[0])
    command = [ffmpeg(), "-v", "error", "-i", str(video), "-map", "0:a", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)[::2]


def rms(wave: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(wave.astype(float) ** 2)))


def test_a_job_gets_its_sound_and_the_receipt_says_which_it_was(open_house: House, web: Server) -> None:
    open_house.enqueue(sounding("film", web.url))

    run = open_house.work()

    assert run.code == 0, run.err
    verdict(open_house, "film")
    wave = heard(open_house, "film")
    assert len(wave) == 48_000
    assert rms(wave[2000:-2000]) == pytest.approx(0.125 / 2**0.5, rel=0.02)
    made = open_house.receipt("film").made
    assert made is not None
    assert made.inputs == (hashlib.sha256(tone()).hexdigest(),)


def test_another_sound_renders_no_picture_again_and_leaves_the_pictures_as_they_are(
    open_house: House, web: Server
) -> None:
    # Given a film with a sound
    open_house.enqueue(sounding("film", web.url, "first", "second"))
    assert open_house.work().code == 0

    # When it is made softer, and without one
    silent = job("silent", "first", "second")
    open_house.enqueue(sounding("softer", web.url, gain_db=-20), silent)
    assert open_house.work().code == 0

    # Then nothing is drawn for that, and the pictures are the same
    verdict(open_house, "film", "softer", "silent")
    assert sorted(open_house.rendered()) == ["first", "second"]
    videos = [open_house.receipt(name).video for name in ("film", "softer", "silent")]
    assert len({video.digest for video in videos if video}) == 1
    assert rms(heard(open_house, "softer")) < 0.2 * rms(heard(open_house, "film"))
    assert len({open_house.receipt(name).fingerprint for name in ("film", "softer", "silent")}) == 3


def test_a_file_that_is_no_sound_fails_its_job_before_anything_is_drawn(open_house: House) -> None:
    with Server(says(200, b"#EXTM3U\nfile:///etc/passwd\n")) as web:
        open_house.environment["NIGHTREEL_TRUSTED_HOSTS"] = web.host
        open_house.enqueue(sounding("film", web.url), job("other", "x"))

        assert open_house.work().code == 0

    verdict(open_house, "film", "other", failed=["film"])
    reason = open_house.receipt("film").reason
    assert reason.startswith(f"audio.uri: {web.url} is not a whole WAV, MP3, FLAC, Ogg, M4A or AAC file (")
    assert reason.endswith("): export it again")
    assert open_house.rendered() == ["x"]
    assert len(open_house.attempts("film")) == 1


def test_a_sound_from_where_none_is_taken_is_refused_by_its_field(house: House, web: Server) -> None:
    house.enqueue(sounding("film", web.url))

    assert house.work().code == 0

    verdict(house, "film", failed=["film"])
    assert house.receipt("film").reason.startswith("audio.uri: this worker takes no files from the web")
    assert web.clients == 0


def test_a_worker_that_is_killed_in_mid_film_leaves_a_job_that_still_gets_its_sound(
    open_house: House, web: Server
) -> None:
    # Given a worker that has filmed the first shot and waits for the second
    open_house.enqueue(sounding("film", web.url, "first", "slow once"))
    process = open_house.start()
    until(lambda: list(Path(open_house.scratch).rglob("video.mp4")), "the film to begin", process)

    # When it is killed, and another one comes
    kill(process)
    run = open_house.work_all()

    # Then the film is there, with its sound
    assert run.code == 0, run.err
    verdict(open_house, "film", again={"slow once": 1, "first": 1})
    assert rms(heard(open_house, "film")[2000:-2000]) == pytest.approx(0.125 / 2**0.5, rel=0.02)


def test_a_picture_that_is_named_as_a_sound_too_is_no_sound(open_house: House, web: Server) -> None:
    shots = [{"prompt": "x", "duration": 0.5, "init": {"image": web.url}}]
    open_house.enqueue(job("film", shots=shots, audio={"uri": web.url}))

    assert open_house.work().code == 0

    assert "is not a whole PNG" in open_house.receipt("film").reason
    assert len(web.requests) == 1
