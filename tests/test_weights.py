"""nightreel weights: prepared once, whole or not at all, and looked at when in doubt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_flux
import torch
from fake_gcs import FakeGcs
from fake_hub import FakeHub
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.flux.fp8 import dequantize
from nightreel_pipelines.flux.prepare import FolderTarget, Preparation, Step
from nightreel_pipelines.flux.prepared import MANIFEST, PROGRESS
from nightreel_pipelines.flux.revision import revision
from nightreel_pipelines.flux.tensors import BYTES_OF, read_header
from nightreel_pipelines.models import load_models

POCKET = load_models()["pocket"]
POCKET_FOLDER = POCKET.folder(None)
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
SHARD_BYTES = 1_000_000  # pocket becomes six files


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pocket, prepared; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared") / "pocket-fp8"
    prepare(POCKET_FOLDER, folder)
    return folder


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def prepare(source: Path, folder: Path, heard: Callable[[Step], None] = lambda step: None) -> None:
    Preparation(source, source.name, FolderTarget(folder), shard_bytes=SHARD_BYTES).run(heard)


def nightreel(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nightreel", "weights", *map(str, words)]
    ours = ("NIGHTREEL_", "HF_HUB_OFFLINE")  # the latter is set where flux.loading was imported
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False, timeout=120)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".nightreel" not in path.parts
    }


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.glob("*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }


# What is written


def test_matrices_become_8_bit_with_scales_and_all_else_bf16(prepared: Path) -> None:
    before, after = tensors(POCKET_FOLDER), tensors(prepared)

    matrices = {name for name in after if f"{name}_scale" in after}
    assert {name.split(".")[0].split("_blocks")[0] for name in matrices} == {
        "transformer/transformer",
        "transformer/single_transformer",
        "text_encoder_2/encoder",
    }
    for name, tensor in before.items():
        if name in matrices:
            scale = after[f"{name}_scale"]
            assert (after[name].dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)
            again = dequantize(after[name], scale, torch.float32)
            assert (again - tensor.float()).norm() < 0.04 * tensor.float().norm()
        else:
            assert torch.equal(after[name], tensor.to(torch.bfloat16)), name
    assert not {name for name in matrices if "relative_attention_bias" in name or "embed" in name}


def test_the_files_are_plain_safetensors_of_a_given_size_at_most_with_their_index(prepared: Path) -> None:
    index = json.loads((prepared / f"{TRANSFORMER}.index.json").read_text())
    files = sorted((prepared / "transformer").glob("*.safetensors"))

    assert len(files) > 1
    assert all(path.stat().st_size <= SHARD_BYTES * 1.02 for path in files)
    for path in files:
        assert all(each.offset % BYTES_OF[each.dtype] == 0 for each in read_header(path))
        with safe_open(path, "pt") as opened:
            assert all(index["weight_map"][name] == path.name for name in opened.keys())  # noqa: SIM118


def test_configurations_vocabularies_and_notes_are_copied(prepared: Path) -> None:
    after = contents(prepared)

    for name, data in contents(POCKET_FOLDER).items():
        if not name.endswith(".safetensors"):
            assert after[name] == data


def test_the_manifest_tells_source_recipe_and_the_sum_of_each_file(prepared: Path) -> None:
    manifest = json.loads((prepared / MANIFEST).read_text())

    assert manifest["format"] == 1
    assert manifest["source"] == "pocket"
    assert manifest["source_revision"] == revision(POCKET_FOLDER)
    assert manifest["recipe"]["torch"] == torch.__version__.split("+")[0]
    assert set(manifest["files"]) == set(contents(prepared)) - {MANIFEST, PROGRESS}


def test_equal_sources_give_equal_bytes_wherever_they_lie(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(POCKET_FOLDER, tmp_path / "elsewhere" / "pocket")

    prepare(tmp_path / "elsewhere" / "pocket", tmp_path / "again")

    assert contents(tmp_path / "again") == contents(prepared)


def test_a_source_in_several_files_gives_the_same_tensors(prepared: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(POCKET_FOLDER, tmp_path / "pocket"))
    all_ = load_file(source / TRANSFORMER)
    (source / TRANSFORMER).unlink()
    names = sorted(all_)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: all_[name] for name in half}, source / "transformer" / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, half in halves.items() for name in half}}
    (source / f"{TRANSFORMER}.index.json").write_text(json.dumps(index))

    prepare(source, tmp_path / "made")

    made, wanted = tensors(tmp_path / "made"), tensors(prepared)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name].float(), wanted[name].float()) for name in made)


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A model of 1 GB, of which nothing is on the disk, in a process that may have 200 MB more than it starts with."""
    source = Path(shutil.copytree(POCKET_FOLDER, tmp_path / "large"))
    _write_zeros(source / TRANSFORMER, matrices=64, side=2896)
    script = f"""
import resource
from pathlib import Path
from nightreel_pipelines.flux.prepare import FolderTarget, Preparation
preparation = Preparation(Path({str(source)!r}), "large", FolderTarget(Path({str(tmp_path / "made")!r})), shard_bytes=200_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
preparation.run(lambda step: None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert int(run.stdout) < 200


# Whole or not at all


class Stopped(BaseException):
    """As a kill, without a process."""


class StopsAt(FolderTarget):
    """Is cut off at its n-th write, before it or behind it."""

    def __init__(self, folder: Path, at: int, behind: bool) -> None:
        super().__init__(folder)
        self._left, self._behind = at, behind

    def add(self, name: str, file: Path) -> None:
        if self._left == 0 and not self._behind:
            raise Stopped
        super().add(name, file)
        if self._left == 0:
            raise Stopped
        self._left -= 1


def test_whoever_is_cut_off_anywhere_leaves_what_no_loader_takes_and_ends_with_the_same_bytes(
    prepared: Path, tmp_path: Path
) -> None:
    wanted = contents(prepared)
    for at in range(0, 100, 3):
        folder = tmp_path / str(at)
        try:
            Preparation(POCKET_FOLDER, "pocket", StopsAt(folder, at, behind=at % 2 == 1), shard_bytes=SHARD_BYTES).run(
                lambda step: None
            )
        except Stopped:
            if not (folder / MANIFEST).exists():
                with pytest.raises(SourceUnavailable):
                    FluxSource(POCKET.model_copy(update={"weights": str(folder)}), None).describe()
        else:
            break
        prepare(POCKET_FOLDER, folder)
        assert contents(folder) == wanted, at
    assert at > 20


def test_after_kill_9_finished_files_are_not_written_again(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    script = f"""
import os, signal
from pathlib import Path
from nightreel_pipelines.flux.prepare import FolderTarget, Preparation

