"""In which numbers a model computes, where its parts lie, and that exact is exact."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from diffusers import FluxPipeline

from nightreel_pipelines.base import LargeSource, Picture, no_pictures
from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.flux import FluxSource, placing
from nightreel_pipelines.flux.fp8 import Fp8Linear, dequantize
from nightreel_pipelines.flux.loading import Loader, load_pipeline, placed
from nightreel_pipelines.flux.placing import Card, Placement, Sizes, place
from nightreel_pipelines.flux.prepare import FolderTarget, Preparation
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.recipe import Recipe

L4 = Card("NVIDIA L4", (8, 9), 22.0)
RTX_3090 = Card("NVIDIA GeForce RTX 3090", (8, 6), 23.6)
H100 = Card("NVIDIA H100", (9, 0), 79.0)
T4 = Card("Tesla T4", (7, 5), 14.6)
SCHNELL = Sizes(transformer=22.15, modulation=6.01, t5=8.87, others=0.38)  # GiB in bfloat16
POCKET_FOLDER = load_models()["pocket"].folder(None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_flux.build(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_fp8(tiny: Path) -> Path:
    folder = tiny.parent / "tiny-fp8"
    Preparation(tiny, "tiny", FolderTarget(folder)).run(lambda step: None)
    return folder


def source_of(folder: Path, **fields: object) -> FluxSource:
    spec = {"name": "tiny", "source": "flux", "megapixels": 0.01, "prompt_tokens": 77, "weights": str(folder)}
    return FluxSource(ModelSpec.model_validate(spec | fields), None)


def recipe_for(source: FluxSource, **changes: Any) -> Recipe:
    what = source.describe()
    recipe = Recipe(
        what.source, what.revision, what.precision, "a sun", seed=1, steps=3, guidance=0, width=64, height=48
    )
    return replace(recipe, **changes)


def make(source: FluxSource, *recipes: Recipe) -> list[Picture]:
    return [picture for _, picture in source.keyframes(recipes, no_pictures, lambda: None)]


# What is chosen


@pytest.mark.parametrize(
    ("wanted", "card", "prepared", "expected"),
    [
        ("auto", L4, True, Placement("fp8", "cuda", "bf16", matmul=True)),
        ("fp8", H100, True, Placement("fp8", "cuda", "bf16", matmul=True)),
        ("auto", RTX_3090, True, Placement("fp8/bf16", "cuda", "bf16")),
        ("auto", None, True, Placement("fp8/fp32", "cpu")),
        ("auto", None, False, Placement("fp32", "cpu")),
        ("bf16", None, False, Placement("bf16", "cpu", "bf16")),
        ("auto", H100, False, Placement("bf16", "cuda", "bf16")),
        ("fp32", H100, False, Placement("fp32", "cuda", "fp32")),
        ("auto", L4, False, Placement("bf16", "cuda", "bf16", modulation_on_host=True, t5_on_host=True)),
        ("bf16-exact", H100, False, Placement("bf16", "cuda", "bf16", modulation_on_host=True)),
    ],
)
def test_the_card_and_the_folder_decide(
    monkeypatch: pytest.MonkeyPatch, wanted: str, card: Card | None, prepared: bool, expected: Placement
) -> None:
    monkeypatch.setattr(placing, "sizes_of", lambda folder: SCHNELL)

    assert place(wanted, Path("flux"), card, prepared=prepared) == expected


@pytest.mark.parametrize(
    ("wanted", "card", "prepared", "why"),
    [
        (
            "auto",
            T4,
            False,
            r"needs 20\.5 GiB of GPU memory at least, Tesla T4 gives 14\.6: nightreel weights prepare flux",
        ),
        ("bf16-exact", T4, False, r"needs 20\.5 GiB"),
        ("fp8", L4, False, "has no 8-bit weights: nightreel weights prepare flux flux-fp8"),
        ("bf16", L4, True, "has 8-bit weights: set the precision to auto or fp8, not bf16"),
        ("fp32", None, True, "set the precision to auto or fp8"),
    ],
)
def test_what_cannot_be_is_told_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, wanted: str, card: Card | None, prepared: bool, why: str
) -> None:
    monkeypatch.setattr(placing, "sizes_of", lambda folder: SCHNELL)

    with pytest.raises(SourceUnavailable, match=why):
        place(wanted, Path("flux"), card, prepared=prepared)


def test_sizes_come_from_the_files_and_know_the_modulation_layers(tiny: Path) -> None:
    pipe = FluxPipeline.from_pretrained(tiny)
    modulation = sum(
        parameter.numel()
        for name, parameter in pipe.transformer.named_parameters()
        if ".linear." in name and "norm" in name
    )

    sizes = placing.sizes_of(tiny)

    assert sizes.transformer == pytest.approx(2 * sum(each.numel() for each in pipe.transformer.parameters()) / 2**30)
    assert sizes.modulation == pytest.approx(2 * modulation / 2**30)
    assert 0.2 < sizes.modulation / sizes.transformer < 0.6


# Loading


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loader_gives_the_very_tensors_that_from_pretrained_gives(tiny: Path, precision: str) -> None:
    ours = load_pipeline(tiny, Placement(precision, "cpu", precision))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    theirs = FluxPipeline.from_pretrained(tiny, dtype=dtype)

    for part in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        wanted, made = getattr(theirs, part).state_dict(), getattr(ours, part).state_dict()
        assert made.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert made[name].dtype == tensor.dtype, name
            assert torch.equal(made[name], tensor), name
    embed = ours.text_encoder_2.encoder.embed_tokens.weight
    assert embed.data_ptr() == ours.text_encoder_2.shared.weight.data_ptr()


def test_a_tensor_of_another_shape_than_the_configuration_says_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps(config | {"in_channels": 32}))

    with pytest.raises(SourceUnavailable, match=r"transformer: \S+ has another shape than the model's configuration"):
        source_of(folder).load()


def test_a_prepared_folder_loads_as_8_bit_layers_and_is_painted_with_their_rounded_weights(
    tiny: Path, tiny_fp8: Path
) -> None:
    source = source_of(tiny_fp8)
    source.load()
    picture = make(source, recipe_for(source))[0]

    # A plain model whose weights are those that were rounded
    rounded = load_pipeline(tiny_fp8, Placement("fp8/fp32", "cpu"))
    layers = {name: module for name, module in rounded.transformer.named_modules() if isinstance(module, Fp8Linear)}
    assert len(layers) > 10
    plain = load_pipeline(tiny, Placement("fp32", "cpu"))
    for part in ("text_encoder_2", "transformer", "text_encoder", "vae"):
        wanted = getattr(rounded, part)
        for name, module in wanted.named_modules():
            if isinstance(module, Fp8Linear):
                weight = dequantize(module.codes, module.scales, torch.float32)
                getattr(plain, part).get_submodule(name).weight.data = weight
        for name, parameter in wanted.named_parameters():
            getattr(plain, part).get_parameter(name).data = parameter.data
    latents = plain(
        "a sun",
        max_sequence_length=77,
        num_inference_steps=3,
        guidance_scale=0,
        width=64,
        height=48,
        latents=_noise(plain, recipe_for(source)),
        output_type="latent",
    ).images
    from nightreel_pipelines.flux.paint import finish

    wanted_picture = finish(plain, recipe_for(source), plain._unpack_latents(latents, 48, 64, 8), striped=False)
    assert np.array_equal(picture, wanted_picture)
    assert source.describe().precision == "fp8/fp32"


def _noise(pipe: FluxPipeline, recipe: Recipe) -> torch.Tensor:
    from nightreel_pipelines.flux.noise import make_noise

    noise = make_noise(pipe, recipe)
    packed: torch.Tensor = pipe._pack_latents(noise, *noise.shape)
    return packed


def test_loading_tells_how_far_it_is_and_reads_the_expected_prompts_meanwhile(tiny_fp8: Path) -> None:
    source = source_of(tiny_fp8)
    assert isinstance(source, LargeSource)
    heard: list[tuple[int, int, float]] = []
    recipe = recipe_for(source)
    ticks: list[None] = []

    source.expect([recipe], lambda *how_far: heard.append(how_far))
    source.load()
    list(source.keyframes([recipe], no_pictures, lambda: ticks.append(None)))

    done = [each[0] for each in heard]
    assert done == sorted(done)
    assert done[-1] == heard[-1][1]
    assert all(speed > 0 for _, _, speed in heard)
    assert len(ticks) == 1 + 3 + 2


def test_a_prompt_too_long_is_told_when_it_is_asked_for_not_while_loading(tiny: Path) -> None:
    source = source_of(tiny)
    recipe = recipe_for(source, prompt="x" * 200)
    source.expect([recipe], lambda *_: None)

    source.load()

    with pytest.raises(Exception, match="reads at most 77"):
        make(source, recipe)


def test_the_placement_says_what_lies_where(tiny: Path, tmp_path: Path) -> None:
    said = placed(load_pipeline(POCKET_FOLDER, Placement("bf16", "cpu", "bf16")))

    assert said.startswith("text_encoder: 0.00 GiB bf16 on cpu; text_encoder_2: ")
    assert "transformer: 0.00 GiB bf16 on cpu" in said


# Exactly bf16


def test_modulation_that_is_computed_ahead_gives_the_same_bits(tiny: Path) -> None:
    plain, exact = source_of(tiny, precision="bf16"), source_of(tiny, precision="bf16-exact")
    plain.load()
    exact.load()
    recipes = [
        recipe_for(plain),
        recipe_for(plain, prompt="a moon", steps=4),
        recipe_for(plain, seed=2, width=32),
    ]

    assert exact.describe() == plain.describe()  # so the keyframes of one serve the other
    for one, other in zip(make(plain, *recipes), make(exact, *recipes), strict=True):
        assert np.array_equal(one, other)


def test_the_modulation_layers_are_no_part_of_the_model_and_pass_once_for_all_steps(tiny: Path) -> None:
    loader = Loader(tiny, Placement("bf16", "cpu", "bf16", modulation_on_host=True))
    loader.load_text()
    loader.load_pictures()
    modulation = loader.modulation
    assert modulation is not None

    inside = {id(parameter) for parameter in loader.pipe.transformer.parameters()}
    assert len(list(modulation.layers)) == 4  # two of the double block, one of the single one, the last norm's
    assert not [layer for layer in modulation.layers if id(layer.weight) in inside]

    from nightreel_pipelines.flux.engine import Engine

    spec = ModelSpec.model_validate({"name": "t", "source": "flux", "megapixels": 1, "prompt_tokens": 77})
    engine = Engine(tiny, spec, Placement("bf16", "cpu", "bf16", modulation_on_host=True))
    source = source_of(tiny, precision="bf16")
    list(engine.keyframes([recipe_for(source), recipe_for(source, prompt="a moon")], no_pictures, lambda: None))
    assert engine._loader.modulation is not None
    assert engine._loader.modulation.passes == 1


def test_another_batch_of_the_same_prompts_gets_its_own_modulation(tiny: Path) -> None:
    plain = source_of(tiny, precision="bf16", batch=2)
    exact = source_of(tiny, precision="bf16-exact", batch=2)
    plain.load()
    exact.load()
    recipes = [recipe_for(plain), recipe_for(plain, prompt="a moon"), recipe_for(plain, seed=5)]

    for one, other in zip(make(plain, *recipes), make(exact, *recipes), strict=True):
        assert np.array_equal(one, other)
