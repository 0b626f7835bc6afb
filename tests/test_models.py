"""Models by name, from Nightreel's own file and the operator's."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.models import ModelSpec, load_models, make_source, own_steps


def spec_of(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "ours", "source": "flux", "megapixels": 1.0} | fields)


def write(folder: Path, text: str) -> Path:
    file = folder / "models.toml"
    file.write_text(text)
    return file


# Nightreel's own models


def test_the_models_that_the_documentation_names_are_there() -> None:
    models = load_models()

    assert {"pocket", "flux-schnell", "testcard"} <= set(models)
    assert all(name == spec.name and spec.summary for name, spec in models.items())


def test_pocket_brings_its_weights_and_their_card_in_the_package() -> None:
    folder = load_models()["pocket"].folder(None)

    assert (folder / "model_index.json").is_file()
    assert (folder / "MODEL_CARD.md").is_file()


def test_schnell_pads_to_what_its_prompts_may_have() -> None:
    schnell = load_models()["flux-schnell"]

    assert schnell.prompt_tokens == max(schnell.sequence) == 256
    assert schnell.guidance == 0


def test_dev_draws_with_the_defaults_of_diffusers_own_pipeline() -> None:
    dev = load_models()["flux-dev"]

    assert (dev.steps, dev.max_steps, dev.guidance) == (28, 50, 3.5)
    assert (dev.longest_prompt, dev.lengths) == (512, (512,))


def test_a_model_that_says_nothing_else_takes_four_steps_and_eight_at_most() -> None:
    models = load_models()

    assert {(models[name].steps, models[name].max_steps) for name in ("pocket", "flux-schnell", "testcard")} == {(4, 8)}
    assert own_steps(models) == {
        "pocket": 4, "flux-schnell": 4, "flux-dev": 28, "comfyui-schnell": 4, "testcard": 4,
        "gemini-veo": 1, "gemini-veo-fast": 1,
    }  # fmt: skip


def test_control_checkpoints_lie_where_weights_do(tmp_path: Path) -> None:
    (tmp_path / "poses").mkdir()

    assert spec_of(control={"pose": "poses"}).control_folders(tmp_path) == {"pose": tmp_path / "poses"}
    assert spec_of().control_folders(None) == {}
    with pytest.raises(SourceUnavailable, match=r"control\.pose of model ours needs weights: set NIGHTREEL_WEIGHTS"):
        spec_of(control={"pose": "poses"}).control_folders(None)


def test_the_models_file_tells_every_field_of_an_entry() -> None:
    text = files("nightreel_pipelines").joinpath("models.toml").read_text(encoding="utf-8")
    told = [word for line in re.findall(r"^# ([a-z][a-z_, ]*?)  ", text, re.MULTILINE) for word in line.split(", ")]

    assert sorted(told) == sorted(ModelSpec.model_fields.keys() - {"name"})


def test_models_are_read_without_torch() -> None:
    script = """
import sys
from nightreel_pipelines.models import load_models, make_source
make_source(load_models()["pocket"], None)
print(sorted({"torch", "diffusers", "transformers", "numpy"} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert out.stdout == "[]\n"


# The operator's file


def test_an_operators_models_join_nightreels_own(tmp_path: Path) -> None:
    models = load_models(write(tmp_path, '[ours]\nsource = "flux"\nmegapixels = 0.5\n'))

    assert models["ours"].megapixels == 0.5
    assert models["pocket"] == load_models()["pocket"]


def test_an_operators_model_replaces_one_of_the_same_name_whole_and_for_this_call_alone(tmp_path: Path) -> None:
    own = load_models()["flux-schnell"]

    theirs = load_models(write(tmp_path, '[flux-schnell]\nsource = "flux"\nmegapixels = 0.5\n'))["flux-schnell"]

    assert (theirs.megapixels, theirs.summary) == (0.5, "")
    assert load_models()["flux-schnell"] == own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\nstep = 4\n', "step"),
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\nsteps = 28\n', "28 are more than max_steps .8.: raise max_steps"),
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\nmax_steps = 99\n', "max_steps"),
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\ncontrol = {depth = "x"}\n', "control.depth"),
        (
            '[ours]\nsource = "flux"\nmegapixels = 1.0\nmax_sequence_length = 512\nprompt_tokens = 256\n',
            "max_sequence_length: stands for prompt_tokens and sequence: leave those out",
        ),
        ('[ours]\nsource = "flux"\n', "megapixels"),
        ('[ours]\nsource = "flux"\nmegapixels = 0\n', "megapixels"),
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\nprecision = "int4"\n', "precision"),
        ('[ours]\nsource = "flux"\nmegapixels = 1.0\nsequence = [64]\n', "the longest must hold prompt_tokens"),
        ('["../ours"]\nsource = "flux"\nmegapixels = 1.0\n', "name"),
        ("[ours\n", "line 1"),
    ],
)
def test_an_operators_file_that_cannot_be_used_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, said: str
) -> None:
    file = write(tmp_path, text)

    with pytest.raises(SourceUnavailable, match=f"(?s)cannot use models file {file}: .*{said}"):
        load_models(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"cannot use models file .*absent\.toml"):
        load_models(tmp_path / "absent.toml")


def test_a_spec_cannot_be_changed_and_knows_all_its_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec_of().megapixels = 2.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="stepps"):
        spec_of(stepps=4)


# Weights


def test_weights_lie_under_the_weights_root_by_the_models_name_or_another(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()

    assert spec_of().folder(tmp_path) == tmp_path / "ours"
    assert spec_of(weights="theirs").folder(tmp_path) == tmp_path / "theirs"


def test_an_absolute_folder_needs_no_weights_root(tmp_path: Path) -> None:
    assert spec_of(weights=str(tmp_path)).folder(None) == tmp_path
    assert spec_of(weights=str(tmp_path)).folder(tmp_path / "elsewhere") == tmp_path


def test_weights_without_a_root_say_which_setting_is_missing() -> None:
    with pytest.raises(SourceUnavailable, match="set NIGHTREEL_WEIGHTS to the folder that holds ours/"):
        spec_of().folder(None)


def test_weights_that_are_not_there_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=f"no folder {tmp_path}/ours; put its weights there"):
        spec_of().folder(tmp_path)


# Sources


def test_a_source_of_ones_own_is_named_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_sources.py").write_text(
        "class Theirs:\n    def __init__(self, spec, root):\n        self.made_with = spec, root\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = spec_of(source="their_sources:Theirs", options={"url": "http://127.0.0.1"})

    source = make_source(spec, tmp_path)

    assert type(source).__name__ == "Theirs"
    assert vars(source) == {"made_with": (spec, tmp_path)}


@pytest.mark.parametrize("source", ["", "fluks", "no_such_module:Source", "json:NoSuchClass", "json", "json:"])
def test_a_source_that_cannot_be_imported_is_named_with_its_model(source: str) -> None:
    with pytest.raises(SourceUnavailable, match=f"model ours: source {source!r} cannot be imported"):
        make_source(spec_of(source=source), None)


def test_a_models_own_entry_wins_over_the_workers_settings() -> None:
    said, unsaid = spec_of(precision="fp32", batch=2), spec_of()

    assert said.tuned(precision="fp8", attention="flash").precision == "fp32"
    assert said.tuned(precision="fp8", attention="flash").attention == "flash"
    assert unsaid.tuned(precision="fp8").precision == "fp8"
