"""A real FLUX on the CPU: the pocket model that is part of the package, and a tiny random one beside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightreel_pipelines.base import Picture, Source, no_pictures
from nightreel_pipelines.errors import Cancelled, SourceUnavailable, Unrenderable
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.flux.revision import revision
from nightreel_pipelines.models import load_models, make_source
from nightreel_pipelines.recipe import Recipe

POCKET = load_models()["pocket"]
POCKET_FOLDER = POCKET.folder(None)
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder_2/model.safetensors"


@pytest.fixture(scope="module")
def source() -> FluxSource:
    source = FluxSource(POCKET, None)
    source.load()
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the pocket model, to be damaged."""
    return Path(shutil.copytree(POCKET_FOLDER, tmp_path / "copy"))


def recipe_for(source: Source, prompt: str = "a red sun over blue hills", **changes: Any) -> Recipe:
    what = source.describe()
    recipe = Recipe(
        what.source, what.revision, what.precision, prompt, seed=1, steps=2, guidance=0, width=64, height=48
    )
    return replace(recipe, **changes)


def make(source: Source, *recipes: Recipe) -> list[Picture]:
    return [picture for _, picture in source.keyframes(recipes, no_pictures, lambda: None)]


def source_of(folder: Path, **fields: object) -> FluxSource:
    return FluxSource(POCKET.model_copy(update={"weights": str(folder), **fields}), None)


def difference(one: Picture, other: Picture) -> float:
    """Mean over all pixels, of 255."""
    return float(np.abs(one.astype(int) - other).mean())


def sha256(picture: Picture) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


# Equal recipes, equal pictures


def test_a_recipe_gives_the_same_bits_alone_after_others_and_among_others(source: FluxSource) -> None:
    recipe = recipe_for(source)
    others = [recipe_for(source, "a boat on the sea at night", seed=7), recipe_for(source, width=32)]

    alone = make(source, recipe)[0]
    among = make(source, others[0], recipe, others[1])[1]

    assert np.array_equal(alone, among)
    assert np.array_equal(alone, make(source, recipe)[0])