def heard(step):
    if step.file.startswith("transformer") and "00002-of" in step.file:
        os.kill(os.getpid(), signal.SIGKILL)

Preparation(Path({str(POCKET_FOLDER)!r}), "pocket", FolderTarget(Path({str(folder)!r})), shard_bytes={SHARD_BYTES}).run(heard)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    there = {folder / name: (folder / name).stat().st_mtime_ns for name in contents(folder) if name.endswith("tensors")}
    assert len(there) == 3

    run = nightreel("prepare", POCKET_FOLDER, folder, "--shard-mb", 1)

    assert run.returncode == 0, run.stderr
    assert run.stdout.count("was there already") == 3
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert contents(folder) == contents(prepared)


def test_an_unfinished_folder_is_refused_with_the_mend(copy: Path) -> None:
    (copy / MANIFEST).unlink()

    with pytest.raises(SourceUnavailable, match="not finished: give the command `nightreel weights prepare`"):
        FluxSource(POCKET.model_copy(update={"weights": str(copy)}), None).describe()


# Sources and destinations that will not do


def test_preparing_twice_writes_nothing_the_second_time(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}

    prepare(POCKET_FOLDER, copy)

    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_a_destination_with_anything_else_in_it_is_refused(prepared: Path, copy: Path, tmp_path: Path) -> None:
    tiny_flux.build(tmp_path / "tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (copy / MANIFEST).unlink()

    for source, folder, why in (
        (tmp_path / "tiny", prepared, "holds other weights: pocket"),
        (tmp_path / "tiny", copy, "beginning of another"),
        (POCKET_FOLDER, tmp_path / "full", "not empty"),
        (prepared, tmp_path / "new", "prepared already"),
    ):
        with pytest.raises(SourceUnavailable, match=why):
            prepare(source, folder)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_weight_that_is_no_number_is_told_with_its_tensor_and_file(tmp_path: Path) -> None:
    source = Path(shutil.copytree(POCKET_FOLDER, tmp_path / "pocket"))
    all_ = load_file(source / TRANSFORMER)
    all_["transformer_blocks.0.ff.net.2.weight"][3, 4] = float("nan")
    save_file(all_, source / TRANSFORMER, {"format": "pt"})

    run = nightreel("prepare", source, tmp_path / "made")

    assert run.returncode == 2
    assert "transformer_blocks.0.ff.net.2.weight holds numbers that are not finite" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("damage", ["truncated", "no index", "no part"])
def test_a_damaged_source_is_refused_before_anything_is_written(tmp_path: Path, damage: str) -> None:
    source = Path(shutil.copytree(POCKET_FOLDER, tmp_path / "pocket"))
    match damage:
        case "truncated":
            os.truncate(source / TRANSFORMER, 100_000)
        case "no index":
            (source / "model_index.json").unlink()
        case "no part":
            shutil.rmtree(source / "vae")

    with pytest.raises(SourceUnavailable, match="no whole model in diffusers' layout"):
        prepare(source, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("source", ["nowhere", "/no/such/folder", "a/b/c"])
def test_a_source_that_is_neither_folder_nor_hub_id_is_told_so(source: str, tmp_path: Path) -> None:
    run = nightreel("prepare", source, tmp_path / "made")

    assert run.returncode == 2
    assert run.stderr == f"nightreel: {source} is no folder, and no org/name on the Hugging Face hub\n"


# Verifying


def test_whole_weights_are_said_to_be_whole(prepared: Path) -> None:
    run = nightreel("verify", prepared)

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("files are whole\n")


def test_verify_tells_every_file_that_is_wrong_and_the_mend(copy: Path) -> None:
    shards = sorted((copy / "transformer").glob("*.safetensors"))
    changed = bytearray(shards[0].read_bytes())
    changed[-1] ^= 1
    shards[0].write_bytes(changed)
    os.truncate(shards[1], 1000)
    (copy / "vae" / "config.json").unlink()
    (copy / "vae" / "extra.safetensors").write_bytes(b"")

    run = nightreel("verify", copy)

    assert run.returncode == 2
    wrong = run.stderr
    assert f"transformer/{shards[0].name}: its content is not what was prepared" in wrong
    assert f"transformer/{shards[1].name}: has 1,000 bytes instead of" in wrong
    assert "vae/config.json: is missing" in wrong
    assert "vae/extra.safetensors: not part of what was prepared" in wrong
    assert f"copy these files to {copy} again, or delete the folder and prepare pocket again" in wrong
    assert len(wrong.splitlines()) == 5


def test_verify_of_a_plain_model_says_how_to_prepare_it() -> None:
    run = nightreel("verify", POCKET_FOLDER)

    assert run.returncode == 2
    assert f"nightreel weights prepare {POCKET_FOLDER} DEST" in run.stderr


def test_a_loader_refuses_a_folder_that_lacks_bytes(copy: Path) -> None:
    os.truncate(next((copy / "vae").glob("*.safetensors")), 1000)

    with pytest.raises(SourceUnavailable, match=r"has 1,000 bytes instead of .*prepare the weights again"):
        FluxSource(POCKET.model_copy(update={"weights": str(copy)}), None).describe()


# The hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = Path(shutil.copytree(POCKET_FOLDER, tmp_path / "hub"))
    (folder / "flux1-schnell.safetensors").write_bytes(b"another 24 GB")
    hub = FakeHub(folder, token="hf_secret")
    yield hub
    hub.close()


def test_a_model_is_downloaded_from_the_hub_with_a_token_and_without_its_copies(
    hub: FakeHub, prepared: Path, tmp_path: Path
) -> None:
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    refused = nightreel("prepare", "org/name", tmp_path / "made", HF_TOKEN="", **home)
    made = nightreel("prepare", "org/name", tmp_path / "made", "--shard-mb", 1, HF_TOKEN="hf_secret", **home)

    assert refused.returncode == 2
    assert "org/name: the hub answered 401; set HF_TOKEN" in refused.stderr
    assert made.returncode == 0, made.stderr
    assert "from org/name" in made.stdout
    assert not [name for name in hub.sent if name.startswith("flux1")]
    after = contents(tmp_path / "made")
    assert {
        name: data for name, data in contents(prepared).items() if name.endswith(".safetensors")
    }.items() <= after.items()


def test_a_download_that_breaks_off_is_taken_up_again(hub: FakeHub, tmp_path: Path) -> None:
    home = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1",
    }
    hub.breaks = "tokenizer.json"

    first = nightreel("prepare", "org/name", tmp_path / "made", **home)
    run = first if first.returncode == 0 else nightreel("prepare", "org/name", tmp_path / "made", **home)

    assert run.returncode == 0, run.stderr
    assert hub.breaks == ""
    assert len([name for name in hub.sent if name.startswith("tokenizer.json from")]) > 2  # there are two of that name


def test_a_model_that_the_hub_does_not_have_is_told_so(hub: FakeHub, tmp_path: Path) -> None:
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}

    run = nightreel("prepare", "org/other", tmp_path / "made", **home)

    assert run.returncode == 2
    assert "org/other: the hub answered 404; look at its name" in run.stderr
    assert "Traceback" not in run.stderr


