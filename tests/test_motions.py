"""Motions of many keyframes: which pictures a shot needs, when, and what they cost."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_pipelines.base import Description, no_pictures, refuse_mixtures
from nightreel_pipelines.errors import Unrenderable
from nightreel_pipelines.keyframes import Given, shown_part
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan, ShotPlan, plan
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.testcard import TestcardSource
from nightreel_queue.job import Job

SPEC = ModelSpec(name="ours", source="flux", megapixels=0.25)
DESCRIPTION = Description("flux/1", "abc", "fp32", "cpu")
ADDRESS, SUM = "gs://pictures/x.png", "5" * 64

FPS = st.sampled_from([8, 12, 24, 25, 30, 60])
SECONDS = st.integers(20, 900).map(lambda hundredths: hundredths / 100)
RATES = st.integers(5, 80).map(lambda tenths: tenths / 10)
EASES = st.sampled_from(["linear", "in", "out", "in_out"])


def job_of(*shots: dict[str, Any], fps: int = 24, **fields: Any) -> Job:
    whole = [{"prompt": "a sun"} | shot for shot in shots]
    return Job.model_validate_json(json.dumps({"output": {"fps": fps}, "shots": whole} | fields))


def plan_of(job: Job) -> Plan:
    return plan(job, SPEC, DESCRIPTION, dict.fromkeys(job.inputs, SUM))


def walk(duration: float = 4.0, **walk: Any) -> dict[str, Any]:
    return {"duration": duration, "motion": {"walk": walk}}


def feedback(duration: float = 4.0, **feedback: Any) -> dict[str, Any]:
    return {"duration": duration, "motion": {"feedback": feedback}}


def recipes_of(shot: ShotPlan) -> list[Recipe]:
    found = [placed.picture for placed in shot.keyframes]
    assert all(isinstance(picture, Recipe) for picture in found)
    return found  # type: ignore[return-value]  # just checked


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    kinds = [
        lambda: {"motion": "still"},
        lambda: walk(to="a moon", rate=draw(RATES), ease=draw(EASES)),
        lambda: feedback(rate=draw(RATES), zoom=draw(st.floats(0.5, 2)), strength=draw(st.floats(0, 1))),
    ]
    shots = [draw(st.sampled_from(kinds))() | {"duration": draw(SECONDS)} for _ in range(draw(st.integers(1, 4)))]
    return job_of(*shots, fps=draw(FPS), transition={"duration": 0.2})


# When


@given(jobs())
def test_keyframes_lie_on_frames_of_their_own_from_a_shots_first_frame_past_its_last(job: Job) -> None:
    for shot in plan_of(job).shots:
        frames = [placed.frame for placed in shot.keyframes]

        assert frames[0] == 0
        assert all(before < after for before, after in pairwise(frames))
        assert shot.motion == "still" or frames[-1] >= shot.frames - 1
        assert all(frame < shot.frames - 1 for frame in frames[:-1])


@given(jobs())
def test_keyframes_come_at_the_rate_that_was_asked_for_to_half_a_frame(job: Job) -> None:
    for shot, planned in zip(job.shots, plan_of(job).shots, strict=True):
        options = {} if shot.motion == "still" else shot.motion.model_dump()
        rate = options.get("feedback", options.get("walk", {})).get("rate")
        gaps = [after.frame - before.frame for before, after in pairwise(planned.keyframes)]
        if "feedback" in options:
            assert all(abs(gap - job.output.fps / rate) <= 1 for gap in gaps)
        elif "walk" in options:
            assert all(gap <= math.ceil(job.output.fps / rate) for gap in gaps)
            assert max(gaps) - min(gaps) <= 1


@given(jobs())
def test_a_job_never_needs_more_keyframes_than_it_was_admitted_with(job: Job) -> None:
    assert sum(len(shot.keyframes) for shot in plan_of(job).shots) <= job.keyframes_at_most


@given(jobs())
def test_a_plan_lists_keyframes_as_the_film_needs_them_and_none_before_what_it_starts_from(job: Job) -> None:
    film = plan_of(job)
    order = {recipe.fingerprint: index for index, recipe in enumerate(film.recipes)}
    due: dict[str, int] = {}
    for shot in film.shots:
        for frame, placed in zip(shot.due, shot.keyframes, strict=True):
            first = due.get(placed.picture.fingerprint, film.frames)
            due[placed.picture.fingerprint] = min(first, frame)

    assert sorted(order, key=lambda fingerprint: order[fingerprint]) == sorted(
        due, key=lambda each: (due[each], order[each])
    )
    for recipe in film.recipes:
        if recipe.start is not None:
            assert order[recipe.start.picture] < order[recipe.fingerprint]
            assert recipe.start.colors is not None
            assert order[recipe.start.colors] < order[recipe.fingerprint]


# What a walk needs


@given(SECONDS, FPS, RATES, EASES)
def test_a_walk_begins_and_ends_exactly_at_its_two_pictures(seconds: float, fps: int, rate: float, ease: str) -> None:
    job = job_of({"seed": 1} | walk(seconds, to="a moon", seed=2, rate=rate, ease=ease), fps=fps)
    ends = plan_of(job_of({"seed": 1, "motion": "still"}, {"prompt": "a moon", "seed": 2, "motion": "still"})).recipes
    (shot,) = plan_of(job).shots

    first, *between, last = recipes_of(shot)

    assert (first, last) == ends
    places = [recipe.toward.at for recipe in between if recipe.toward]
    assert len(places) == len(between)
    assert all(before < after for before, after in pairwise([0.0, *places, 1.0]))


def test_a_linear_walk_is_even_also_where_keyframes_are_not() -> None:
    (shot,) = plan_of(job_of(walk(1.0, rate=7), fps=24)).shots

    for placed in shot.keyframes[1:-1]:
        assert isinstance(placed.picture, Recipe)
        assert placed.picture.toward is not None
        assert placed.picture.toward.at == placed.frame / 23


def test_a_walk_that_starts_gently_goes_a_quarter_of_the_way_in_half_the_time() -> None:
    (shot,) = plan_of(job_of(walk(4.04, rate=0.5, ease="in"), fps=25)).shots  # 101 frames

    assert [placed.frame for placed in shot.keyframes] == [0, 50, 100]
    middle = recipes_of(shot)[1]
    assert middle.toward is not None
    assert middle.toward.at == 0.25


def test_a_walks_last_noise_is_its_own_and_that_of_a_walk_elsewhere_another() -> None:
    film = plan_of(job_of(walk(), walk(), walk(to="a moon")))
    seeds = [recipe.seed for shot in film.shots for recipe in (recipes_of(shot)[0], recipes_of(shot)[-1])]

    assert len(set(seeds)) == 6


def test_a_shot_put_before_a_walk_re_renders_nothing_of_it() -> None:
    alone = plan_of(job_of(walk(to="a moon"), transition={"type": "cut"}))
    after = plan_of(job_of({"prompt": "a boat"}, walk(to="a moon"), transition={"type": "cut"}))

    assert set(alone.recipes) < set(after.recipes)


def test_both_prompts_of_a_walk_are_styled() -> None:
    film = plan_of(job_of(walk(to=" a moon "), style_prefix="soft,"))
    towards = {recipe.toward.prompt for recipe in film.recipes if recipe.toward}

    assert film.recipes[0].prompt == "soft, a sun"
    assert film.recipes[-1].prompt == "soft, a moon"
    assert towards == {"soft, a moon"}


def test_a_walk_too_short_for_two_frames_is_its_first_picture() -> None:
    film = plan_of(job_of(walk(0.2), fps=8))  # of two frames
    assert len(film.shots[0].keyframes) == 2

    one = plan_of(job_of({"duration": 0.2}, walk(0.2), {"duration": 0.2}, fps=8, transition={"type": "cut"}))
    assert [len(shot.keyframes) for shot in one.shots] == [1, 1 if one.shots[1].frames == 1 else 2, 1]


# What feedback needs


def test_a_longer_feedback_shot_only_adds_keyframes() -> None:
    short, long = (plan_of(job_of(feedback(seconds))).recipes for seconds in (2.0, 5.0))

    assert len(short) < len(long)
    assert long[: len(short)] == short


def test_each_keyframe_of_feedback_starts_from_the_one_before_with_other_noise_and_the_colors_of_the_first() -> None:
    first, *others = plan_of(job_of(feedback(strength=0.3))).recipes

    assert first.start is None
    assert len(others) == 12
    for before, recipe in pairwise([first, *others]):
        assert recipe.start is not None
        assert recipe.start.picture == before.fingerprint
        assert recipe.start.colors == first.fingerprint
        assert recipe.start.strength == 0.3
    assert len({recipe.seed for recipe in (first, *others)}) == 13


def test_the_camera_of_feedback_moves_for_as_long_as_lies_between_two_keyframes() -> None:
    (shot,) = plan_of(job_of(feedback(rate=7, zoom=1.3, rotate=4, pan=[0.1, 0]), fps=24)).shots
    for before, after in pairwise(shot.keyframes):
        assert isinstance(after.picture, Recipe)
        assert after.picture.start is not None
        assert after.picture.start.warp is not None
        assert after.picture.start.warp.seconds == (after.frame - before.frame) / 24
        assert (after.picture.start.warp.zoom, after.picture.start.warp.rotate) == (1.3, 4)


def test_a_pan_is_measured_in_frames_though_the_keyframe_is_larger() -> None:
    film = plan_of(job_of(feedback(pan=[0.2, 0.2]), output={"width": 640, "height": 360}))
    first, second = film.recipes[:2]
    shown = shown_part(first.width, first.height, 640, 360)
    assert second.start is not None
    assert second.start.warp is not None

    assert min(shown) < 1 == pytest.approx(max(shown))
    assert second.start.warp.pan == pytest.approx([0.2 * part for part in shown])


# Pictures to start from


def test_an_init_picture_is_an_input_and_the_first_keyframe_is_drawn_over_it() -> None:
    job = job_of({"init": {"image": ADDRESS, "strength": 0.6}}, {"image": ADDRESS, "prompt": None})
    film = plan_of(job)

    assert dict(job.inputs) == {ADDRESS: "shots[0].init.image"}
    assert film.given == {Given(ADDRESS, SUM): "shots[0].init.image"}
    (recipe,) = film.recipes
    assert recipe.start is not None
    assert (recipe.start.picture, recipe.start.strength, recipe.start.warp) == (SUM, 0.6, None)


def test_another_init_picture_under_the_same_address_is_another_keyframe() -> None:
    job = job_of({"init": {"image": ADDRESS}})
    one, other = (plan(job, SPEC, DESCRIPTION, {ADDRESS: found}).recipes for found in ("a" * 64, "b" * 64))

    assert one[0].fingerprint != other[0].fingerprint


def test_walks_and_feedback_may_start_from_a_picture_too() -> None:
    init = {"init": {"image": ADDRESS, "strength": 0.6}}

    walked, fed = plan_of(job_of(init | walk())).recipes, plan_of(job_of(init | feedback())).recipes

    assert all(recipe.start and recipe.start.picture == SUM for recipe in walked)
    assert [recipe.start.picture for recipe in fed if recipe.start][:2] == [SUM, fed[0].fingerprint]


# What it costs


def test_a_plan_counts_the_evaluations_of_each_picture_once() -> None:
    still = {"prompt": "a boat", "seed": 1, "motion": "still"}
    film = plan_of(job_of(still, still, feedback(2.0, strength=0.5, rate=2), transition={"type": "cut"}))

    # one still picture, the first of the feedback, and four that run two of four steps
    assert film.evaluations == 4 + 4 + 4 * 2


# Sources that cannot


def test_a_source_that_draws_from_prompts_alone_says_which_field_is_too_much() -> None:
    drawn = plan_of(job_of({"motion": "still"})).recipes
    refuse_mixtures(drawn, "ours")

    for shot, field in (
        (walk(), "motion.walk"),
        (feedback(), "motion.feedback"),
        ({"init": {"image": ADDRESS}}, "init"),
    ):
        with pytest.raises(Unrenderable, match=rf"^{field}: ours .* another model$"):
            refuse_mixtures(plan_of(job_of(shot)).recipes, "ours")


def test_the_test_card_mixes_what_walks_and_starts_from_what_is_there() -> None:
    source = TestcardSource(ModelSpec(name="card", source="testcard", megapixels=0.02), None)
    films = [
        plan(job_of(shot), source_spec, source.describe(), {ADDRESS: SUM})
        for source_spec in [ModelSpec(name="card", source="testcard", megapixels=0.02)]
        for shot in (walk(to="a moon", rate=0.5), feedback(1.0, strength=0.5))
    ]
    for film in films:
        made: dict[str, Any] = {}
        for recipe, picture in source.keyframes(film.recipes, made.__getitem__, lambda: None):
            made[recipe.fingerprint] = picture
        assert len({picture.tobytes() for picture in made.values()}) == len(film.recipes) >= 3
    with pytest.raises(LookupError):
        list(source.keyframes(films[1].recipes, no_pictures, lambda: None))
