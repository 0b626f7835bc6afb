"""Pictures that a job names: fetched from where the operator allows, shown, and refused before anything is drawn."""

from __future__ import annotations

import hashlib
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from house import House, job, kill, until, verdict
from PIL import Image
from places import Places
from web_servers import Server, says

from nightreel_queue.job import Job
from nightreel_worker.errors import Forbidden, Refused, TooLarge
from nightreel_worker.inputs import Inputs, Rules
from nightreel_worker.web import Web

RED, BLUE = (200, 30, 40), (20, 40, 190)


def picture(color: tuple[int, int, int] = RED, size: tuple[int, int] = (96, 96)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, "PNG")
    return content.getvalue()


def showing(id_: str, *shots: dict[str, Any] | str) -> Job:
    """A job whose shots are prompts, or pictures that are there."""
    whole = [{"prompt": shot} if isinstance(shot, str) else shot for shot in shots]
    return job(id_, shots=[{"duration": 0.5, "motion": "still"} | shot for shot in whole])


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(says(200, picture())) as server:
        yield server


def allow(house: House, **settings: str) -> None:
    house.environment |= {f"NIGHTREEL_{name.upper()}": value for name, value in settings.items()}


def colors(house: House, name: str) -> list[list[int]]:
    """RGB in the middle of the video's first and last frame."""
    video = house.folder / "look.mp4"
    video.write_bytes(house.store.get(f"{house.batch}/{name}.mp4")[0])
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1][32, 32, ::-1].tolist())
    return [frames[0], frames[-1]]


def near(seen: list[int], wanted: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.array(seen) - wanted).max() < 12)


def test_pictures_from_the_web_are_shown_beside_drawn_ones(house: House, web: Server) -> None:
    allow(house, input_https="true", trusted_hosts=web.host)
    house.enqueue(showing("film", "first", {"image": web.url + "red.png"}))

    run = house.work()

    assert run.code == 0, run.err
    verdict(house, "film")
    assert near(colors(house, "film")[1], RED)
    assert house.rendered() == ["first"]
    made = house.receipt("film").made
    assert made is not None
    assert made.inputs == (hashlib.sha256(picture()).hexdigest(),)


def test_a_film_of_given_pictures_alone_loads_no_model(make_house: Callable[..., House], web: Server) -> None:
    house = make_house(load="die")  # would end the run
    allow(house, input_https="true", trusted_hosts=web.host)
    house.enqueue(showing("film", {"image": web.url}))

    assert house.work().code == 0
    verdict(house, "film")


def test_pictures_from_an_allowed_bucket_are_shown(
    cloud: Callable[[], Places], make_house: Callable[..., House]
) -> None:
    """Whatever they are called there: only our own objects have to have plain names."""
    house = make_house(cloud())
    bucket = house.places.store_url.split("/")[2]
    allow(house, input_buckets=f"elsewhere, {bucket}")
    names = ["films/plain.png", "Übersicht (1) #2.png"]
    for name, color in zip(names, (RED, BLUE), strict=True):
        upload(house, bucket, name, picture(color))
    house.enqueue(showing("film", *({"image": f"gs://{bucket}/{name}"} for name in names)))

    run = house.work_all()

    assert run.code == 0, run.err
    verdict(house, "film")
    assert near(colors(house, "film")[0], RED)
    assert near(colors(house, "film")[1], BLUE)


def upload(house: House, bucket: str, name: str, content: bytes) -> None:
    from google.cloud.storage import Client

    Client(project="demo").bucket(bucket).blob(name).upload_from_string(content)


