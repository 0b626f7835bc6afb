"""Keyframes that lie between two others or over a picture, drawn by pocket and by a scheduler that shifts its steps."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightreel_pipelines.base import Picture, no_pictures
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.flux.engine import Engine
from nightreel_pipelines.flux.loading import load_pipeline
from nightreel_pipelines.flux.mixing import mixed, slerp
from nightreel_pipelines.flux.noise import encode, make_noise, noisy
from nightreel_pipelines.flux.placing import Placement
from nightreel_pipelines.flux.text import Embedding
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.recipe import Recipe, Start, Toward, Warp

POCKET = load_models()["pocket"]
SUNSET, NIGHT = "a red sun over blue hills at sunset", "a white moon over blue hills at night"


@functools.cache
def pocket() -> FluxSource:
    source = FluxSource(POCKET, None)
    source.load()
    return source


def engine() -> Engine:
    made = pocket()._engine
    assert made is not None
    return made


@functools.cache
def pipe(shifted: bool = False) -> Any:
    loaded = load_pipeline(POCKET.folder(None), Placement("fp32", "cpu"))
    if shifted:
        loaded.scheduler = type(loaded.scheduler).from_config(loaded.scheduler.config, use_dynamic_shifting=True)
    return loaded


def recipe(prompt: str = SUNSET, **fields: Any) -> Recipe:
    what = pocket().describe()
    made = Recipe(what.source, what.revision, what.precision, prompt, seed=1, steps=4, guidance=0, width=96, height=64)
    return replace(made, **fields)


def draw(wanted: Recipe, **pictures: Picture) -> Picture:
    return next(pocket().keyframes([wanted], pictures.__getitem__, lambda: None))[1]


def difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other).mean())


# Noise

NOISES = st.integers(0, 2**31).map(
    lambda seed: torch.randn((1, 16, 8, 12), generator=torch.Generator().manual_seed(seed))
)
PLACES = st.floats(0, 1)


@given(NOISES, NOISES, PLACES)
def test_noise_between_two_noises_is_as_strong_as_they_are(near: torch.Tensor, far: torch.Tensor, at: float) -> None:
    found = slerp(near, far, at)

    assert found.dtype == torch.float32
    assert float(found.norm()) == pytest.approx((1 - at) * float(near.norm()) + at * float(far.norm()), rel=1e-5)


@given(NOISES, NOISES, PLACES)
def test_the_way_back_is_the_same_way(near: torch.Tensor, far: torch.Tensor, at: float) -> None:
    assert torch.allclose(slerp(near, far, at), slerp(far, near, 1 - at), atol=1e-5)


@given(NOISES, NOISES, st.floats(0.01, 0.99))
def test_equal_steps_of_the_way_are_equal_angles(near: torch.Tensor, far: torch.Tensor, at: float) -> None:
    def angle(one: torch.Tensor, other: torch.Tensor) -> float:
        cosine = torch.nn.functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0)
        return float(torch.arccos(cosine.clamp(-1, 1)))

    whole = angle(near, far)
    if whole > 0.1:
        assert angle(near, slerp(near, far, at)) == pytest.approx(at * whole, abs=2e-3)


@given(NOISES, NOISES)
def test_the_ends_of_the_way_are_the_two_noises_themselves(near: torch.Tensor, far: torch.Tensor) -> None:
    assert torch.equal(slerp(near, far, 0.0), near)
    assert torch.equal(slerp(near, far, 1.0), far)


@given(NOISES, PLACES)
def test_between_a_noise_and_itself_lies_that_noise(noise: torch.Tensor, at: float) -> None:
    assert torch.allclose(slerp(noise, noise, at), noise, atol=1e-6)


# Prompts


def embedding(seed: int) -> Embedding:
    generator = torch.Generator().manual_seed(seed)
    return Embedding(torch.randn((1, 4, 8), generator=generator), torch.randn((1, 6), generator=generator))


@settings(deadline=None)  # the model is loaded on the way
@given(st.floats(0.001, 0.999), st.integers(0, 99))
def test_between_a_prompt_and_itself_lies_that_prompt(at: float, seed: int) -> None:
    near, far = embedding(seed), embedding(seed)
    same = mixed((near, far), recipe(toward=Toward(SUNSET, 2, at)))
    equal = mixed((near, far), recipe(toward=Toward(NIGHT, 2, at)))

    assert same is near
    assert torch.equal(equal.tokens, near.tokens)
    assert torch.equal(equal.pooled, near.pooled)


@settings(deadline=None)
@given(st.floats(0.001, 0.999))
def test_prompts_are_mixed_linearly_by_both_encoders(at: float) -> None:
    near, far = embedding(1), embedding(2)
    found = mixed((near, far), recipe(toward=Toward(NIGHT, 2, at)))

    assert torch.allclose(found.tokens, (1 - at) * near.tokens + at * far.tokens, atol=1e-6)
    assert torch.allclose(found.pooled, (1 - at) * near.pooled + at * far.pooled, atol=1e-6)


def test_prompts_of_different_length_are_padded_to_one() -> None:
    long = "a white moon over blue hills at night, " * 3
    lengths: list[int] = []
    text_encoder = engine()._pipe.text_encoder_2
    hook = text_encoder.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    try:
        draw(recipe("a short one, and new", toward=Toward(long, 2, 0.5)))
    finally:
        hook.remove()

    assert lengths == [32, 32]


# Walks


def test_a_walk_changes_little_by_little_from_one_picture_to_the_other() -> None:
    ends = [draw(recipe()), draw(recipe(NIGHT, seed=2))]
    places = [index / 8 for index in range(1, 8)]

    pictures = [draw(recipe(toward=Toward(NIGHT, 2, at))) for at in places]

    steps = [difference(one, other) for one, other in zip([ends[0], *pictures], [*pictures, ends[1]], strict=True)]
    assert difference(pictures[0], ends[0]) < difference(ends[0], ends[1]) / 3
    assert difference(pictures[-1], ends[1]) < difference(ends[0], ends[1]) / 3
    assert min(steps) > 0
    assert max(steps) < difference(ends[0], ends[1])


# Starts


@pytest.fixture(scope="module")
def picture() -> Picture:
    return draw(recipe("a red boat on a calm sea by day", seed=9))


def test_strength_1_is_to_draw_from_noise(picture: Picture) -> None:
    assert np.array_equal(draw(recipe(start=Start("x", 1.0)), x=picture), draw(recipe()))


def test_strength_0_is_the_picture_as_the_vae_gives_it_without_running_the_model(picture: Picture) -> None:
    loaded = pipe()
    with torch.inference_mode():
        latents = encode(loaded, picture)
        scale, shift = loaded.vae.config.scaling_factor, loaded.vae.config.shift_factor
        pixels = loaded.vae.decode(latents / scale + shift, return_dict=False)[0]
    seen = ((pixels[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8).numpy()
    runs: list[None] = []
    transformer = engine()._pipe.transformer
    hook = transformer.register_forward_pre_hook(lambda *_: runs.append(None))
    try:
        found = draw(recipe(start=Start("x", 0.0)), x=picture)
    finally:
        hook.remove()

    assert np.array_equal(found, seen)
    assert not runs
    assert difference(found, picture) < 6


def test_more_strength_leaves_less_of_the_picture_also_between_whole_steps(picture: Picture) -> None:
    strengths = [0.0, 0.3, 0.5, 0.55, 0.6, 0.7, 0.85, 1.0]

    away = [difference(draw(recipe(start=Start("x", strength)), x=picture), picture) for strength in strengths]

    assert len(set(away)) == len(away)
    assert all(after > before - 1 for before, after in pairwise(away))
    assert away[0] < away[1] < away[4] / 2 < away[-1] / 4


@pytest.mark.parametrize("strength", [0.2, 0.25, 0.55, 0.999])
def test_the_model_runs_as_often_as_the_plan_says(picture: Picture, strength: float) -> None:
    wanted = recipe(start=Start("x", strength))
    runs: list[None] = []
    transformer = engine()._pipe.transformer
    hook = transformer.register_forward_pre_hook(lambda *_: runs.append(None))
    try:
        draw(wanted, x=picture)
    finally:
        hook.remove()

    assert len(runs) == wanted.evaluations


@pytest.mark.parametrize("shifted", [False, True], ids=["schnell's steps", "steps shifted by size"])
@pytest.mark.parametrize("strength", [0.1, 0.55, 0.9])
def test_the_noise_that_is_put_in_is_the_noise_that_the_model_takes_out(
    picture: Picture, strength: float, shifted: bool
) -> None:
    loaded, wanted = pipe(shifted), recipe(start=Start("x", strength))
    with torch.inference_mode():
        begun, clean, noise = noisy(loaded, wanted, picture), encode(loaded, picture), make_noise(loaded, wanted)
        loaded(
            prompt_embeds=torch.zeros((1, 4, 96)),
            pooled_prompt_embeds=torch.zeros((1, 64)),
            latents=loaded._pack_latents(begun.latents, *begun.latents.shape),
            num_inference_steps=wanted.evaluations,
            sigmas=begun.sigmas,
            height=64,
            width=96,
            output_type="latent",
        )

    assert float(loaded.scheduler.sigmas[0]) == pytest.approx(strength, abs=1e-6)
    assert torch.allclose(begun.latents, (1 - strength) * clean + strength * noise, atol=1e-5)
    assert len(loaded.scheduler.timesteps) == wanted.evaluations


def test_feedback_gives_the_same_bits_whatever_was_made_before() -> None:
    # Given a chain of four keyframes
    first = recipe()
    chain = [first]
    for seed in range(2, 5):
        warp = Warp(1.1, (0.05, 0.0), 3.0, 0.5)
        start = Start(chain[-1].fingerprint, 0.55, warp, colors=first.fingerprint)
        chain.append(recipe(seed=seed, start=start))

    # When all are made at once, and when the last two are made from pictures that lay in a store
    made: dict[str, Picture] = {}
    for wanted, found in pocket().keyframes(chain, made.__getitem__, lambda: None):
        made[wanted.fingerprint] = found
    stored = {wanted.fingerprint: made[wanted.fingerprint] for wanted in chain[:2]}
    for wanted, found in pocket().keyframes(chain[2:], stored.__getitem__, lambda: None):
        stored[wanted.fingerprint] = found

    # Then they are the same
    assert all(np.array_equal(stored[wanted.fingerprint], made[wanted.fingerprint]) for wanted in chain)
    assert len({picture.tobytes() for picture in made.values()}) == 4


def test_a_recipe_whose_picture_is_not_there_is_not_drawn_from_noise() -> None:
    with pytest.raises(LookupError):
        next(pocket().keyframes([recipe(start=Start("x", 0.5))], no_pictures, lambda: None))


def test_colors_stay_what_they_were_over_twenty_keyframes() -> None:
    """Each round through the model would otherwise shift them, and they would run away."""
    first = recipe()
    made = {first.fingerprint: draw(first)}
    before = first
    for seed in range(20):
        start = Start(before.fingerprint, 0.55, Warp(1.05, (0.0, 0.0), 2.0, 0.3), colors=first.fingerprint)
        before = recipe(seed=seed, start=start)
        made[before.fingerprint] = draw(before, **made)

    drift = np.abs(made[before.fingerprint].mean((0, 1)) - made[first.fingerprint].mean((0, 1)))
    assert drift.max() < 12


def tiny(folder: Path, **fields: Any) -> FluxSource:
    import tiny_flux

    if not folder.exists():
        tiny_flux.build(folder)
    spec = {"name": "tiny", "source": "flux", "megapixels": 0.01, "prompt_tokens": 77, "weights": str(folder)}
    source = FluxSource(ModelSpec.model_validate(spec | fields), None)
    source.load()
    return source


def mixed_job(source: FluxSource) -> list[Recipe]:
    """Two plain keyframes, two of a feedback chain, one of a walk, one of both, two plain ones."""
    first = replace(recipe(), revision=source.describe().revision)
    warp = Warp(1.1, (0.05, 0.0), 3.0, 0.5)
    second = replace(first, seed=3, start=Start(first.fingerprint, 0.55, warp, colors=first.fingerprint))
    third = replace(first, seed=4, start=Start(second.fingerprint, 0.3, warp, colors=first.fingerprint))
    walk = replace(first, toward=Toward(NIGHT, 2, 0.5))
    both = replace(walk, start=Start(third.fingerprint, 0.55))
    return [first, replace(first, seed=2), second, third, walk, both, replace(first, seed=5), replace(first, seed=6)]


def draw_all(source: FluxSource, recipes: list[Recipe]) -> dict[str, Picture]:
    made: dict[str, Picture] = {}
    for wanted, found in source.keyframes(recipes, made.__getitem__, lambda: None):
        made[wanted.fingerprint] = found
    return made


def test_plain_and_fed_back_keyframes_of_one_job_come_in_order_and_as_each_alone(tmp_path: Path) -> None:
    source = tiny(tmp_path / "tiny")
    recipes = mixed_job(source)

    made = draw_all(source, recipes)

    assert list(made) == [wanted.fingerprint for wanted in recipes]
    for wanted in recipes:
        (_, alone), *_ = source.keyframes([wanted], made.__getitem__, lambda: None)
        assert np.array_equal(made[wanted.fingerprint], alone)


def test_only_plain_keyframes_are_made_together(tmp_path: Path) -> None:
    source = tiny(tmp_path / "tiny", batch=4)
    assert source._engine is not None
    sizes: list[int] = []
    source._engine._pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    recipes = mixed_job(source)

    made = draw_all(source, recipes)

    assert list(made) == [wanted.fingerprint for wanted in recipes]
    assert sizes == [2] * 4 + [1] * (3 + 2 + 4 + 3) + [2] * 4


def test_modulation_ahead_serves_walks_and_feedback_in_a_pass_for_each_beginning(tmp_path: Path) -> None:
    plain, exact = (tiny(tmp_path / "tiny", precision=precision) for precision in ("bf16", "bf16-exact"))
    recipes = mixed_job(plain)

    made, again = draw_all(plain, recipes), draw_all(exact, recipes)

    assert all(np.array_equal(made[key], again[key]) for key in made)
    assert exact._engine is not None
    assert exact._engine._loader.modulation is not None
    assert exact._engine._loader.modulation.passes == 3  # from noise, from 0.55, from 0.3


def test_a_tiny_flux_draws_over_pictures_too(tmp_path: Path) -> None:
    import tiny_flux

    tiny_flux.build(tmp_path / "ours")
    spec = POCKET.model_copy(update={"name": "ours", "weights": None, "sequence": (), "prompt_tokens": 77})
    source = FluxSource(spec, tmp_path)
    source.load()
    what = source.describe()
    wanted = replace(recipe(start=Start("x", 0.5)), revision=what.revision)

    found = next(source.keyframes([wanted], {"x": np.zeros((64, 96, 3), np.uint8)}.__getitem__, lambda: None))[1]
    assert found.shape == (64, 96, 3)
