"""Plans are arithmetic: what must hold for every job is stated for every job."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_pipelines.base import Description
from nightreel_pipelines.keyframes import keyframe_size
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan, ShotPlan, plan
from nightreel_pipelines.recipe import Control, Recipe, Start, Toward, Warp
from nightreel_queue.job import Job
from nightreel_queue.motions import Move

SPEC = ModelSpec(name="ours", source="flux", megapixels=0.25, guidance=1.5, multiple=16)
DESCRIPTION = Description(source="flux/1", revision="abc", precision="fp32", device="cpu")

PROMPTS = st.sampled_from(["a red sun", "a boat", "a white house", "a tree"])
SECONDS = st.integers(20, 700).map(lambda hundredths: hundredths / 100)
TRANSITIONS = st.one_of(
    st.none(),
    st.just({"type": "cut"}),
    st.sampled_from(["crossfade", "dip_to_black", "slide"]).map(lambda kind: {"type": kind}),
    st.integers(1, 5).map(lambda twentieths: {"type": "crossfade", "duration": twentieths / 25}),  # 0.2 s is any shot's
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    shots = [
        {"prompt": draw(PROMPTS), "duration": draw(SECONDS), "transition": draw(TRANSITIONS)}
        for _ in range(draw(st.integers(1, 8)))
    ]
    shots[-1]["transition"] = None
    return job_of(*shots, seed=draw(st.integers(0, 9)), output={"fps": draw(st.sampled_from([8, 12, 24, 25, 30, 60]))})


def job_of(*shots: dict[str, Any] | str, **fields: Any) -> Job:
    tables = [{"prompt": shot} if isinstance(shot, str) else shot for shot in shots]
    return Job.model_validate_json(json.dumps({"shots": tables} | fields))


def plan_of(job: Job) -> Plan:
    return plan(job, SPEC, DESCRIPTION, {})


def recipes_of(*shots: dict[str, Any] | str, **fields: Any) -> list[Recipe]:
    placed = [each for shot in plan_of(job_of(*shots, **fields)).shots for each in shot.keyframes]
    return [each.picture for each in placed if isinstance(each.picture, Recipe)]


def own_frames(plan: Plan) -> list[int]:
    """Frames from each shot's cut to the next one's: what it has without the halves of transitions."""
    cuts = [shot.start + math.ceil(shot.blend / 2) for shot in plan.shots] + [plan.frames]
    return [after - before for before, after in pairwise(cuts)]


def visible(shots: tuple[ShotPlan, ...], frame: int) -> list[int]:
    return [index for index, shot in enumerate(shots) if shot.start <= frame < shot.stop]


# Frames


@given(jobs())
def test_the_film_has_the_exact_sum_of_its_durations_rounded_once(job: Job) -> None:
    exact = sum(Fraction(str(shot.duration)) for shot in job.shots) * job.output.fps

    assert plan_of(job).frames == math.floor(exact + Fraction(1, 2))


@given(jobs())
def test_every_shot_has_its_own_duration_to_the_frame(job: Job) -> None:
    for shot, frames in zip(job.shots, own_frames(plan_of(job)), strict=True):
        assert frames >= 1
        assert abs(frames - Fraction(str(shot.duration)) * job.output.fps) <= 1


@given(jobs())
def test_the_film_is_covered_and_neighbours_share_exactly_their_blend(job: Job) -> None:
    film = plan_of(job)
    shared = dict.fromkeys(range(1, len(film.shots)), 0)

    assert film.shots[0].start == 0
    assert film.shots[0].blend == 0
    assert film.shots[-1].stop == film.frames
    for frame in range(film.frames):
        match visible(film.shots, frame):
            case [_]:
                pass
            case [before, after]:
                assert after == before + 1
                shared[after] += 1
            case others:
                pytest.fail(f"frame {frame} shows shots {others}")
    assert shared == {index: shot.blend for index, shot in enumerate(film.shots) if index}


@given(jobs())
def test_a_blend_lasts_as_long_as_its_transition_and_a_cut_has_none(job: Job) -> None:
    film = plan_of(job)
    frames = own_frames(film)
    for index, shot in enumerate(film.shots[1:]):
        transition, seconds = job.transition_after(index)
        wanted = math.floor(Fraction(str(seconds)) * job.output.fps + Fraction(1, 2))
        assert shot.blend == min(wanted, frames[index], frames[index + 1])
        assert transition.type != "cut" or shot.blend == 0
        assert shot.transition == transition


def test_a_crossfade_lies_half_before_the_cut_and_half_after() -> None:
    film = plan_of(job_of({"prompt": "a", "duration": 2.0}, {"prompt": "b", "duration": 3.0}))

    assert film.frames == 150
    assert [(shot.start, shot.stop, shot.blend, shot.frames) for shot in film.shots] == [
        (0, 67, 0, 67),
        (52, 150, 15, 98),
    ]


def test_rounding_never_adds_up() -> None:
    tenths = [{"prompt": "a", "duration": 0.7}] * 100

    assert plan_of(job_of(*tenths, output={"fps": 8})).frames == 560


def test_the_plan_repeats_the_output_and_the_motions() -> None:
    film = plan_of(
        job_of(
            {"prompt": "a", "motion": "still"},
            {"prompt": "b", "motion": {"pan": [0.5, 0.0]}},
            output={"width": 640, "height": 360, "fps": 24, "crf": 30},
        )
    )

    assert (film.width, film.height, film.fps, film.crf) == (640, 360, 24, 30)
    assert [shot.motion for shot in film.shots] == ["still", Move(pan=(0.5, 0.0))]


# Keyframes


@given(jobs())
def test_recipes_are_unique_and_in_the_order_of_the_film(job: Job) -> None:
    film = plan_of(job)
    in_order = [placed.picture for shot in film.shots for placed in shot.keyframes]

    assert len(set(film.recipes)) == len(film.recipes)
    assert set(film.recipes) == set(in_order)
    assert sorted(film.recipes, key=in_order.index) == list(film.recipes)


@given(jobs(), st.integers(0, 8), st.sampled_from(["a red sun", "a prompt of its own"]))
def test_an_inserted_shot_re_renders_nothing_else(job: Job, index: int, prompt: str) -> None:
    shots = [shot.model_dump(mode="json") for shot in job.shots]
    shots.insert(min(index, len(shots) - 1), {"prompt": prompt})
    longer = job_of(*(shot | {"transition": None} for shot in shots), seed=job.seed)

    before, after = set(plan_of(job).recipes), set(plan_of(longer).recipes)

    assert before < after
    assert len(after - before) == 1


def test_a_repeated_prompt_gets_another_picture_each_time() -> None:
    seeds = [recipe.seed for recipe in recipes_of("a sun", "a boat", "a sun", "a sun")]

    assert len(set(seeds)) == 4


def test_a_job_with_another_seed_gets_other_pictures() -> None:
    assert recipes_of("a sun", seed=1) != recipes_of("a sun", seed=2)


def test_seed_mode_fixed_starts_every_shot_from_the_jobs_seed() -> None:
    recipes = recipes_of("a sun", "a boat", "a sun", seed=7, seed_mode="fixed")

    assert [recipe.seed for recipe in recipes] == [7, 7, 7]
    assert len(set(recipes)) == 2


@pytest.mark.parametrize("mode", ["per_shot", "fixed"])
def test_a_shots_own_seed_wins(mode: str) -> None:
    assert recipes_of({"prompt": "a sun", "seed": 5}, seed=7, seed_mode=mode)[0].seed == 5


def test_style_is_put_around_every_prompt_with_single_spaces() -> None:
    styled = recipes_of(" a sun ", "a boat", style_prefix="watercolour, ", style_suffix=" soft light")

    assert [recipe.prompt for recipe in styled] == ["watercolour, a sun soft light", "watercolour, a boat soft light"]
    assert recipes_of(" a sun ")[0].prompt == "a sun"


def test_style_changes_pictures_but_not_their_seeds() -> None:
    plain, styled = recipes_of("a sun"), recipes_of("a sun", style_suffix="at night")

    assert plain[0].seed == styled[0].seed
    assert plain[0].fingerprint != styled[0].fingerprint


def test_a_recipe_holds_what_the_job_the_model_and_the_source_decide() -> None:
    recipe = recipes_of({"prompt": "a sun", "seed": 5}, render={"steps": 2}, output={"aspect": "1:1"})[0]

    assert recipe == Recipe("flux/1", "abc", "fp32", "a sun", seed=5, steps=2, guidance=1.5, width=496, height=496)


def test_a_job_may_ask_for_keyframes_of_another_size() -> None:
    assert recipes_of("a sun", render={"megapixels": 0.5}, output={"aspect": "1:1"})[0].width == 704


def test_the_device_decides_no_pixels() -> None:
    job = job_of("a sun")
    elsewhere = dataclasses.replace(DESCRIPTION, device="cuda")

    assert plan(job, SPEC, elsewhere, {}) == plan_of(job)


SIDES = st.integers(32, 1080).map(lambda half: 2 * half)


@given(SIDES, SIDES, st.floats(0.004, 4.2), st.sampled_from([8, 16, 32]))
def test_keyframes_have_the_outputs_shape_and_the_wanted_size_to_half_a_multiple(
    width: int, height: int, megapixels: float, multiple: int
) -> None:
    wide, high = keyframe_size(width, height, megapixels, multiple)
    ideal_wide = math.sqrt(megapixels * 1e6 * width / height)

    for side, ideal in ((wide, ideal_wide), (high, ideal_wide * height / width)):
        assert side % multiple == 0
        assert side >= multiple
        assert abs(side - ideal) <= multiple / 2 + 1e-6 or (side == multiple and ideal < multiple)


@pytest.mark.parametrize(
    ("size", "megapixels", "keyframe"),
    [
        ((1280, 720), 0.015, (160, 96)),
        ((720, 1280), 0.015, (96, 160)),
        ((720, 720), 0.015, (128, 128)),
        ((960, 720), 0.015, (144, 112)),
    ],
)
def test_pocket_makes_its_native_sizes(size: tuple[int, int], megapixels: float, keyframe: tuple[int, int]) -> None:
    assert keyframe_size(*size, megapixels, 16) == keyframe


# Fingerprints

RECIPE = Recipe("flux/1", "abc", "fp32", "a sun", seed=5, steps=4, guidance=0.0, width=64, height=48)


def test_equal_recipes_have_equal_fingerprints_in_every_process() -> None:
    assert dataclasses.replace(RECIPE).fingerprint == RECIPE.fingerprint
    # Written down: a changed fingerprint makes every stored keyframe worthless, and must be a decision.
    assert RECIPE.fingerprint == "c64abf217fb97db581640b7d28595d44c35069ab5924d53eb66f3ab797cc456f"


WARP = Warp(zoom=1.1, pan=(0.0, 0.1), rotate=2.0, seconds=0.5)
FULL = dataclasses.replace(
    RECIPE,
    toward=Toward("a moon", seed=6, at=0.5),
    start=Start("abc", strength=0.5, warp=WARP, colors="def"),
    control=Control("pose", "abc", scale=0.7, start=0.0, end=0.65, revision="def"),
    clip_s=8,
    max_sequence_length=512,
)


def variants(value: Any) -> Iterator[Any]:
    """The same thing with one field changed, for each field at any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for other in variants(getattr(value, field.name)):
                yield dataclasses.replace(value, **{field.name: other})
        if not isinstance(value, Recipe):
            yield None
    elif isinstance(value, tuple):
        yield (value[0] + 1, value[1])
        yield (value[0], value[1] + 1)
    else:
        yield f"{value}x" if isinstance(value, str) else value + 1


def test_every_field_of_a_recipe_changes_its_fingerprint() -> None:
    others = list(variants(FULL))

    assert len(others) == 32
    assert len({recipe.fingerprint for recipe in [FULL, *others]}) == 33


def test_a_recipe_without_what_was_thought_of_later_is_what_it_was_before() -> None:
    """Else every stored keyframe would be made anew."""
    plain = dataclasses.replace(FULL, toward=None, start=None, control=None, max_sequence_length=None, clip_s=None)

    assert plain.fingerprint == RECIPE.fingerprint


@pytest.mark.parametrize(("strength", "evaluations"), [(0.0, 0), (0.01, 1), (0.25, 1), (0.26, 2), (0.55, 3), (1.0, 4)])
def test_a_fractional_start_runs_as_many_steps_as_keep_a_step_short(strength: float, evaluations: int) -> None:
    assert dataclasses.replace(RECIPE, start=Start("abc", strength)).evaluations == evaluations
    assert RECIPE.evaluations == RECIPE.steps == 4
