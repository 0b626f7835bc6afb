"""Shots of many keyframes through the real worker: resumed, shared and started from pictures, always the same film."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from house import House, job, kill, until, verdict
from test_inputs import BLUE, allow, colors, picture
from web_servers import Server, says

from nightreel_queue.job import Job

FEEDBACK = {"feedback": {"rate": 8, "zoom": 1.3, "strength": 0.4}}
WALK = {"walk": {"to": "the end", "rate": 8}}


@pytest.fixture
def calm(tmp_path: Path) -> Iterator[House]:
    """A house in which nothing goes wrong, beside the other one."""
    folder = tmp_path / "calm"
    folder.mkdir()
    calm = House(folder)
    yield calm
    calm.close()


def filmed(id_: str, motion: dict[str, Any] | str, prompt: str, **shot: Any) -> Job:
    return job(id_, shots=[{"prompt": prompt, "duration": 1.5, "motion": motion} | shot])


def film(house: House, name: str) -> str:
    video = house.receipt(name).video
    assert video is not None
    return video.digest


@pytest.mark.parametrize("motion", [FEEDBACK, WALK], ids=["feedback", "walk"])
def test_a_worker_killed_in_the_middle_of_a_shot_costs_one_keyframe_and_changes_no_frame(
    calm: House, house: House, motion: dict[str, Any]
) -> None:
    # Given the film as an undisturbed worker makes it
    calm.enqueue(filmed("film", motion, "half a second x"))
    assert calm.work(idle_timeout_s="1").code == 0

    # When another worker is killed while it makes the same
    house.enqueue(filmed("film", motion, "half a second x"))
    process = house.start()
    until(lambda: len(list(house.store.list(".nightreel/keyframes/"))) >= 4, "four keyframes", process)
    kill(process)
    stored = len(list(house.store.list(".nightreel/keyframes/")))
    assert house.work_all().code == 0

    # Then the next one goes on from the last keyframe, and the film is the same, frame by frame
    again = len(house.rendered()) - len(set(house.rendered()))
    assert stored < len(set(house.rendered()))
    assert again <= 2
    verdict(house, "film", again={name: 1 for name in house.rendered() if house.rendered().count(name) > 1})
    assert film(house, "film") == film(calm, "film")


@pytest.mark.parametrize("every", [2, 3])
def test_half_of_the_keyframes_in_the_store_give_the_same_film(calm: House, house: House, every: int) -> None:
    """Also with holes: what a keyframe starts from may have to be made, or may be there."""
    for each in (calm, house):
        each.enqueue(filmed("film", FEEDBACK, "x"))
    assert calm.work(idle_timeout_s="1").code == 0
    for number, entry in enumerate(sorted(calm.store.list(".nightreel/keyframes/"), key=lambda entry: entry.name)):
        if number % every:
            content, found = calm.store.get(entry.name)
            house.store.put(entry.name, content, generation=0, content_type="image/png", metadata=dict(found.metadata))

    assert house.work(idle_timeout_s="1").code == 0

    made = house.receipt("film").made
    assert made is not None
    assert 0 < made.keyframes < len(calm.rendered())
    assert made.keyframes + made.reused == len(calm.rendered())
    assert film(house, "film") == film(calm, "film")
    verdict(house, "film")


def test_a_longer_shot_goes_on_where_the_shorter_one_ended(house: House) -> None:
    house.enqueue(filmed("short", FEEDBACK, "x"), filmed("long", FEEDBACK, "x", duration=3))

    assert house.work(idle_timeout_s="1").code == 0

    made = house.receipt("long").made
    assert made is not None
    assert (made.keyframes, made.reused) == (12, 12)
    verdict(house, "short", "long")


def test_a_shot_is_drawn_over_the_picture_that_it_names(house: House) -> None:
    with Server(says(200, picture(BLUE))) as web:
        allow(house, input_https="true", trusted_hosts=web.host)
        init = {"image": web.url + "blue.png", "strength": 0.0}
        house.enqueue(filmed("film", "still", "x", init=init), filmed("other", FEEDBACK, "y", init=init))

        assert house.work(idle_timeout_s="1").code == 0

    verdict(house, "film", "other")
    assert max(abs(one - other) for one, other in zip(colors(house, "film")[0], BLUE, strict=True)) < 12
    made = house.receipt("film").made
    assert made is not None
    assert made.inputs == (hashlib.sha256(picture(BLUE)).hexdigest(),)


def test_a_picture_to_start_from_that_is_broken_is_told_with_its_field(house: House) -> None:
    with Server(says(200, b"no picture")) as web:
        allow(house, input_https="true", trusted_hosts=web.host)
        house.enqueue(filmed("film", "still", "x", init={"image": web.url}))
        assert house.work(idle_timeout_s="1").code == 0

    assert house.receipt("film").reason.startswith("shots[0].init.image: ")
    assert house.rendered() == []
    verdict(house, "film", failed=["film"])


def test_a_picture_to_start_from_that_may_not_be_fetched_is_told_with_its_field(house: House) -> None:
    house.enqueue(filmed("film", "still", "x", init={"image": "gs://elsewhere/x.png"}))

    assert house.work(idle_timeout_s="1").code == 0

    assert house.receipt("film").reason.startswith("shots[0].init.image: this worker takes no files from")
    verdict(house, "film", failed=["film"])
