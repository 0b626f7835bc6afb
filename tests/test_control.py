"""Pose control by tiny checkpoints of random weights: the same pictures as diffusers' own pipeline, in every way of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from diffusers import FluxControlNetModel, FluxControlNetPipeline, FluxPipeline
from PIL import Image

from nightreel_pipelines.base import Picture
from nightreel_pipelines.errors import OutOfMemory, SourceUnavailable
from nightreel_pipelines.flux import FluxSource, placing
from nightreel_pipelines.flux.checkpoints import sizes_gib
from nightreel_pipelines.flux.noise import make_noise
from nightreel_pipelines.flux.placing import Card, Sizes, place
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Control, Recipe, Start, Toward, Warp

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")  # pytest has its own list

SIZE = (64, 48)
PLAIN: dict[str, Any] = {}
UNION = {"num_mode": 7}
EYES = {"conditioning_embedding_channels": 16, "patch_size": 2, "num_layers": 2}
GUIDED = {"guidance_embeds": True}
TWO_LAYERS = {"num_layers": 2, "num_single_layers": 0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both tiny models lie, and checkpoints of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_flux.build(folder / "schnell", sure=True)
    tiny_flux.build(folder / "dev", dev=True, sure=True)
    for name, config in {"plain": PLAIN, "union": UNION, "guided": GUIDED, "two": TWO_LAYERS, "eyes": EYES}.items():
        tiny_flux.build_control(folder / name, **config)
    return folder


def spec_of(model: str, control: str | None, **fields: Any) -> ModelSpec:
    said: dict[str, Any] = {"name": model, "source": "flux", "megapixels": 0.01, "prompt_tokens": 77, "max_steps": 50}
    said |= {"guidance": 3.5} if model == "dev" or control == "guided" else {}
    said |= {"control": {"pose": control}} if control else {}
    return ModelSpec.model_validate(said | fields)


def load(weights: Path, control: str | None = "plain", model: str = "schnell", **fields: Any) -> FluxSource:
    source = FluxSource(spec_of(model, control, **fields), weights)
    source.load()
    return source


def poses(number: int) -> dict[str, Picture]:
    """Sticks on black, each other ones."""
    made = {}
    for index in range(number):
        picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        picture[8:40, 10 + 12 * index : 14 + 12 * index] = (255, 85 * index, 0)
        picture[20 + 4 * index : 24 + 4 * index, 6:58] = (0, 255, 85 * index)
        made[f"pose {index}"] = picture
    return made


POSES = poses(3)


def recipe(source: FluxSource, pose: int | None = 0, **fields: Any) -> Recipe:
    what = source.describe()
    control = {name: fields.pop(name) for name in ("scale", "start_at", "end_at") if name in fields}
    made = Recipe(
        what.source, what.revision, what.precision, "a dancer", seed=1, steps=4, guidance=source._spec.guidance,
        width=SIZE[0], height=SIZE[1],
    )  # fmt: skip
    if pose is not None:
        scale, start, end = control.get("scale", 0.7), control.get("start_at", 0.0), control.get("end_at", 1.0)
        made = replace(made, control=Control("pose", f"pose {pose}", scale, start, end, what.controls["pose"]))
    return replace(made, **fields)


def draw(source: FluxSource, *recipes: Recipe, **pictures: Picture) -> list[Picture]:
    known = POSES | pictures
    made = []
    for wanted, found in source.keyframes(recipes, known.__getitem__, lambda: None):
        known[wanted.fingerprint] = found
        made.append(found)
    return made


def far(one: Picture, other: Picture) -> int:
    return int(np.abs(one.astype(int) - other).max())


def latents_of(source: FluxSource, *recipes: Recipe) -> list[torch.Tensor]:
    """What is decoded: float32 (1, channels, h, w) for each."""
    assert source._engine is not None
    seen: list[torch.Tensor] = []
    handle = source._engine._pipe.vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        draw(source, *recipes)
    finally:
        handle.remove()
    return seen


def pipeline(weights: Path, control: str, model: str) -> FluxControlNetPipeline:
    """diffusers' own, from the same files, in fp32."""
    net = FluxControlNetModel.from_pretrained(weights / control)
    pipe = FluxControlNetPipeline.from_pipe(FluxPipeline.from_pretrained(weights / model), controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe: FluxControlNetPipeline, wanted: Recipe, mode: int | None = None) -> torch.Tensor:
    """Latents that diffusers' own pipeline makes of a recipe, as the decoder gets them."""
    assert wanted.control is not None
    noise = make_noise(pipe, wanted)
    packed = pipe(
        wanted.prompt,
        control_image=Image.fromarray(POSES[wanted.control.picture]),
        control_mode=mode,
        controlnet_conditioning_scale=wanted.control.scale,
        control_guidance_start=wanted.control.start,
        control_guidance_end=wanted.control.end,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        latents=pipe._pack_latents(noise, *noise.shape),
        generator=torch.Generator().manual_seed(0),  # of the VAE, which has no doubt here
        width=wanted.width,
        height=wanted.height,
        max_sequence_length=77,
        output_type="latent",
    ).images
    latents = pipe._unpack_latents(packed, wanted.height, wanted.width, pipe.vae_scale_factor)
    found: torch.Tensor = latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    return found


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