# In a worker


def test_a_worker_renders_prepared_weights_and_its_receipt_tells_what_lay_where(prepared: Path, tmp_path: Path) -> None:
    """The models file's own precision wins over the setting, which holds for all others."""
    (tmp_path / "models.toml").write_text(
        f'[eight]\nsource = "flux"\nweights = "{prepared}"\nprecision = "fp8"\nmegapixels = 0.005\n'
        "prompt_tokens = 64\nsequence = [64]\n"
    )
    (tmp_path / "two.yaml").write_text(
        "defaults: {output: {width: 128, height: 96, fps: 8}, render: {steps: 1, megapixels: 0.005}}\n"
        "jobs:\n"
        "  - {id: eight, render: {model: eight}, shots: [{prompt: a red sun, duration: 0.5}]}\n"
        "  - {id: exact, render: {model: pocket}, shots: [{prompt: a red sun, duration: 0.5}]}\n"
    )
    settings = {"NIGHTREEL_MODELS": "models.toml", "NIGHTREEL_PRECISION": "bf16-exact", "NIGHTREEL_LOG_LEVEL": "info"}
    run = subprocess.run(
        [sys.executable, "-m", "nightreel", "render", "two.yaml"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    made = {path.stem: json.loads(path.read_text())["made"] for path in (tmp_path / "out").glob("two-*/*.json")}
    assert made["eight"]["precision"] == "fp8/fp32"
    assert "GiB fp8 on cpu" in made["eight"]["placement"]
    assert made["exact"]["precision"] == "bf16"
    assert "GiB bf16 on cpu" in made["exact"]["placement"]
    loaded = [json.loads(line) for line in run.stderr.splitlines() if '"model_loaded"' in line]
    assert {line["model"] for line in loaded} == {"eight", "pocket"}
    assert all("transformer: " in line["placement"] for line in loaded)


# A bucket


def test_weights_go_to_a_bucket_and_on_where_they_were_cut_off(
    gcs_server: FakeGcs, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nightreel.weights import BucketTarget
    from nightreel_storage.connect import open_store

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    gcs_server.make_bucket("weights-test")
    store = open_store("gs://weights-test/pocket")

    class Stops(BucketTarget):
        def add(self, name: str, file: Path) -> None:
            super().add(name, file)
            if "transformer" in name:
                raise Stopped  # the file is there, and not noted

    with pytest.raises(Stopped):
        Preparation(POCKET_FOLDER, "pocket", Stops(store, tmp_path), shard_bytes=SHARD_BYTES).run(lambda step: None)
    run = nightreel("prepare", POCKET_FOLDER, "gs://weights-test/pocket", "--shard-mb", 1)

    assert run.returncode == 0, run.stderr
    assert run.stdout.count("was there already") == 2
    made = {entry.name: store.get(entry.name)[0] for entry in store.list()}
    assert made == contents(prepared)


def _write_zeros(path: Path, *, matrices: int, side: int) -> None:
    """A transformer's file of zeros that takes no space; the model that it belongs to is none."""
    from nightreel_pipelines.flux.tensors import header

    head = header((f"transformer_blocks.{number}.ff.weight", "BF16", (side, side)) for number in range(matrices))
    path.write_bytes(head)
    os.truncate(path, len(head) + matrices * side * side * 2)
