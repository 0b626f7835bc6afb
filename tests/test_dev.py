"""A model with guidance and a schedule that depends on the size, as FLUX.1 [dev] is one: random weights, a few numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from diffusers import FluxPipeline

from nightreel_pipelines.base import Picture, no_pictures
from nightreel_pipelines.errors import Unrenderable
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.models import load_models
from nightreel_pipelines.plan import plan
from nightreel_pipelines.recipe import Recipe
from nightreel_queue.job import Job

ENTRY = """
[dev]
source = "flux"
megapixels = 0.004
steps = 11
max_steps = 30
guidance = 3.5
max_sequence_length = 96
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FluxSource:
    folder = tmp_path_factory.mktemp("weights")
    tiny_flux.build(folder / "dev", dev=True)
    (folder / "models.toml").write_text(ENTRY)
    source = FluxSource(load_models(folder / "models.toml")["dev"], folder)
    source.load()
    return source


def recipe_of(source: FluxSource, **render: Any) -> Recipe:
    """Of the one keyframe of a job."""
    job = Job.model_validate({"shots": ({"prompt": "a dancer", "seed": 5},), "render": render}, strict=False)
    (recipe,) = plan(job, source._spec, source.describe(), {}).recipes
    return recipe


def made(source: FluxSource, *recipes: Recipe) -> list[Picture]:
    return [picture for _, picture in source.keyframes(recipes, no_pictures, lambda: None)]


@pytest.mark.parametrize(("render", "steps"), [({}, 11), ({"steps": 4}, 4), ({"steps": 30, "megapixels": 0.03}, 30)])
def test_it_draws_what_diffusers_own_pipeline_draws_with_the_same_steps_and_guidance(
    source: FluxSource, render: dict[str, Any], steps: int
) -> None:
    recipe = recipe_of(source, **render)
    pipe = FluxPipeline.from_pretrained(source._folder())
    pipe.set_progress_bar_config(disable=True)

    theirs = pipe(
        "a dancer",
        width=recipe.width,
        height=recipe.height,
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=96,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="np",
    ).images[0]

    assert (recipe.steps, recipe.guidance, recipe.max_sequence_length) == (steps, 3.5, 96)
    assert np.abs(made(source, recipe)[0] / 255 - theirs).max() < 1 / 255
    assert float(pipe.scheduler.sigmas[-2]) != pytest.approx(1 / steps, rel=0.01)  # the schedule is a shifted one


def test_guidance_and_the_length_of_prompts_decide_the_picture(source: FluxSource) -> None:
    recipe = recipe_of(source)
    weaker, shorter = replace(recipe, guidance=1.0), source._spec.model_copy(update={"max_sequence_length": 32})
    other = FluxSource(shorter, source._folder().parent)
    other.load()

    one, two = made(source, recipe, weaker)
    (three,) = made(other, recipe_of(other))

    assert not np.array_equal(one, two)
    assert not np.array_equal(one, three)
    assert len({recipe.fingerprint, weaker.fingerprint, recipe_of(other).fingerprint}) == 3


def test_keyframes_of_other_guidance_are_not_made_together(source: FluxSource) -> None:
    batched = FluxSource(source._spec.model_copy(update={"batch": 4}), source._folder().parent)
    batched.load()
    recipes = [recipe_of(source), replace(recipe_of(source), guidance=1.0)]

    for one, other in zip(made(source, *recipes), made(batched, *recipes), strict=True):
        assert np.array_equal(one, other)


def test_a_prompt_longer_than_the_entry_says_is_refused_with_the_limit(source: FluxSource) -> None:
    with pytest.raises(Unrenderable, match=r"prompt of \d+ tokens; dev reads at most 96: shorten"):
        made(source, replace(recipe_of(source), prompt="x" * 200))
