"""Memory that runs short: what is given up, in which order, what a job hears, and that the next one has all again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nightreel_pipelines.base import Picture, no_pictures
from nightreel_pipelines.errors import OutOfMemory
from nightreel_pipelines.flux import FluxSource, stripes
from nightreel_pipelines.flux.loading import load_pipeline
from nightreel_pipelines.flux.placing import Placement
from nightreel_pipelines.flux.stripes import decode
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.recipe import Recipe

POCKET_FOLDER = load_models()["pocket"].folder(None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_flux.build(folder)
    return folder


class Memory:
    """Stands for a GPU's: no tensor may have more elements than `most`, which may depend on what the source has given up."""

    def __init__(self) -> None:
        self.most: Callable[[], float] = lambda: float("inf")
        self.largest = 0

    def __call__(self, elements: int) -> None:
        self.largest = max(self.largest, elements)
        if elements > self.most():
            raise torch.OutOfMemoryError(f"no room for {elements} numbers")


def source_of(folder: Path, memory: Memory, **fields: object) -> FluxSource:
    spec = {"name": "tiny", "source": "flux", "megapixels": 0.01, "prompt_tokens": 77, "weights": str(folder)}
    source = FluxSource(ModelSpec.model_validate(spec | fields), None, allocating=memory)
    source.load()
    return source


def recipes_for(source: FluxSource, number: int, **changes: Any) -> list[Recipe]:
    what = source.describe()
    recipe = Recipe(
        what.source, what.revision, what.precision, "a sun", seed=1, steps=1, guidance=0, width=64, height=64
    )
    return [replace(recipe, seed=seed, **changes) for seed in range(number)]


def make(source: FluxSource, recipes: list[Recipe]) -> list[Picture]:
    return [picture for _, picture in source.keyframes(recipes, no_pictures, lambda: None)]


def needed(source: FluxSource, memory: Memory, recipes: list[Recipe]) -> int:
    """Elements of the largest tensor that these recipes make."""
    memory.largest = 0
    make(source, recipes)
    return memory.largest


# The ladder


def test_fewer_keyframes_are_made_at_once_first_and_the_next_job_begins_with_all(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory, batch=4)
    batches: list[int] = []
    assert source._engine is not None
    source._engine._pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: batches.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    recipes = recipes_for(source, 5)
    make(source, recipes)
    assert batches == [4, 1]

    memory.most = lambda: float("inf") if "keyframes at once" in source.placement else 1000
    batches.clear()
    assert [recipe for recipe, _ in source.keyframes(recipes, no_pictures, lambda: None)] == recipes
    assert batches == [2, 2, 1]  # four did not even begin

    memory.most = lambda: float("inf")
    batches.clear()
    make(source, recipes)
    assert batches == [4, 1]


def test_pictures_come_in_their_order_whatever_did_not_fit_at_once(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory, batch=3)
    recipes = recipes_for(source, 4)[:2] + recipes_for(source, 3, width=32)
    alone = source_of(tiny, Memory())

    made = list(source.keyframes(recipes, no_pictures, lambda: None))

    assert [recipe for recipe, _ in made] == recipes
    for (_, picture), wanted in zip(made, make(alone, recipes), strict=True):
        assert np.abs(picture.astype(int) - wanted).max() <= 1  # the last bits depend on the neighbours


def test_then_the_decoder_works_in_stripes_and_the_picture_stays_what_it_was(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory)
    recipes = recipes_for(source, 1)
    whole = make(source, recipes)[0]

    memory.most = lambda: float("inf") if "VAE in stripes" in source.placement else 1000

    assert np.abs(make(source, recipes)[0].astype(int) - whole).max() <= 1


def test_then_t5_leaves_the_device_and_is_back_for_the_next_job(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory)
    recipes = recipes_for(source, 1)
    wanted = make(source, recipes)[0]

    memory.most = lambda: float("inf") if "T5 on the host" in source.placement else 1000
    prompts = recipes_for(source, 1, prompt="another one")
    frames = source.keyframes([*recipes, *prompts], no_pictures, lambda: None)
    first = next(frames)[1]

    assert "T5 on the host" in source.placement
    assert np.array_equal(first, wanted)
    list(frames)
    assert "T5 on the host" not in source.placement


def test_a_prompt_that_does_not_fit_sends_t5_to_the_host_at_once(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory)
    plain = source_of(tiny, Memory())
    recipes = recipes_for(source, 1, prompt="read by a T5 on the host")
    memory.most = lambda: float("inf") if "T5 on the host" in source.placement else 1000

    assert np.array_equal(make(source, recipes)[0], make(plain, recipes)[0])


