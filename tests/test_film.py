"""How shots become one film: lengths, transitions, and a memory that does not grow with it."""

from __future__ import annotations

import json
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nightreel_pipelines.base import Description
from nightreel_pipelines.film import frames
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan, plan
from nightreel_pipelines.transitions import crossfade, weight
from nightreel_queue.job import Job

Picture = npt.NDArray[np.uint8]
GREYS = (30, 90, 150, 210, 250)


def plan_of(shots: list[dict[str, Any]], fps: int = 10) -> Plan:
    defaults: dict[str, Any] = {"motion": "still"}
    content = [{"prompt": f"shot {index}"} | defaults | shot for index, shot in enumerate(shots)]
    job = Job.model_validate_json(json.dumps({"output": {"width": 64, "height": 64, "fps": fps}, "shots": content}))
    return plan(job, ModelSpec(name="any", source="any", megapixels=0.004), Description("any/1", "", "", "cpu"), {})


def by_shot(film: Plan, picture: Callable[[int], Picture]) -> Callable[[str], Picture]:
    """Pictures by the number of the shot that shows them."""
    shots = {placed.picture.fingerprint: index for index, shot in enumerate(film.shots) for placed in shot.keyframes}
    return lambda fingerprint: picture(shots[fingerprint])


def grey(index: int) -> Picture:
    return np.full((64, 64, 3), GREYS[index % len(GREYS)], dtype=np.uint8)


def levels(film: Plan) -> list[int]:
    """The grey of each frame of a film whose shots are plain."""
    seen = []
    for frame in frames(film, by_shot(film, grey)):
        assert frame.shape == (64, 64, 3)
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        assert np.ptp(frame) == 0
        seen.append(int(frame[0, 0, 0]))
    return seen


def test_a_cut_gives_every_shot_exactly_its_own_frames() -> None:
    film = plan_of([{"duration": 0.5, "transition": {"type": "cut"}}, {"duration": 1.2}])

    assert levels(film) == [30] * 5 + [90] * 12


@pytest.mark.parametrize("duration", [0.3, 0.4])
def test_a_crossfade_keeps_the_cut_where_it_was_and_borrows_from_both_sides(duration: float) -> None:
    # Given two shots of one second with a transition of an odd and of an even number of frames
    film = plan_of([{"duration": 1.0, "transition": {"type": "crossfade", "duration": duration}}, {"duration": 1.0}])

    # When it is filmed
    seen = levels(film)

    # Then it has its length, and the mix passes half where the cut is
    blend = round(duration * 10)
    mixed = [at for at, level in enumerate(seen) if level not in (30, 90)]
    assert len(seen) == 20
    assert mixed == list(range(10 - (blend + 1) // 2, 10 + blend // 2))
    assert seen == sorted(seen)
    assert abs(seen[9] - 60) + abs(seen[10] - 60) <= 60


def test_shots_that_are_all_transition_still_show_two_pictures_at_most() -> None:
    # Given shots as short as their transitions
    film = plan_of([{"duration": 0.4, "transition": {"duration": 0.4}}] * 3 + [{"duration": 0.4}])

    # When it is filmed
    seen = levels(film)

    # Then each frame lies between two neighbours' greys, in order
    assert len(seen) == 16
    assert seen == sorted(seen)


def test_a_move_runs_over_all_frames_that_show_the_shot_handles_included() -> None:
    # Given a pan over a ramp between two plain shots, blended on both sides
    film = plan_of([{"duration": 1.0}, {"duration": 1.0, "motion": {"pan": (0.5, 0), "ease": "linear"}}, {}], fps=20)
    ramp = np.repeat(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))[:, :, None], 3, axis=2)

    # When it is filmed against black neighbours
    black = np.zeros_like(ramp)
    seen = list(frames(film, by_shot(film, lambda index: ramp if index == 1 else black)))

    # Then the ramp climbs evenly, also where it is mixed with black
    shot = film.shots[1]
    shares = [
        min(1.0, (at + 0.5) / shot.blend, (shot.frames - at - 0.5) / film.shots[2].blend) for at in range(shot.frames)
    ]
    bright = [
        float(frame[32, 32, 0]) / share
        for frame, share in zip(seen[shot.start : shot.stop], shares, strict=True)
        if share > 0.2
    ]
    steps = np.diff(bright)
    assert shot.frames == 30
    assert steps.mean() == pytest.approx(0.5 * 256 / 1.5 / 29, rel=0.1)
    assert np.abs(steps - steps.mean()).max() < 4


def test_a_keyframe_is_asked_for_once_when_it_is_first_shown() -> None:
    # Given three shots
    film = plan_of([{"duration": 1.0}] * 3)
    asked: list[int] = []

    def picture(index: int) -> Picture:
        asked.append(index)
        return grey(index)

    # When the film is taken frame by frame
    first_asked: dict[int, int] = {}
    for at, _ in enumerate(frames(film, by_shot(film, picture))):
        first_asked.setdefault(len(asked), at)

    # Then each is asked for once, with the first frame that shows it
    assert asked == [0, 1, 2]
    assert [first_asked[count] for count in (1, 2, 3)] == [shot.start for shot in film.shots]