def test_a_recipe_gives_the_same_bits_in_another_process_which_stays_silent(source: FluxSource) -> None:
    recipe = recipe_for(source, "a white house on green hills at sunset " * 8)  # longer than CLIP reads
    script = f"""
import hashlib, sys
from nightreel_pipelines.base import no_pictures
from nightreel_pipelines.models import load_models, make_source
from nightreel_pipelines.recipe import Recipe
source = make_source(load_models()["pocket"], None)
source.describe()
print("diffusers" in sys.modules, "transformers" in sys.modules)
source.load()
(_, picture), = source.keyframes([{recipe!r}], no_pictures, lambda: None)
print(hashlib.sha256(picture.tobytes()).hexdigest())
print("torchvision" in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", script]

    other = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))

    imported_by_describe, digest, torchvision = other.stdout.splitlines()
    assert imported_by_describe == "False False"
    assert digest == sha256(make(source, recipe)[0])
    assert torchvision == "False"
    assert other.stderr == ""


@pytest.mark.parametrize("change", [{"seed": 2}, {"steps": 3}, {"prompt": "a red sun over green hills"}])
def test_another_seed_number_of_steps_or_prompt_gives_another_picture(
    source: FluxSource, change: dict[str, Any]
) -> None:
    recipe = recipe_for(source)

    one, other = make(source, recipe, replace(recipe, **change))
    assert difference(one, other) > 0


def test_a_seed_is_the_same_noise_whatever_the_precision(source: FluxSource) -> None:
    coarse = source_of(POCKET_FOLDER, precision="bf16")
    coarse.load()

    fine, other_seed = make(source, recipe_for(source), recipe_for(source, seed=2))
    rough = make(coarse, recipe_for(coarse))[0]

    assert coarse.describe().precision == "bf16"
    assert 0 < difference(fine, rough) < difference(fine, other_seed) / 2


# What comes out


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 32), (32, 80)])
def test_pictures_have_the_size_that_was_asked_for(source: FluxSource, width: int, height: int) -> None:
    picture = make(source, recipe_for(source, width=width, height=height))[0]

    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


def test_the_prompt_decides_what_the_picture_shows(source: FluxSource) -> None:
    def redness(prompt: str) -> float:
        pictures = make(source, *(recipe_for(source, prompt, seed=seed, width=96, height=96) for seed in range(3)))
        red, green, _ = np.mean(pictures, axis=(0, 1, 2))
        return float(red - green)

    assert redness("a red sun over purple hills at sunset") > redness("a green tree on green hills by day") + 10


def test_pictures_come_one_by_one_with_their_recipes(source: FluxSource) -> None:
    ticks: list[None] = []
    recipes = [recipe_for(source, seed=seed) for seed in (1, 2)]
    frames = source.keyframes(recipes, no_pictures, lambda: ticks.append(None))

    first, _ = next(frames)
    ticks_before_the_second = len(ticks)
    second, _ = next(frames)

    assert [first, second] == recipes
    assert len(ticks) > ticks_before_the_second


# Progress and calling off


def test_tick_is_called_for_each_prompt_each_step_and_around_decoding(source: FluxSource) -> None:
    ticks: list[None] = []
    recipes = [recipe_for(source, steps=3), recipe_for(source, steps=1, seed=2)]

    list(source.keyframes(recipes, no_pictures, lambda: ticks.append(None)))

    assert len(ticks) == 1 + (3 + 2) + (1 + 2)


def test_a_job_called_off_at_any_tick_leaves_the_source_as_it_was(source: FluxSource) -> None:
    recipe = recipe_for(source)
    expected = make(source, recipe)[0]
    for allowed in range(5):
        ticks = iter(range(allowed))

        def tick(ticks: Iterable[int] = ticks) -> None:
            if next(iter(ticks), None) is None:
                raise Cancelled("off")

        with pytest.raises(Cancelled, match="off"):
            list(source.keyframes([recipe], no_pictures, tick))
        assert np.array_equal(make(source, recipe)[0], expected)


# Recipes that can never be made


def test_a_prompt_too_long_is_refused_before_any_work(source: FluxSource) -> None:
    ticks: list[None] = []
    recipes = [recipe_for(source), recipe_for(source, "sun " * 1200)]

    with pytest.raises(Unrenderable, match=r"prompt of 1201 tokens; pocket reads at most 1024: shorten 'sun sun"):
        list(source.keyframes(recipes, no_pictures, lambda: ticks.append(None)))
    assert not ticks


def test_the_longest_prompt_is_read_to_its_end(source: FluxSource) -> None:
    start = "sun " * 1022  # one more word and the token that ends every prompt make 1024

    one, other = make(source, *(recipe_for(source, start + word, steps=1) for word in ("red", "green")))

    assert difference(one, other) > 0


def test_a_size_that_the_model_cannot_make_exactly_is_refused(source: FluxSource) -> None:
    with pytest.raises(Unrenderable, match=r"72x48.*multiples of 16"):
        make(source, recipe_for(source), recipe_for(source, width=72))


def test_a_picture_too_large_for_memory_is_refused_with_the_mend(source: FluxSource) -> None:
    side = 2**24  # its noise alone is larger than any address space

    with pytest.raises(Unrenderable, match=r"not enough memory.*16777216x16777216.*render\.megapixels"):
        make(source, recipe_for(source, width=side, height=side))
    assert make(source, recipe_for(source))


def test_numbers_that_overflow_are_an_error_not_a_black_picture(folder: Path) -> None:
    _change_tensors(folder / TRANSFORMER, "proj_out.weight", lambda tensor: tensor * float("inf"))
    broken = source_of(folder)
    broken.load()

    with pytest.raises(Unrenderable, match=r"overflow in fp32.*a red sun"):
        make(broken, recipe_for(broken))


# Prompts


def test_each_distinct_prompt_is_read_once_by_a_job_and_by_the_next(source: FluxSource) -> None:
    from nightreel_pipelines.flux.loading import load_pipeline
    from nightreel_pipelines.flux.placing import Placement
    from nightreel_pipelines.flux.text import TextEncoder

    pipe = load_pipeline(POCKET_FOLDER, Placement("fp32", "cpu"))
    lengths: list[int] = []
    pipe.text_encoder_2.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    encoder = TextEncoder(pipe, POCKET)

    encoder.encode([["a red sun"], ["a boat " * 20], ["a red sun"]], lambda: None)
    encoder.encode([["a boat " * 20]], lambda: None)

    assert lengths == [16, 64]  # and each padded to the shortest length that holds it


# Models that cannot be had


def test_describing_needs_no_loaded_model(source: FluxSource) -> None:
    assert FluxSource(POCKET, None).describe() == source.describe()
    assert source.describe().source == "flux/1"
    assert source.describe().revision == revision(POCKET_FOLDER)


def test_keyframes_before_load_are_a_programming_error() -> None:
    unloaded = FluxSource(POCKET, None)

    with pytest.raises(RuntimeError, match="load"):
        make(unloaded, recipe_for(unloaded))


def test_a_missing_folder_says_where_the_weights_belong(tmp_path: Path) -> None:
    schnell = load_models()["flux-schnell"]

    with pytest.raises(SourceUnavailable, match="NIGHTREEL_WEIGHTS"):
        FluxSource(schnell, None).describe()
    with pytest.raises(SourceUnavailable, match="flux-schnell; put its weights there"):
        FluxSource(schnell, tmp_path).describe()


@pytest.mark.parametrize("index", [None, "{", "[]", "{}"])
def test_a_folder_without_a_readable_index_is_refused(folder: Path, index: str | None) -> None:
    (folder / "model_index.json").unlink()
    if index is not None:
        (folder / "model_index.json").write_text(index)

    with pytest.raises(SourceUnavailable, match=r"model_index\.json cannot be read.*diffusers' layout"):
        source_of(folder).describe()


def test_a_folder_that_holds_another_kind_of_model_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))

    with pytest.raises(SourceUnavailable, match="holds a StableDiffusionPipeline"):
        source_of(folder).describe()


@pytest.mark.parametrize("part", ["tokenizer_2", "transformer"])
def test_a_missing_part_is_noticed_before_loading(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)

    with pytest.raises(SourceUnavailable, match=f"has no {part}; copy"):
        source_of(folder).describe()


@pytest.mark.parametrize("name", [TRANSFORMER, TEXT_ENCODER])
def test_a_truncated_weight_file_is_refused(folder: Path, name: str) -> None:
    os.truncate(folder / name, 50_000)

    with pytest.raises(SourceUnavailable, match=r"cannot load .*copy the whole model there again"):
        source_of(folder).load()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [(TRANSFORMER, "proj_out.weight"), (TEXT_ENCODER, "encoder.block.0.layer.0.SelfAttention.q.weight")],
)
def test_a_missing_tensor_is_an_error_not_random_numbers(folder: Path, name: str, tensor: str) -> None:
    _change_tensors(folder / name, tensor, lambda _: None)

    with pytest.raises(SourceUnavailable, match="copy the whole model there again"):
        source_of(folder).load()


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / TRANSFORMER).rename(folder / "transformer/diffusion_pytorch_model.bin")

    with pytest.raises(SourceUnavailable, match="cannot load"):
        source_of(folder).load()


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers"])
def test_a_library_that_is_not_installed_is_named_with_the_command(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # to the import system, that is: not there

    with pytest.raises(SourceUnavailable, match=rf"needs {library}: pip install 'nightreel\[cpu\]'"):
        FluxSource(POCKET, None).describe()


def test_options_are_refused_because_there_are_none() -> None:
    with pytest.raises(SourceUnavailable, match="no options"):
        source_of(POCKET_FOLDER, options={"fast": True}).describe()


# Another model of the family


def test_an_operators_own_flux_is_a_folder_and_four_lines(tmp_path: Path) -> None:
    import tiny_flux

    tiny_flux.build(tmp_path / "weights" / "ours")
    models = tmp_path / "models.toml"
    models.write_text('[ours]\nsource = "flux"\nmegapixels = 0.01\nprompt_tokens = 77\n')
    source = make_source(load_models(models)["ours"], tmp_path / "weights")
    source.load()

    first, again = make(source, recipe_for(source)), make(source, recipe_for(source))

    assert first[0].shape == (48, 64, 3)
    assert np.array_equal(first[0], again[0])
    assert source.describe().revision != revision(POCKET_FOLDER)


# The weights' name


def test_a_revision_changes_with_any_byte_of_a_weight_file(folder: Path) -> None:
    before = revision(folder)
    weights = folder / TRANSFORMER
    changed = bytearray(weights.read_bytes())
    changed[len(changed) // 2] ^= 1
    weights.write_bytes(changed)

    assert revision(folder) != before


def test_a_revision_changes_with_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"12")
    revisions = {revision(tmp_path)}
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    revisions.add(revision(tmp_path))
    (tmp_path / "b.safetensors").write_bytes(b"1")
    (tmp_path / "c.safetensors").write_bytes(b"2")
    revisions.add(revision(tmp_path))

    assert len(revisions) == 3


def test_a_revision_ignores_notes_hidden_files_and_times(folder: Path) -> None:
    before = revision(folder)
    (folder / "MODEL_CARD.md").write_text("another card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("{}")
    os.utime(folder / TRANSFORMER, (0, 0))

    assert revision(folder) == before


@pytest.mark.parametrize("offset", [0, 2**30 // 63 * 31, 2**30 - 1])
def test_a_large_file_is_sampled_from_its_first_byte_to_its_last(tmp_path: Path, offset: int) -> None:
    large = tmp_path / "large.safetensors"
    large.touch()
    os.truncate(large, 2**30)  # sparse: takes no space
    before = revision(tmp_path)

    with large.open("r+b") as file:
        file.seek(offset)
        file.write(b"\1")

    assert revision(tmp_path) != before


def _change_tensors(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else tensors | {name: changed}, path, {"format": "pt"})
