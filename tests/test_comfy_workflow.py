"""What the ComfyUI source reads and checks before any server is asked: workflows, settings, pictures."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nightreel_pipelines.abilities import check
from nightreel_pipelines.comfyui.png import BrokenPng, NoPng, checked
from nightreel_pipelines.comfyui.settings import ComfyuiSettings
from nightreel_pipelines.comfyui.source import ComfyuiSource
from nightreel_pipelines.comfyui.workflow import Workflow, parse, revision
from nightreel_pipelines.errors import SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.recipe import Recipe, Start
from nightreel_queue.job import Job

SPEC = load_models()["comfyui-schnell"]
FOLDER = Path(__file__).parent.parent / "pipelines/nightreel_pipelines/comfyui/workflows"
PLAIN = (FOLDER / "flux-schnell.json").read_text()
OVER = (FOLDER / "flux-schnell-over-picture.json").read_text()
RECIPE = Recipe("comfyui/1", "r", "", "a boat", 7, steps=4, guidance=0.0, width=1360, height=768)


def changed(change: Callable[[dict[str, Any]], object], text: str = PLAIN) -> str:
    nodes: dict[str, Any] = json.loads(text)
    change(nodes)
    return json.dumps(nodes)


def mine(change: Callable[[dict[str, Any]], object], text: str = PLAIN) -> Workflow:
    return parse("mine.json", changed(change, text))


def retitled(key: str, title: str) -> Callable[[dict[str, Any]], None]:
    return lambda nodes: nodes[key]["_meta"].update(title=title)


# workflows


def test_a_recipe_fills_what_the_titles_name_and_nothing_else() -> None:
    workflow = parse("flux-schnell.json", PLAIN)

    filled = workflow.filled(RECIPE, "", "nightreel/abc")

    assert filled["6"]["inputs"]["text"] == "a boat"
    assert filled["33"]["inputs"]["text"] == ""
    assert (filled["31"]["inputs"]["seed"], filled["31"]["inputs"]["steps"]) == (7, 4)
    assert (filled["27"]["inputs"]["width"], filled["27"]["inputs"]["height"]) == (1360, 768)
    assert filled["9"]["inputs"]["filename_prefix"] == "nightreel/abc"
    before = json.loads(PLAIN)
    touched = {("6", "text"), ("31", "seed"), ("27", "width"), ("27", "height"), ("9", "filename_prefix")}
    for key, node in before.items():
        for name, value in node["inputs"].items():
            assert (filled[key]["inputs"][name] == value) or (key, name) in touched, (key, name)


def test_a_recipe_over_a_picture_runs_the_steps_that_its_noise_leaves() -> None:
    workflow = parse("over.json", OVER)

    filled = workflow.filled(Recipe(**{**vars_of(RECIPE), "start": Start("abc", 0.5)}), "nightreel/abc.png", "p")

    sampler = filled["31"]["inputs"]
    assert (sampler["denoise"], sampler["steps"], filled["34"]["inputs"]["image"]) == (0.5, 2, "nightreel/abc.png")
    assert workflow.over_picture


def vars_of(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


def test_prompts_of_fluxs_own_node_go_to_both_encoders() -> None:
    flux = {
        "class_type": "CLIPTextEncodeFlux",
        "inputs": {"clip_l": "", "t5xxl": "", "guidance": 3.5, "clip": ["11", 0]},
    }
    workflow = mine(lambda nodes: nodes.update({"6": flux | {"_meta": {"title": "my nightreel: Prompt"}}}))

    filled = workflow.filled(RECIPE, "", "")

    assert [filled["6"]["inputs"][name] for name in ("clip_l", "t5xxl", "guidance")] == ["a boat", "a boat", 3.5]


def test_a_changed_workflow_is_another_source_and_a_changed_title_is_not() -> None:
    same = [
        mine(retitled("8", "Decode")),
        mine(lambda nodes: nodes["31"]["inputs"].update(seed=99, steps=8)),
        mine(lambda nodes: nodes["9"]["inputs"].update(filename_prefix="other")),
        mine(lambda nodes: nodes["6"]["inputs"].update(text="some prompt of the window")),
    ]
    other = [
        mine(lambda nodes: nodes["31"]["inputs"].update(sampler_name="dpmpp_2m")),
        mine(lambda nodes: nodes["12"]["inputs"].update(unet_name="flux1-dev.safetensors")),
        mine(lambda nodes: nodes["33"]["inputs"].update(text="blurry")),
    ]
    own = revision(parse("flux-schnell.json", PLAIN))

    assert {revision(each) for each in same} == {own}
    assert len({own, *map(revision, other)}) == 4
    assert revision(parse("a", PLAIN), parse("b", OVER)) != own


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda nodes: nodes.pop(key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"workflow mine\.json is no JSON .*: export it again \(Workflow, Export \(API\)\)"),
        ("[]", r"holds no nodes"),
        ('{"nodes": [], "links": []}', r"is in the format of ComfyUI's window: export it in API format"),
        ('{"3": {"inputs": {}}}', r"node 3 lacks class_type or inputs"),
        (changed(retitled("6", "Prompt")), r"no node is titled nightreel:prompt: double-click its title.*node 6 \(CLIPText"),
        (changed(retitled("31", "nightreel:seed")), r"no node is titled nightreel:steps: .*; node 31 \(KSampler\) could"),
        (changed(retitled("27", "")), r"no node is titled nightreel:size: .*; node 27 \(EmptySD3LatentImage\) could be it"),
        (changed(retitled("8", "nightreel:colour")), r"node 8 \(VAEDecode\) is titled nightreel:colour; there are prompt"),
        (changed(retitled("8", "nightreel:seed")), r"node 8 \(VAEDecode\) is titled nightreel:seed, but has no input seed or"),
        (
            changed(lambda nodes: nodes["31"]["inputs"].update(seed=["40", 0])),
            r"node 31 \(KSampler\) is titled nightreel:seed, but has no input seed or noise_seed or value of its own",
        ),
        (changed(without("9")), r"no node gives a picture: end it in SaveImage, or title your own node nightreel:output"),
        (
            changed(lambda nodes: nodes.update({"50": nodes["9"] | {"_meta": {}}, "9": nodes["9"] | {"_meta": {}}})),
            r"node 9 \(SaveImage\), node 50 \(SaveImage\) give pictures: title the one to take nightreel:output",
        ),
        (changed(retitled("31", "nightreel:seed,steps"), OVER), r"no node is titled nightreel:strength"),
    ],
)  # fmt: skip
def test_a_workflow_that_cannot_be_filled_is_refused_with_the_node_and_the_mend(text: str, words: str) -> None:
    with pytest.raises(SourceUnavailable, match=words):
        parse("mine.json", text)


def test_one_workflow_draws_from_noise_and_at_most_one_over_a_picture(tmp_path: Path) -> None:
    def made(*texts: str, spec: ModelSpec = SPEC) -> ComfyuiSource:
        names = [tmp_path / f"{number}.json" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            name.write_text(text)
        return ComfyuiSource(spec, ComfyuiSettings(workflow=",".join(map(str, names))))

    assert not made(PLAIN).describe().abilities.init
    assert made(PLAIN, OVER).describe().abilities.init
    assert made(OVER, PLAIN).describe() == made(PLAIN, OVER).describe() == made().describe()
    for texts in ((OVER,), (PLAIN, PLAIN), (PLAIN, OVER, OVER)):
        with pytest.raises(
            SourceUnavailable, match="must name one workflow without nightreel:image, and at most one with"
        ):
            made(*texts)
    with pytest.raises(
        SourceUnavailable, match=r"workflow nowhere\.json cannot be read .*check NIGHTREEL_COMFYUI_WORKFLOW"
    ):
        ComfyuiSource(SPEC, ComfyuiSettings(workflow="nowhere.json"))


def test_an_entry_of_the_models_file_has_its_own_workflow_and_knows_its_options(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(changed(lambda nodes: nodes["33"]["inputs"].update(text="blurry")))
    own = SPEC.model_copy(update={"options": {"workflow": [str(tmp_path / "own.json")]}})

    description = ComfyuiSource(own, ComfyuiSettings(workflow="nowhere.json")).describe()

    assert description.revision == revision(parse("own.json", (tmp_path / "own.json").read_text()))
    with pytest.raises(SourceUnavailable, match="options that ComfyUI's source does not know"):
        ComfyuiSource(SPEC.model_copy(update={"options": {"worklow": "x"}}), ComfyuiSettings())


# what a job may ask for


def asked(**shot: Any) -> Job:
    return Job.model_validate_json(json.dumps({"shots": [{"prompt": "a boat"} | shot]}))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (asked(motion={"walk": {"to": "a tent"}}), "shots[0].motion: comfyui-schnell cannot make a walk: take still, zoom, pan"),
        (asked(motion={"feedback": {}}), "shots[0].motion: comfyui-schnell cannot make a feedback: take still, zoom"),
        (
            asked(control={"type": "pose", "image": "gs://pictures/pose.png"}),
            "shots[0].control: comfyui-schnell has no control checkpoint for pose",
        ),
        (asked(init={"image": "gs://pictures/a.png"}), "shots[0].init: comfyui-schnell draws over no picture: leave it out"),
    ],
)  # fmt: skip
def test_what_comfyui_cannot_do_is_told_before_anything_is_fetched(job: Job, words: str, tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(PLAIN)
    source = ComfyuiSource(SPEC, ComfyuiSettings(workflow=str(tmp_path / "plain.json")))

    with pytest.raises(Unrenderable, match=re.escape(words)):
        check(job, SPEC, source.describe())
    check(asked(motion={"zoom": [1, 1.2]}), SPEC, source.describe())


def test_an_entry_with_sides_that_latents_do_not_have_is_refused_with_the_mend() -> None:
    odd = SPEC.model_copy(update={"multiple": 8, "megapixels": 0.9})

    with pytest.raises(Unrenderable, match="multiples of 16: have its entry of the models file say multiple = 16"):
        check(asked(), odd, ComfyuiSource(SPEC, ComfyuiSettings()).describe())


# settings


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ("127.0.0.1:8188", "each must be http://HOST:PORT or https://HOST"),
        ("http://a:8188,ftp://b", "each must be http://HOST:PORT"),
        ("http://me:secret@a:8188", "must hold no password and no ?"),
        ("https://a/?token=x", "must hold no password and no ?"),
        ("http://a:port", "Port could not be cast"),
    ],
)
def test_addresses_that_are_none_are_refused(servers: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        ComfyuiSettings(servers=servers)


def test_several_servers_are_named_between_commas_each_once() -> None:
    settings = ComfyuiSettings(servers="http://a:1/, https://b/comfy ,http://a:1")

    assert settings.addresses == ("http://a:1", "https://b/comfy")
    assert ComfyuiSource(SPEC, settings).lanes == 3


# pictures


def png(mode: str = "RGB", size: tuple[int, int] = (32, 16), **how: Any) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(out, "PNG", **how)
    return out.getvalue()


def test_a_picture_keeps_its_pixels_and_loses_what_else_comfyui_wrote_into_it() -> None:
    info = PngInfo()
    info.add_text("prompt", "a secret")

    kept = checked(png(pnginfo=info), 32, 16)

    assert b"secret" not in kept
    with Image.open(io.BytesIO(kept)) as image:
        assert image.tobytes() == Image.open(io.BytesIO(png())).tobytes()
        assert image.info == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xd8\xff\xe0 JFIF", r"is no PNG \(a JPEG\)"),
        (b"<html>log in</html>", r"is no PNG \(a page of HTML\)"),
        (png(size=(16, 16)), "is 16x16, and 32x16 was asked for"),
        (png("RGBA"), "another kind than 8-bit RGB"),
        (png("L"), "another kind than 8-bit RGB"),
        (png("P"), "another kind than 8-bit RGB"),
    ],
)
def test_what_is_no_keyframe_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(NoPng, match=words):
        checked(data, 32, 16)


def test_a_picture_that_was_cut_or_damaged_anywhere_is_noticed() -> None:
    whole = png()
    for at in range(8, len(whole) - 1, 7):
        with pytest.raises((BrokenPng, NoPng)):
            checked(whole[:at], 32, 16)
        with pytest.raises((BrokenPng, NoPng)):
            checked(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], 32, 16)


def test_pixels_that_are_too_few_or_far_too_many_are_refused_without_unpacking_them() -> None:
    head, tail = png()[:33], b"\0\0\0\0IEND\xaeB`\x82"
    for pixels in (b"", bytes(97 * 15), bytes(97 * 17), bytes(50_000_000), b"\x09" * (97 * 16)):
        body = zlib.compress(pixels)
        chunk = len(body).to_bytes(4, "big") + b"IDAT" + body + zlib.crc32(b"IDAT" + body).to_bytes(4, "big")
        with pytest.raises(BrokenPng, match="its pixels are not as many as its size says"):
            checked(head + chunk + tail, 32, 16)