# The same as diffusers' own


@pytest.mark.parametrize(
    ("control", "model", "mode"),
    [
        ("plain", "schnell", None),
        ("union", "schnell", 4),
        ("guided", "schnell", None),
        ("guided", "dev", None),
        ("two", "dev", None),
        ("eyes", "dev", None),
    ],
)
def test_a_steered_picture_is_the_one_that_diffusers_own_pipeline_makes(
    weights: Path, control: str, model: str, mode: int | None
) -> None:
    source, pipe = load(weights, control, model), pipeline(weights, control, model)
    windows = [(0.0, 1.0), (0.25, 0.75), (0.0, 0.65), (0.5, 1.0)]
    wanted = [
        recipe(source, pose, start_at=start, end_at=end, scale=1.3, seed=pose)
        for pose, (start, end) in enumerate(windows[:3])
    ] + [recipe(source, start_at=0.5)]

    ours = latents_of(source, recipe(source, None), *wanted)

    assert max(apart(found, theirs(pipe, each, mode)) for found, each in zip(ours[1:], wanted, strict=True)) < 1e-5
    # and not because nothing happens
    assert min(apart(ours[0], found) for found in (ours[1], ours[4])) > 0.1
    assert apart(ours[1], ours[4]) > 0.05


def test_the_very_start_and_end_of_the_steps_are_counted_as_diffusers_counts_them(weights: Path) -> None:
    """Steps that lie partly outside do not count: 0.26 of four steps leaves out two."""
    source, pipe = load(weights, "two", "dev"), pipeline(weights, "two", "dev")
    wanted = [recipe(source, start_at=0.26), recipe(source, start_at=0.5), recipe(source, end_at=0.749)]

    ours = latents_of(source, *wanted)

    assert torch.equal(ours[0], ours[1])
    assert max(apart(found, theirs(pipe, each)) for found, each in zip(ours, wanted, strict=True)) < 1e-5
    assert apart(ours[1], ours[2]) > 0.05


# In every way of ours


def test_keyframes_made_together_have_each_its_own_picture_scale_and_steps(weights: Path) -> None:
    alone, together = load(weights, "union"), load(weights, "union", batch=6)
    batches = counted(together)
    wanted = [
        recipe(alone, 0, scale=0.5),
        recipe(alone, 1, scale=1.5, prompt="a runner"),
        recipe(alone, 0, end_at=0.5, seed=3),
        recipe(alone, 2, scale=0.0),
        recipe(alone, None),
        recipe(alone, None, seed=3),
    ]

    one_by_one, at_once = latents_of(alone, *wanted), latents_of(together, *wanted)

    assert batches == [4] * 4 + [2] * 4  # what is steered is not made together with what is not
    assert max(map(apart, one_by_one, at_once)) < 1e-5
    assert apart(one_by_one[0], one_by_one[1]) > 0.1