def test_at_the_end_the_job_fails_and_hears_what_would_fit_and_the_next_one_is_made(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory)
    small = recipes_for(source, 1)
    fits = needed(source, memory, small)
    memory.most = lambda: fits

    with pytest.raises(OutOfMemory) as told:
        make(source, recipes_for(source, 1, width=256, height=256))

    assert str(told.value) == (
        "not enough memory for a keyframe of 256x256 (VAE in stripes, T5 on the host): "
        "lower render.megapixels to 0.00 (64x64 fits), or use a larger machine"
    )
    assert len(make(source, small)) == 1
    assert "stripes" not in source.placement


def test_a_source_that_has_made_nothing_yet_tries_what_would_fit(tiny: Path) -> None:
    memory = Memory()
    other = source_of(tiny, memory)
    fits = needed(other, memory, recipes_for(other, 1, width=128, height=128))
    fresh = source_of(tiny, memory)
    memory.most = lambda: fits

    with pytest.raises(OutOfMemory, match=r"to 0\.02 \(128x128 fits\)"):
        make(fresh, recipes_for(fresh, 1, width=512, height=512))


def test_when_nothing_fits_at_all_the_job_hears_no_size(tiny: Path) -> None:
    memory = Memory()
    source = source_of(tiny, memory)
    recipes = recipes_for(source, 1)
    make(source, recipes)
    memory.most = lambda: 0

    with pytest.raises(OutOfMemory, match=r"lower render\.megapixels, or use a larger machine"):
        make(source, recipes)


# Stripes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", ["pocket", "tiny"])
def test_stripes_are_the_whole_picture_but_for_rounding_and_leave_no_seam(
    tiny: Path, model: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripes, "STRIPE_ELEMENTS", 40_000)  # a few rows each
    pipe = load_pipeline(POCKET_FOLDER if model == "pocket" else tiny, Placement("fp32", "cpu"))
    vae = pipe.vae.to(dtype)
    with torch.inference_mode():
        latents = vae.encode(_smooth_picture(256, 192).to(dtype)).latent_dist.mode()
        whole, striped = decode(vae, latents).float(), decode(vae, latents, striped=True).float()

    scale = (whole.max() - whole.min()).item()
    rounding = 1e-5 if dtype == torch.float32 else 0.03
    assert (striped - whole).abs().max() < rounding * scale
    # A seam would be a row or column where neighbours differ more than they do in the whole picture
    assert (_jumps(striped) - _jumps(whole)).abs().max() < rounding / 5 * scale


def test_stripes_need_a_third_less_memory() -> None:
    vae = load_pipeline(POCKET_FOLDER, Placement("fp32", "cpu")).vae
    latents = torch.randn(1, vae.config.latent_channels, 64, 64)
    peaks = {}
    for striped in (False, True):
        with torch.inference_mode(), pytest.MonkeyPatch.context() as patch, Peak() as peak:
            patch.setattr(stripes, "STRIPE_ELEMENTS", 1 << 16)
            decode(vae, latents, striped=striped)
        peaks[striped] = peak.most_bytes

    assert peaks[True] < 0.7 * peaks[False]


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors which were made inside held at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held: dict[int, int] = {}
        self.most_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._held:
                    self._held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._held.pop, storage._cdata, None)
        self.most_bytes = max(self.most_bytes, sum(self._held.values()))
        return made


def test_a_picture_above_two_megapixels_is_decoded_in_stripes_and_below_whole(tiny: Path) -> None:
    source = source_of(tiny, Memory())
    assert source._engine is not None
    decoded: list[int] = []
    source._engine._pipe.vae.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[0].shape[-1]))

    picture = make(source, recipes_for(source, 1, width=2048, height=2048))[0]
    assert picture.shape == (2048, 2048, 3)
    assert decoded == []

    make(source, recipes_for(source, 1, width=1024, height=64))
    assert decoded == [128]


def _smooth_picture(height: int, width: int) -> torch.Tensor:
    """A sky, a hill and a sun: (1, 3, height, width) from -1 to 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    sun = torch.exp(-12 * ((x - 0.3) ** 2 + (y + 0.4) ** 2))
    hill = torch.sigmoid(25 * (y - 0.3 * torch.sin(3 * x)))
    return torch.stack([y * 0.5 + sun, 0.4 * hill - 0.2, -y * 0.6 - sun]).clamp(-1, 1)[None]


def _jumps(pixels: torch.Tensor) -> torch.Tensor:
    """Mean difference of each pair of neighbouring columns and rows; a seam is a peak."""
    columns = (pixels[..., 1:] - pixels[..., :-1]).abs().mean(dim=(0, 1, 2))
    rows = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    return torch.cat([columns, rows])
