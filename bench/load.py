"""Loading weights: our loader against `FluxPipeline.from_pretrained`, from process start to the first denoising step.

    python bench/load.py [--quick] [--rounds N]

A model with FLUX.1's layers, but few of them, and random weights is written to a temporary folder: 3 GB in bfloat16 and
2 GB prepared. Each load is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Table, arguments, count, median, publish

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, as in the renderer

SUBJECTS = {"from_pretrained, bf16": "bf16", "ours, bf16": "bf16", "ours, fp8": "fp8"}
CACHES = ("cold", "warm")
PHASES = ("interpreter", "imports", "opened", "T5 ready", "prompt read", "transformer ready", "first step")
Mark = Callable[[str], None]
Marks = Mapping[str, float]
"""Seconds from the process's start to the end of each phase; `in memory`: until every page of the weights was there.

`cpu`: CPU seconds from behind the imports to that.
"""
Runs = Mapping[tuple[str, str], Sequence[Marks]]


def main() -> None:
    parser = arguments("Loading weights.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--goal", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.goal, asked.folder, asked.began)))
        return
    rounds = asked.rounds or (1 if asked.quick else 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _weights(folder, asked.quick)
        sizes = {who: _weight_bytes(folder / part) / 1e9 for who, part in SUBJECTS.items()}
        caches = CACHES[:1] if asked.quick else CACHES
        subjects = list(SUBJECTS)[::2] if asked.quick else list(SUBJECTS)
        loads: dict[tuple[str, str], list[Marks]] = {(who, cache): [] for cache in caches for who in subjects}
        steps: dict[tuple[str, str], list[Marks]] = {(who, "cold"): [] for who in subjects}
        for _ in range(rounds):  # one after the other, so that each ratio is of the same minutes
            for runs, goal in ((loads, "in memory"), (steps, "first step")):
                for (who, cache), found in runs.items():
                    found.append(_in_a_process(who, goal, folder, cache))
    publish("load", [_load_table(loads, sizes), _phase_table(steps)], asked)


def _weights(folder: Path, quick: bool) -> None:
    import full_flux

    from nightreel_pipelines.flux.prepare import FolderTarget, Preparation

    full_flux.build(folder / "bf16", device="cpu", changes=full_flux.TINY if quick else full_flux.FEW_LAYERS)
    Preparation(folder / "bf16", "random", FolderTarget(folder / "fp8")).run(lambda step: None)


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def _in_a_process(who: str, goal: str, folder: Path, cache: str) -> Marks:
    where = folder / SUBJECTS[who]
    for file in where.rglob("*.safetensors"):
        _forget(file) if cache == "cold" else _remember(file)
    words = ("--one", who, "--goal", goal, "--folder", str(where), "--began", str(time.time()))
    run = subprocess.run((sys.executable, __file__, *words), capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr)
    found: Marks = json.loads(run.stdout.splitlines()[-1])
    return found


def _forget(file: Path) -> None:
    """Have the kernel drop this file's pages from its cache."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _remember(file: Path) -> None:
    with file.open("rb") as opened:
        while opened.read(1 << 24):
            pass


# in a process of its own


def measure(who: str, goal: str, folder: Path, began: float) -> Marks:
    """Load, then either touch all weights, or read a prompt and make one step."""
    marks = {"interpreter": time.time() - began}

    def mark(name: str) -> None:
        marks.setdefault(name, time.time() - began)

    import transformers

    from nightreel_pipelines.flux import engine

    assert transformers.T5EncoderModel
    assert transformers.CLIPTextModel  # all that either needs is imported now
    mark("imports")
    used = time.process_time()
    expected = [_recipe()] if goal == "first step" else []  # its prompt would be read while the weights come in
    pipe, step = (_plain if who.startswith("from_pretrained") else _ours)(folder, mark, engine, expected)
    if goal == "in memory":
        for part in ("text_encoder", "text_encoder_2", "transformer", "vae"):
            _touch(getattr(pipe, part))
        mark("in memory")
        marks["cpu"] = time.process_time() - used
    else:
        pipe.transformer.register_forward_hook(lambda *_: mark("first step"))
        step()
    return marks


def _plain(folder: Path, mark: Mark, *_: Any) -> tuple[Any, Callable[[], object]]:
    """As diffusers' page shows it."""
    import torch
    from diffusers import FluxPipeline
    from subjects import Plain

    pipe = FluxPipeline.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    mark("opened")
    pipe.transformer.register_forward_pre_hook(lambda *_: mark("prompt read"))
    return pipe, lambda: Plain(pipe).paint([_recipe()])