def counted(source: FluxSource) -> list[int]:
    """How many keyframes each run of the transformer makes from now on."""
    assert source._engine is not None
    sizes: list[int] = []
    source._engine._pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    return sizes


def test_walks_feedback_and_what_is_drawn_over_a_picture_are_steered_too(weights: Path) -> None:
    source = load(weights, "plain")
    first, plain = recipe(source), recipe(source, None)
    changes: list[dict[str, Any]] = [
        {"toward": Toward("a runner", 2, 0.5)},
        {"start": Start("pose 2", 0.6)},
        {"start": Start(first.fingerprint, 0.55, Warp(1.1, (0.0, 0.0), 2.0, 0.3), colors=first.fingerprint)},
    ]

    drawn = dict(zip(["first", "plain"], draw(source, first, plain), strict=True))
    for change in changes:
        steered, free = draw(
            source, replace(first, **change), replace(plain, **change), **{first.fingerprint: drawn["first"]}
        )
        assert far(steered, free) > 20


def test_a_checkpoint_runs_only_in_the_steps_that_it_steers(weights: Path) -> None:
    source = load(weights, "plain")
    assert source._engine is not None
    runs: list[None] = []
    source._engine._loader.controls["pose"].register_forward_pre_hook(lambda *_: runs.append(None))

    counts = []
    for wanted in (
        recipe(source, None),
        recipe(source, end_at=0.65),
        recipe(source, scale=0.0),
        recipe(source, start=Start("pose 1", 0.55)),
    ):
        runs.clear()
        draw(source, wanted)
        counts.append(len(runs))

    assert counts == [0, 2, 0, 3]


def test_a_job_called_off_while_it_is_steered_leaves_the_next_one_unsteered(weights: Path) -> None:
    source = load(weights, "plain")
    (wanted,) = draw(source, recipe(source, None))

    def stop() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            list(source.keyframes([recipe(source)], POSES.__getitem__, stop))
    assert np.array_equal(draw(source, recipe(source, None))[0], wanted)


def test_a_picture_of_another_size_is_fitted_as_one_that_is_drawn_over(weights: Path) -> None:
    source = load(weights, "plain")
    large = np.kron(POSES["pose 0"], np.ones((4, 4, 1), np.uint8))
    wide = np.pad(large, ((0, 0), (100, 100), (0, 0)))

    found = draw(source, recipe(source), **{"pose 0": large}), draw(source, recipe(source, seed=1), **{"pose 0": wide})

    assert far(found[0][0], found[1][0]) == 0


def test_the_same_picture_is_read_once_for_a_whole_shot(weights: Path) -> None:
    source = load(weights, "plain")
    assert source._engine is not None
    reads: list[None] = []
    source._engine._pipe.vae.encoder.register_forward_pre_hook(lambda *_: reads.append(None))

    draw(source, *(recipe(source, seed=seed) for seed in range(4)), recipe(source, width=32))

    assert len(reads) == 2  # one for each size


def test_modulation_ahead_changes_no_bit_of_a_steered_picture_or_of_a_guided_one(weights: Path) -> None:
    plain, exact = (load(weights, "guided", "dev", precision=precision) for precision in ("bf16", "bf16-exact"))
    wanted = [recipe(plain), recipe(plain, None), recipe(plain, guidance=1.5)]

    made, again = draw(plain, *wanted), draw(exact, *wanted)

    assert all(map(np.array_equal, made, again))
    assert far(made[1], made[2]) > 0
    assert exact._engine is not None
    assert exact._engine._loader.modulation is not None
    assert exact._engine._loader.modulation.passes == 2  # one for each guidance