def test_jobs_whose_pictures_cannot_be_had_fail_with_the_place_and_the_mend(
    cloud: Callable[[], Places], make_house: Callable[..., House], web: Server
) -> None:
    house = make_house(cloud())
    bucket = house.places.store_url.split("/")[2]
    allow(house, input_buckets=bucket, input_https="true", input_max_mb="0.01", trusted_hosts=web.host)
    upload(house, bucket, "large.png", bytes(20_000))
    upload(house, bucket, "text.png", b"not a picture")
    upload(house, bucket, "bomb.png", picture(size=(9000, 9000))[:9000])
    cases = {
        "other": ("gs://other-bucket/x.png", "takes no files from gs://other-bucket: use an allowed bucket"),
        "missing": (f"gs://{bucket}/missing.png", "there is no gs://"),
        "large": (f"gs://{bucket}/large.png", "has 20,000 bytes; 10,000 are allowed"),
        "text": (f"gs://{bucket}/text.png", "is not a whole PNG, JPEG or WebP picture"),
        "bomb": (f"gs://{bucket}/bomb.png", "megapixels are allowed: make it smaller"),
        "private": ("https://192.168.0.1/x.png", "192.168.0.1"),
        "plain": ("http://example.com/x.png", "only https"),
    }
    house.enqueue(*(showing(name, "drawn", {"image": address}) for name, (address, _) in cases.items()))

    run = house.work_all()

    assert run.code == 0, run.err
    verdict(house, *cases, failed=[*cases])
    for name, (_, words) in cases.items():
        assert house.receipt(name).reason.startswith("shots[1].image: "), house.receipt(name).reason
        assert words in house.receipt(name).reason
    assert house.rendered() == []  # nothing was drawn for them


def test_without_permission_nothing_is_asked(house: House, web: Server) -> None:
    allow(house, trusted_hosts=web.host)
    house.enqueue(showing("film", {"image": web.url}))

    assert house.work().code == 0
    verdict(house, "film", failed=["film"])
    assert "have NIGHTREEL_INPUT_HTTPS set" in house.receipt("film").reason
    assert web.clients == 0


def test_a_server_that_is_down_costs_attempts_and_not_the_run(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    allow(house, input_https="true", trusted_hosts=host, retry_delay_s="0")
    house.enqueue(showing("film", {"image": f"http://{host}/x.png"}), job("other", "x"))

    assert house.work_all().code == 0
    verdict(house, "film", "other", failed=["film"])
    assert "gave up after 3 attempts" in house.receipt("film").reason


def test_a_picture_that_changed_between_two_attempts_is_the_new_one(house: House) -> None:
    """What is stored by address would show yesterday's picture."""
    shown = [picture(RED)]
    with Server(lambda connection: connection.answer(200, shown[-1])) as web:
        allow(house, input_https="true", trusted_hosts=web.host)
        house.enqueue(showing("film", {"image": web.url}, "first", "slow once"))
        process = house.start()
        until(lambda: list(house.store.list(".nightreel/keyframes/")), "the first keyframe", process)
        kill(process)
        shown.append(picture(BLUE))

        assert house.work_all().code == 0
    verdict(house, "film", again={"slow once": 1})
    assert near(colors(house, "film")[0], BLUE)


def test_the_same_picture_twice_is_fetched_once(tmp_path: Path, web: Server) -> None:
    inputs = Inputs(Rules(https=True), Web([web.host]))

    found = inputs.fetch(showing("film", {"image": web.url}, "drawn", {"image": web.url}), tmp_path)

    assert len(web.requests) == 1
    assert [each.sha256 for each in found.values()] == [hashlib.sha256(picture()).hexdigest()]


def test_all_pictures_of_a_job_share_one_allowance(tmp_path: Path, web: Server) -> None:
    two = showing("film", {"image": web.url + "1"}, {"image": web.url + "2"})
    size_mb = len(picture()) / 1e6

    Inputs(Rules(https=True, max_mb=2.1 * size_mb), Web([web.host])).fetch(two, tmp_path)
    (tmp_path / "again").mkdir()
    with pytest.raises(TooLarge, match=r"shots\[1\]\.image: .* allowed"):
        Inputs(Rules(https=True, max_mb=1.5 * size_mb), Web([web.host])).fetch(two, tmp_path / "again")


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("gs://pictures-2/x.png", Refused),  # its name begins like an allowed one
        ("gs://picture/x.png", Refused),
        ("https://localhost/x.png", Forbidden),
        ("https://metadata.google.internal/x.png", Forbidden),
        ("https://169.254.169.254/x.png", Forbidden),
    ],
)
def test_what_is_not_allowed_is_refused_before_anybody_is_asked(address: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"shots\[0\]\.image: "):
        Inputs(Rules(["pictures"], https=True), Web()).check(showing("film", {"image": address}))


def test_a_job_says_what_is_wrong_with_its_address() -> None:
    for address in (
        "pictures/x.png",
        "file:///etc/passwd",
        "gs://bucket",
        "ftp://example.com/x",
        "gs://B/x",
        "https://a b",
    ):
        with pytest.raises(Exception, match="image"):
            Job.model_validate_json(json.dumps({"shots": [{"image": address}]}))