def _ours(folder: Path, mark: Mark, engine: Any, expected: list[Any]) -> tuple[Any, Callable[[], object]]:
    """As the renderer loads it; `expected` is what its first job needs."""
    from nightreel_pipelines.base import no_pictures
    from nightreel_pipelines.flux.placing import place
    from nightreel_pipelines.flux.prepared import manifest_of
    from nightreel_pipelines.models import ModelSpec

    prepared = manifest_of(folder) is not None
    _marked(engine.Loader, "__init__", mark, "opened")
    _marked(engine.Loader, "load_text", mark, "T5 ready")
    _marked(engine.Loader, "load_pictures", mark, "transformer ready")
    _marked(engine.TextEncoder, "encode", mark, "prompt read")
    spec = ModelSpec(name="random", source="flux", megapixels=1, prompt_tokens=256, sequence=(256,))
    placement = place("fp8" if prepared else "bf16", folder, None, prepared=prepared)
    ready = engine.Engine(folder, spec, placement, expected=expected)
    return ready._pipe, lambda: list(ready.keyframes([_recipe()], no_pictures, lambda: None))


def _marked(kind: type, name: str, mark: Mark, phase: str) -> None:
    """Have a method tell when it has ended."""
    method = getattr(kind, name)

    def telling(*args: Any, **options: Any) -> Any:
        found = method(*args, **options)
        mark(phase)
        return found

    setattr(kind, name, telling)


def _recipe() -> Any:
    from subjects import PROMPT

    from nightreel_pipelines.recipe import Recipe

    return Recipe("", "", "", PROMPT, seed=0, steps=1, guidance=0, width=128, height=128)


def _touch(model: Any) -> None:
    """Read a byte of every page: from_pretrained may only have mapped the files, and a GPU would ask for all of it."""
    import torch

    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        tensor.detach().reshape(-1).view(torch.uint8)[::4096].sum()


# tables


def _load_table(runs: Runs, sizes: Mapping[str, float]) -> Table:
    first = next(iter(SUBJECTS))
    rows = []
    for (who, cache), found in runs.items():
        took = [each["in memory"] - each["imports"] for each in found]
        theirs = [each["in memory"] - each["imports"] for each in runs[first, cache]]
        ratio = median([b / a for a, b in zip(took, theirs, strict=True)])
        returned = median([_loaded(each) - each["imports"] for each in found])
        cpu = median([each["cpu"] for each in found])
        rate = sizes[who] / median(took)
        cells = (f"{sizes[who]:.2f}", f"{returned:.2f}", f"{median(took):.2f}", f"{rate:.2f}", f"{cpu:.2f}")
        rows.append((f"{who}, {cache}", *cells, f"{ratio:.2f}"))
    return Table(
        "Weights into memory",
        (
            "loader, the disk's cache",
            "GB",
            "it returned, s",
            "all in memory, s",
            "GB/s",
            "CPU s",
            "faster than from_pretrained",
        ),
        tuple(rows),
        (
            (
                f"Random weights of FLUX.1's layers, fewer of them; {count(next(iter(runs.values())))}, medians. Counted from"
                " behind the imports. It returned: from_pretrained maps files, and reads most of them when they are used. All"
                " in memory: every page was touched once, which a copy to a GPU would do as well."
            ),
            (
                "Cold: the kernel was asked to forget these files (posix_fadvise); whether the disk under a virtual machine"
                " has a cache of its own cannot be known. bf16 on a CPU; prepared weights stay 8-bit."
            ),
        ),
    )


def _loaded(marks: Marks) -> float:
    """When the loader was done."""
    return max(value for name, value in marks.items() if name not in ("in memory", "first step", "cpu"))


def _phase_table(runs: Runs) -> Table:
    rows = []
    for (who, _), found in runs.items():
        cells = [f"{median([each[phase] for each in found]):.2f}" if phase in found[0] else "-" for phase in PHASES]
        rows.append((who, *cells))
    return Table(
        "From the start of the process to the first step, cold",
        ("loader", *(f"{phase}, s" for phase in PHASES)),
        tuple(rows),
        (
            (
                "Seconds since the process was started, at the end of each phase. Ours reads the prompt while the transformer"
                " comes in, so the last but one of its phases may end in either order. The step (128x128, 256 tokens of"
                " prompt) is computed in bf16, and with prepared weights in fp32: it compares loaders no more."
            ),
        ),
    )


if __name__ == "__main__":
    main()
