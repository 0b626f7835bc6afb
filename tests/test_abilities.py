"""What a job asks for and its model does not have: told with the field and the mend, before anything is fetched or drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nightreel_pipelines.abilities import check
from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import Unrenderable
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_pipelines.recipe import Control, steered
from nightreel_queue.job import Job

ADDRESS = "gs://pictures/pose.png"
SPEC = ModelSpec(name="ours", source="flux", megapixels=0.25, steps=4, max_steps=8)
PLAIN = Description("flux/1", "abc", "fp32", "cpu")
POSED = Description("flux/1", "abc", "fp32", "cpu", {"pose": "def"})


def job_of(*shots: dict[str, Any], **fields: Any) -> Job:
    return Job.model_validate_json(json.dumps({"shots": [{"prompt": "a dancer"} | shot for shot in shots]} | fields))


def control(**fields: Any) -> dict[str, Any]:
    return {"control": {"type": "pose", "image": ADDRESS} | fields}


def test_a_job_that_the_model_can_make_passes() -> None:
    feedback: dict[str, Any] = {"motion": {"feedback": {}}}

    check(job_of({}, render={"steps": 8}), SPEC, PLAIN)
    check(job_of({}, control(), control() | feedback, control(start=0.5, end=1)), SPEC, POSED)


def test_a_model_without_a_checkpoint_refuses_control_with_the_mend() -> None:
    with pytest.raises(Unrenderable) as told:
        check(job_of({}, control()), SPEC, PLAIN)

    assert str(told.value) == (
        "shots[1].control: ours has no control checkpoint for pose: leave it out, take another model, or have the models"
        " file name one"
    )


@pytest.mark.parametrize(
    ("shot", "steps", "count"),
    [
        (control(start=0.25, end=0.5), 4, None),
        (control(start=0.3, end=0.4), 4, 4),
        (control(), 1, 1),
        (control(end=1), 1, None),
        (control() | {"init": {"image": ADDRESS, "strength": 0.25}}, 4, 1),
        (control(end=1) | {"init": {"image": ADDRESS, "strength": 0}}, 4, 0),
        (control() | {"motion": {"feedback": {"strength": 0.2}}}, 4, 1),
        (control() | {"motion": {"feedback": {"strength": 0.55}}}, 4, None),
    ],
)
def test_control_that_would_steer_no_step_of_a_keyframe_is_refused(
    shot: dict[str, Any], steps: int, count: int | None
) -> None:
    job = job_of(shot, render={"steps": steps})

    if count is None:
        check(job, SPEC, POSED)
        return
    with pytest.raises(Unrenderable, match=rf"^shots\[0\]\.control: none of a keyframe's {count} steps lies wholly"):
        check(job, SPEC, POSED)


def test_steps_count_that_lie_wholly_between_start_and_end() -> None:
    assert steered(0.0, 1.0, 4) == (True, True, True, True)
    assert steered(0.0, 0.65, 4) == (True, True, False, False)
    assert steered(0.25, 0.75, 4) == (False, True, True, False)
    assert steered(0.26, 0.74, 4) == (False, False, False, False)
    assert steered(0.0, 1.0, 0) == ()


def test_more_steps_than_the_model_takes_are_refused_and_none_are_its_own() -> None:
    with pytest.raises(Unrenderable) as told:
        check(job_of({}, render={"steps": 9}), SPEC, PLAIN)
    assert str(told.value) == "render.steps: is 9; ours takes 1 to 8: lower it, or leave it out for 4"

    slow = SPEC.model_copy(update={"steps": 28, "max_steps": 50})
    check(job_of({}, render={"steps": 50}), slow, PLAIN)
    assert [plan(job_of({}, render=render), slow, PLAIN, {}).recipes[0].steps for render in ({}, {"steps": 4})] == [
        28,
        4,
    ]


def test_every_keyframe_of_a_shot_is_steered_by_the_pictures_content_and_the_checkpoint() -> None:
    said = control(scale=0.5, start=0.1, end=0.9)
    walk: dict[str, Any] = {"motion": {"walk": {"to": "a runner"}}}
    feedback: dict[str, Any] = {"motion": {"feedback": {}}}
    job = job_of(said, said | walk, said | feedback, {})

    film = plan(job, SPEC, POSED, {ADDRESS: "e" * 64})

    controls = [
        placed.picture.control for shot in film.shots for placed in shot.keyframes if hasattr(placed.picture, "control")
    ]
    wanted = Control("pose", "e" * 64, scale=0.5, start=0.1, end=0.9, revision="def")
    assert len(controls) > 15
    assert set(controls[:-1]) == {wanted}
    assert controls[-1] is None
    assert [given.fingerprint for given in film.given] == ["e" * 64]
    other = plan(job, SPEC, POSED, {ADDRESS: "f" * 64})
    assert film.recipes[0].fingerprint != other.recipes[0].fingerprint
    assert film.shots[-1].keyframes == other.shots[-1].keyframes