MANY = ({"walk": {"to": "the other end", "rate": 4}}, {"feedback": {"rate": 4}})


@pytest.mark.parametrize("motion", MANY, ids=["walk", "feedback"])
def test_each_keyframe_of_a_shot_is_asked_for_when_the_first_frame_that_shows_it_is_due(motion: Any) -> None:
    # Given two shots of many keyframes that crossfade
    film = plan_of([{"duration": 2.0, "motion": motion}] * 2)
    asked: list[str] = []

    def picture(fingerprint: str) -> Picture:
        asked.append(fingerprint)
        return grey(len(asked))

    # When the film is taken frame by frame
    first_asked: dict[int, int] = {}
    for at, _ in enumerate(frames(film, picture)):
        for index in range(len(asked)):
            first_asked.setdefault(index, at)

    # Then each is asked for once, when the plan says, and the film has its length
    due = sorted(
        (frame, placed.picture.fingerprint)
        for shot in film.shots
        for frame, placed in zip(shot.due, shot.keyframes, strict=True)
    )
    assert len(asked) == len(film.recipes) == len(set(asked)) >= 18
    assert sorted((first_asked[index], fingerprint) for index, fingerprint in enumerate(asked)) == due


@pytest.mark.parametrize("motion", MANY, ids=["walk", "feedback"])
def test_a_keyframes_own_frame_shows_it_alone(motion: Any) -> None:
    film = plan_of([{"duration": 2.0, "motion": motion}])
    greys = {recipe.fingerprint: GREYS[index % len(GREYS)] for index, recipe in enumerate(film.recipes)}

    seen = [
        int(frame[32, 32, 0])
        for frame in frames(film, lambda fingerprint: np.full((64, 64, 3), greys[fingerprint], dtype=np.uint8))
    ]

    assert len(seen) == 20
    for placed in film.shots[0].keyframes:
        if placed.frame < 20:
            assert seen[placed.frame] == greys[placed.picture.fingerprint]


@pytest.mark.parametrize("motion", MANY, ids=["walk", "feedback"])
def test_a_shot_of_many_keyframes_holds_two_of_them(motion: Any) -> None:
    film = plan_of([{"duration": 30.0, "motion": motion}])
    held: list[weakref.ref[Any]] = []

    class Watched(np.ndarray[Any, Any]):
        """A picture that can be watched."""

    def picture(_: str) -> Picture:
        keyframe = grey(len(held)).view(Watched)
        held.append(weakref.ref(keyframe))
        return keyframe

    most = 0
    for _ in frames(film, picture):
        most = max(most, sum(keyframe() is not None for keyframe in held))

    assert len(held) >= 120
    assert most <= 2


def test_a_long_film_holds_no_more_pictures_than_a_short_one() -> None:
    # Given a film of 2000 frames and 50 shots that move, whose keyframes are watched
    motion = {"zoom": (1.0, 1.1)}
    film = plan_of([{"duration": 4.0, "motion": motion}] * 50)
    given: list[weakref.ref[Any]] = []

    class Watched(np.ndarray[Any, Any]):
        """A picture that can be watched."""

    def picture(index: int) -> Picture:
        keyframe = grey(index).view(Watched)
        given.append(weakref.ref(keyframe))
        return keyframe

    # When it is streamed
    most = count = 0
    for _ in frames(film, by_shot(film, picture)):
        count += 1
        most = max(most, sum(keyframe() is not None for keyframe in given))

    # Then each was given, and never more than two are alive, without waiting for a garbage collection
    assert len(given) == 50
    assert count == film.frames == 2000
    assert most <= 2


def test_the_memory_of_a_film_does_not_grow_with_its_length() -> None:
    def peak(shots: int) -> int:
        film = plan_of([{"duration": 1.0, "motion": {"zoom": (1.0, 1.1)}}] * shots)
        tracemalloc.start()
        for _ in frames(film, by_shot(film, grey)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short = peak(4)

    assert peak(60) < 1.2 * short


def test_a_still_shot_is_made_once_and_cannot_be_written_to() -> None:
    film = plan_of([{"duration": 1.0}])

    seen = list(frames(film, by_shot(film, grey)))

    assert all(frame is seen[0] for frame in seen)
    assert not seen[0].flags.writeable


def test_a_blend_wastes_neither_its_first_nor_its_last_frame() -> None:
    shares = [weight(index, 5) for index in range(5)]

    assert shares == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_crossfade_is_rounded_not_cut_off(share: float) -> None:
    # Given every pair of values
    leaving, coming = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))

    # When they are mixed
    mixed = crossfade(leaving, coming, share)

    # Then each is within half a step of the exact mix
    exact = leaving * (1 - share) + coming * share
    assert np.abs(mixed - exact).max() <= 0.5 + 1e-4