def test_a_steered_picture_in_bf16_is_nearly_that_in_fp32(weights: Path) -> None:
    fine, coarse = load(weights, "plain"), load(weights, "plain", precision="bf16")

    (one, free), (other,) = draw(fine, recipe(fine), recipe(fine, None)), draw(coarse, recipe(coarse))

    assert 0 < np.abs(one.astype(int) - other).mean() < np.abs(one.astype(int) - free).mean() / 3


def test_prepared_weights_are_steered_too(weights: Path) -> None:
    from nightreel_pipelines.flux.prepare import FolderTarget, Preparation

    Preparation(weights / "schnell", "tiny", FolderTarget(weights / "small")).run(lambda step: None)
    source = load(weights, "plain", "small")

    steered, free = draw(source, recipe(source), recipe(source, None))

    assert far(steered, free) > 20


# Memory


def test_what_a_checkpoint_takes_is_part_of_what_must_fit(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("schnell", "plain")
    net = FluxControlNetModel.from_pretrained(weights / "plain")
    elements = sum(each.numel() for each in net.parameters())
    assert sizes_gib(spec, spec.control_folders(weights)) == pytest.approx(2 * elements / 2**30)

    schnell = Sizes(transformer=22.15, modulation=6.01, t5=8.87, others=0.38)  # GiB in bfloat16
    monkeypatch.setattr(placing, "sizes_of", lambda folder: schnell)
    a6000 = Card("RTX A6000", (8, 6), 38.0)
    without, beside = (place("auto", weights, a6000, prepared=False, beside_gib=gib) for gib in (0.0, 4.0))
    assert (without.modulation_on_host, beside.modulation_on_host, beside.t5_on_host) == (False, True, False)
    assert place("auto", weights, replace(a6000, memory_gib=29.0), prepared=False, beside_gib=4.0).t5_on_host
    with pytest.raises(SourceUnavailable, match=r"needs 24\.5 GiB of GPU memory at least, 4\.0 of it for control"):
        place("auto", weights, Card("L4", (8, 9), 22.0), prepared=False, beside_gib=4.0)


def test_a_source_counts_its_checkpoints_when_it_looks_at_its_card(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightreel_pipelines.flux.source._card", lambda spec: Card("a small card", (8, 9), 4.0))

    with pytest.raises(
        SourceUnavailable, match=r"at least, 0\.0 of it for control checkpoints, a small card gives 4\.0"
    ):
        FluxSource(spec_of("schnell", "plain"), weights).describe()


def test_the_placement_tells_where_the_checkpoint_lies_and_loading_counts_its_bytes(weights: Path) -> None:
    source = FluxSource(spec_of("schnell", "plain"), weights)
    heard: list[tuple[int, int]] = []
    source.expect([], lambda done, whole, _: heard.append((done, whole)))
    source.load()

    assert source.placement.endswith("; control.pose: 0.00 GiB fp32 on cpu")
    assert heard[-1][0] == heard[-1][1] > (weights / "plain/diffusion_pytorch_model.safetensors").stat().st_size


def test_a_steered_keyframe_goes_down_the_ladder_and_is_made_all_the_same(weights: Path) -> None:
    """Whatever its checkpoint makes counts, too: what did not fit is told by a size that was tried with it."""
    limit = [float("inf")]
    largest = [0]

    def allocating(elements: int) -> None:
        largest[0] = max(largest[0], elements)
        if elements > limit[0] and "VAE in stripes" not in source.placement:
            raise torch.OutOfMemoryError("full")

    source = FluxSource(spec_of("schnell", "plain", batch=2), weights, allocating=allocating)
    source.load()
    wanted = [recipe(source), recipe(source, 1)]
    free = draw(source, *wanted)

    limit[0] = 1000
    found = draw(source, *wanted)

    assert all(far(one, other) <= 1 for one, other in zip(free, found, strict=True))


def test_a_steered_keyframe_that_does_not_fit_hears_of_a_size_that_was_steered(weights: Path) -> None:
    limit = [10.0**9]
    net_runs: list[int] = []

    def allocating(elements: int) -> None:
        if elements > limit[0]:
            raise torch.OutOfMemoryError("full")

    source = FluxSource(spec_of("schnell", "plain"), weights, allocating=allocating)
    source.load()
    assert source._engine is not None
    source._engine._loader.controls["pose"].register_forward_pre_hook(
        lambda _, args, kwargs: net_runs.append(kwargs["hidden_states"].shape[1]), with_kwargs=True
    )
    limit[0] = 40_000

    with pytest.raises(OutOfMemory, match=r"lower render\.megapixels to 0\.0\d \((\d+)x(\d+) fits\)"):
        draw(source, recipe(source, end_at=0.65, width=256, height=256))
    assert net_runs  # in one step of the size that fits


# Folders that cannot be used


@pytest.fixture
def broken(weights: Path, tmp_path: Path) -> Path:
    """A weights root of one model, with a checkpoint to be damaged."""
    (tmp_path / "schnell").symlink_to(weights / "schnell")
    shutil.copytree(weights / "plain", tmp_path / "pose")
    return tmp_path


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


FILE = "pose/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: shutil.rmtree(root / "pose"), r"control\.pose of model schnell: no folder \S+pose; put its weights"),
        (lambda root: (root / "pose/config.json").unlink(), r"pose/config\.json cannot be read .*; put a FluxControlNetModel"),
        (lambda root: (root / "pose/config.json").write_text("[]"), r"pose/config\.json holds no configuration"),
        (lambda root: configure(root / "pose", _class_name="FluxTransformer2DModel"), "holds a FluxTransformer2DModel; a Flux"),
        (lambda root: configure(root / "pose", in_channels=32), r"has in_channels 32, the transformer 64: take a checkpoint"),
        (lambda root: configure(root / "pose", num_mode=4), r"has 4 modes; pose is mode 4 of union checkpoints"),
        (lambda root: configure(root / "pose", guidance_embeds=True), r"model schnell reads guidance: set it in its entry"),
        (lambda root: (root / FILE).rename(root / "pose/model.bin"), r"control\.pose \(\S+\): pose holds 0 files \*\.safetensors.*copy"),
        (lambda root: (root / FILE).write_bytes(b"cut"), r"control\.pose \(\S+\): \S+ is cut off, .*copy the whole checkpoint"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_used_is_told_before_anything_is_loaded(
    broken: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(broken)

    with pytest.raises(SourceUnavailable, match=said):
        FluxSource(spec_of("schnell", "pose"), broken).describe()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_layers": 2}, r"control\.pose: cannot load \S+pose: pose lacks controlnet_blocks\.1\.bias"),
        ({"num_mode": 5}, r"control\.pose: cannot load \S+pose: pose lacks controlnet_mode_embedder\.weight; copy"),
        ({"patch_size": "x", "num_layers": "x"}, r"control\.pose: cannot load \S+pose: .*; copy the whole checkpoint"),
    ],
)
def test_missing_tensors_are_an_error_not_random_numbers(broken: Path, changes: dict[str, Any], said: str) -> None:
    configure(broken / "pose", **changes)

    with pytest.raises(SourceUnavailable, match=said):
        FluxSource(spec_of("schnell", "pose"), broken).load()


def test_guidance_that_nobody_reads_is_refused(weights: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"model schnell reads no guidance .*remove it"):
        FluxSource(spec_of("schnell", "plain", guidance=2.0), weights).describe()
    with pytest.raises(SourceUnavailable, match=r"model dev reads guidance: set it"):
        FluxSource(spec_of("dev", None, guidance=0.0), weights).describe()


def test_a_checkpoint_has_a_revision_of_its_own_and_changes_none_of_the_model(weights: Path) -> None:
    without, plain, union = (
        FluxSource(spec_of("schnell", name), weights).describe() for name in (None, "plain", "union")
    )

    assert without.controls == {}
    assert plain.controls.keys() == union.controls.keys() == {"pose"}
    assert plain.controls != union.controls
    assert without == replace(plain, controls={}) == replace(union, controls={})
