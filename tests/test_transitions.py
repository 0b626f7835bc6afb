"""How one shot becomes the next: what each transition shows, frame by frame."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nightreel_pipelines.base import Description
from nightreel_pipelines.film import frames
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan, plan
from nightreel_pipelines.transitions import dimmed, light, shared, slide
from nightreel_queue.job import Job
from nightreel_queue.transitions import Direction, Transition

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT, FPS = 96, 64, 10
DIRECTIONS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TIMED = [{"type": "crossfade"}, {"type": "dip_to_black"}, *({"type": "slide", "direction": way} for way in DIRECTIONS)]


def film_of(*shots: dict[str, Any]) -> Plan:
    whole = [{"prompt": f"shot {index}", "motion": "still"} | shot for index, shot in enumerate(shots)]
    output = {"width": WIDTH, "height": HEIGHT, "fps": FPS}
    job = Job.model_validate_json(json.dumps({"output": output, "shots": whole}))
    return plan(job, ModelSpec(name="any", source="any", megapixels=0.004), Description("any/1", "", "", "cpu"), {})


def filmed(film: Plan, *pictures: Picture) -> list[Picture]:
    """The frames of a film whose shots have these pictures, each for all of its keyframes."""
    shown = {
        placed.picture.fingerprint: picture
        for shot, picture in zip(film.shots, pictures, strict=True)
        for placed in shot.keyframes
    }
    return list(frames(film, shown.__getitem__))


def grey(level: int) -> Picture:
    return plain(level, level, level)


def plain(*color: int) -> Picture:
    return np.broadcast_to(np.array(color, dtype=np.uint8), (HEIGHT, WIDTH, 3))


def dot(x: float, y: float) -> Picture:
    """White, soft, on black; its place in pixels, the first pixel's centre being (0.5, 0.5)."""
    across, down = np.arange(WIDTH) + 0.5 - x, np.arange(HEIGHT)[:, None] + 0.5 - y
    bright = 255 * np.exp(-(across**2 + down**2) / (2 * 3.0**2))
    return np.repeat(np.rint(bright).astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(frame: Picture) -> Floats:
    bright = frame[:, :, 0].astype(float)
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    return np.array([(bright.sum(0) * x).sum(), (bright.sum(1) * y).sum()]) / float(bright.sum())


@pytest.mark.parametrize("transition", TIMED, ids=lambda each: "-".join(each.values()))
def test_every_transition_borrows_its_time_and_leaves_the_film_its_length(transition: dict[str, str]) -> None:
    # Given two shots of a second, and a transition of 0.4
    film = film_of({"duration": 1.0, "transition": transition | {"duration": 0.4}}, {"duration": 1.0})

    # When they are filmed
    seen = filmed(film, grey(60), grey(200))

    # Then two frames on each side of the cut show both, and no other
    assert len(seen) == 20
    alone = [int(frame[0, 0, 0]) if np.ptp(frame) == 0 else -1 for frame in seen]
    assert alone[:8] == [60] * 8
    assert alone[12:] == [200] * 8
    assert not {60, 200} & set(alone[8:12])


@pytest.mark.parametrize("transition", TIMED, ids=lambda each: "-".join(each.values()))
@pytest.mark.parametrize("motion", [{"walk": {"to": "there"}}, {"feedback": {}}], ids=["walk", "feedback"])
def test_shots_of_many_keyframes_have_handles_for_every_transition(transition: Any, motion: Any) -> None:
    film = film_of(*({"duration": 1.0, "motion": motion, "transition": transition} for _ in range(2)), {"duration": 1})

    seen = filmed(film, grey(60), grey(120), grey(200))

    assert len(seen) == 30
    assert [int(seen[at][5, 5, 0]) for at in (0, 14, 29)] == [60, 120, 200]


# Dips


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 15, 30])
def test_a_dip_falls_evenly_is_black_at_the_middle_and_rises_evenly(count: int) -> None:
    lights = [light(index, count) for index in range(count)]

    steps = np.diff([1.0, *lights, 1.0])
    half = (count + 1) // 2
    assert lights == lights[::-1]
    assert steps[:half] == pytest.approx(-1 / half)
    assert [lights[at] for at in {(count - 1) // 2, count // 2}] in ([0], [0, 0])


def test_a_dip_shows_the_leaving_shot_first_then_the_coming_one_and_never_both() -> None:
    film = film_of({"duration": 1.0, "transition": {"type": "dip_to_black", "duration": 0.9}}, {"duration": 1.0})

    seen = filmed(film, plain(200, 0, 0), plain(0, 0, 100))

    red, blue = ([int(frame[5, 5, channel]) for frame in seen] for channel in (0, 2))
    assert red[5:10] == [160, 120, 80, 40, 0]
    assert blue[9:15] == [0, 20, 40, 60, 80, 100]
    assert not any(red[9:])
    assert not any(blue[:10])


@pytest.mark.parametrize("share", [0.0, 0.125, 0.4, 0.875, 1.0])
def test_a_dimmed_picture_is_rounded_not_cut_off(share: float) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)

    assert np.abs(dimmed(every, share) - every.reshape(dimmed(every, share).shape) * share).max() <= 0.5 + 1e-4


# Slides


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_slide_brings_the_coming_picture_in_the_way_that_it_says(direction: Direction) -> None:
    # Given a dark picture that leaves and a bright one that comes, when a quarter of the way is done
    frame = slide(grey(60), grey(200), 0.25, direction)[:, :, 0]

    # Then the bright one fills a quarter, at the side that it comes from
    edges = {
        "left": frame[:, WIDTH * 3 // 4 :],
        "right": frame[:, : WIDTH // 4],
        "up": frame[HEIGHT * 3 // 4 :],
        "down": frame[: HEIGHT // 4],
    }
    assert (edges[direction] == 200).all()
    assert (frame == 200).sum() == WIDTH * HEIGHT // 4
    assert (frame == 60).sum() == WIDTH * HEIGHT * 3 // 4


def test_a_slide_goes_left_unless_it_says_otherwise() -> None:
    leaving, coming = grey(60), dot(30, 30)

    silent, left = (
        shared(transition, leaving, coming, 3, 9)
        for transition in (Transition(type="slide"), Transition(type="slide", direction="left"))
    )

    assert (silent == left).all()
    assert (silent != shared(Transition(type="slide", direction="right"), leaving, coming, 3, 9)).any()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_both_pictures_slide_together_by_fractions_of_a_pixel(direction: Direction) -> None:
    # Given a dot in the leaving picture and one in the coming picture, both far from the side that they cross
    size, way = np.array((WIDTH, HEIGHT)), np.array(DIRECTIONS[direction])
    middle = size / 2
    nothing = grey(0)

    # When the slide is done in steps that are no whole pixels
    for share in np.linspace(0.003, 0.28, 23):
        leaving = centroid(slide(dot(*middle), nothing, float(share), direction))
        coming = centroid(slide(nothing, dot(*middle), float(1 - share), direction))

        # Then each dot is where it should be, to a twentieth of a pixel
        assert leaving == pytest.approx(middle + way * size * share, abs=0.05)
        assert coming == pytest.approx(middle - way * size * share, abs=0.05)


def test_a_slide_leaves_no_gap_between_the_two() -> None:
    frames = [slide(grey(200), grey(200), float(share), "up") for share in np.linspace(0, 1, 41)]

    assert all((frame == 200).all() for frame in frames)


@pytest.mark.parametrize(("direction", "end"), list(itertools.product(DIRECTIONS, (0.0, 1.0))))
def test_a_slide_begins_with_the_one_picture_and_ends_with_the_other(direction: Direction, end: float) -> None:
    leaving, coming = dot(20, 20), dot(60, 40)

    assert (slide(leaving, coming, end, direction) == (coming if end else leaving)).all()


def test_a_slide_starts_and_stops_softly() -> None:
    # Given a slide of 1.5 s
    film = film_of({"duration": 3.0, "transition": {"type": "slide", "duration": 1.5}}, {"duration": 3.0})

    # When the picture that comes is followed by its share of the frame
    share = np.array([(frame[:, :, 0].astype(float) - 60).mean() / 140 for frame in filmed(film, grey(60), grey(200))])

    # Then its speed rises and falls without a jump
    speeds = np.diff(share)
    assert (speeds >= 0).all()
    assert speeds.max() == pytest.approx(1.5 / 15, rel=0.02)  # of a smooth step in the middle
    assert max(abs(np.diff(speeds))) < 0.25 * speeds.max()
