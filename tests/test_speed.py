"""Speed switches: what a machine without a GPU can show of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.flux.revision import revision
from nightreel_pipelines.flux.speed import CACHES, Machine, compile_blocks, load_cache, save_cache, set_attention
from nightreel_pipelines.models import ModelSpec, load_models

POCKET = load_models()["pocket"]
L4 = Machine("2.10.0+cu128", "3.6.0", "NVIDIA L4")

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")

compiling = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's compiler, to itself


class Transformer:
    """Hears what it is asked for."""

    def __init__(self, missing: str = "") -> None:
        self.asked: list[str] = []
        self._missing = missing

    def set_attention_backend(self, backend: str) -> None:
        if backend == self._missing:
            raise RuntimeError(f"Backend {backend} is not usable because its package is not installed.\nSee its page.")
        self.asked.append(backend)

    def compile_repeated_blocks(self, *, fullgraph: bool) -> None:
        assert fullgraph
        self.asked.append("compile")


def spec(compile_: str) -> ModelSpec:
    return POCKET.tuned(compile=compile_)


@without_gpu
def test_a_cpu_does_not_compile_and_says_so_in_the_placement() -> None:
    source = FluxSource(spec("on"), None)
    source.load()

    assert "not compiled: no GPU" in source.placement


@without_gpu
def test_a_cpu_has_no_other_attention() -> None:
    source = FluxSource(POCKET.tuned(attention="xformers"), None)

    with pytest.raises(SourceUnavailable, match="xformers needs a GPU: leave NIGHTREEL_ATTENTION at native"):
        source.load()


def test_an_attention_backend_is_passed_on_and_a_missing_one_is_told_in_a_line() -> None:
    there, missing = Transformer(), Transformer(missing="flash")

    set_attention(there, "flash", "cuda")
    set_attention(there, "native", "cuda")
    with pytest.raises(
        SourceUnavailable, match=r"flash cannot be had here \(Backend flash .* not installed\.\): install"
    ):
        set_attention(missing, "flash", "cuda")

    assert there.asked == ["flash"]


def test_without_a_cache_that_fits_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightreel_pipelines.flux.speed.this_machine", lambda: L4)
    transformer = Transformer()

    said = compile_blocks(transformer, spec("cached"), tmp_path, "cuda", lambda width, height: None)

    assert said == "not compiled: no compile cache for this torch, triton and GPU"
    assert transformer.asked == []


@compiling
@pytest.mark.parametrize(
    "other",
    [
        Machine("2.11.0", "3.6.0", "NVIDIA L4"),
        Machine("2.10.0+cu128", "3.7.0", "NVIDIA L4"),
        Machine("2.10.0+cu128", "3.6.0", "NVIDIA H100"),
    ],
)
def test_a_cache_belongs_to_one_torch_one_triton_and_one_gpu(tmp_path: Path, other: Machine) -> None:
    _compile_something()
    before = _revision_of(tmp_path)

    file = save_cache(tmp_path, L4, [(1024, 1024), (1360, 768)])

    assert file.parent == tmp_path / CACHES
    assert load_cache(tmp_path, L4) == [(1024, 1024), (1360, 768)]
    assert load_cache(tmp_path, other) == []
    assert _revision_of(tmp_path) == before  # it is no part of the weights


@compiling
def test_a_damaged_cache_is_no_cache(tmp_path: Path) -> None:
    _compile_something()
    file = save_cache(tmp_path, L4, [(1024, 1024)])
    file.with_suffix(".json").write_text("{")

    assert load_cache(tmp_path, L4) == []


@without_gpu
@pytest.mark.parametrize(
    ("sizes", "code", "why"),
    [
        ("1024x1024", 2, "a compile cache is made on the GPU that it is for; this machine has none"),
        ("1024", 2, "is no list of sizes such as 1024x1024,1360x768"),
        ("large", 2, "is no list of sizes"),
    ],
)
def test_a_compile_cache_is_refused_before_any_work_where_it_cannot_be_made(
    tmp_path: Path, sizes: str, code: int, why: str
) -> None:
    command = ["weights", "prepare", str(POCKET.folder(None)), str(tmp_path / "made"), "--compile-cache", sizes]
    run = subprocess.run([sys.executable, "-m", "nightreel", *command], capture_output=True, text=True, check=False)

    assert run.returncode == code
    assert why in run.stderr
    assert not (tmp_path / "made").exists()


def _compile_something() -> None:
    torch.compile(lambda x: x.sin() + 1)(torch.ones(4))


def _revision_of(folder: Path) -> str:
    (folder / "a.safetensors").write_bytes(b"weights")
    return revision(folder)
