"""FLUX.1 [schnell]'s full size on a GPU, with random weights: seconds, memory, load times; plain diffusers against ours.

    python bench/gpu.py --folder /scratch/flux            # 34 GB are written there first, and 17 GB prepared beside
    python bench/gpu.py --tiny                            # a tiny model on any machine: shows that the script works

Each measurement runs in a process of its own, so that peaks are its own; a later run goes on with what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Table, arguments, publish
from flux_sizes import step

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, as in the renderer

SIZES = ((1024, 576), (1024, 1024), (2048, 2048))
TINY_SIZES = ((64, 48),)
STEPS = 4
CAP_GIB = 22.0
PEAK_TFLOPS = {
    "L4": (121, 242),
    "H100": (989, 1979),
    "H200": (989, 1979),
    "A100": (312, 312),
    "L40S": (362, 733),
}  # dense bf16, fp8
SUBJECTS = ("diffusers", "exact", "fp8", "exact-compiled", "fp8-compiled")


@dataclass(frozen=True, slots=True)
class Asked:
    folder: Path
    tiny: bool
    cap_gib: float

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return TINY_SIZES if self.tiny else SIZES


def main() -> None:
    parser = arguments("FLUX.1 [schnell]'s full size on a GPU.")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any machine")
    parser.add_argument("--folder", type=Path, help="where the weights lie, or are written (default: a temporary one)")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects, separated by commas")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument(
        "--cap-gib", type=float, default=0.0, help="most GPU memory, in GiB; 0: both without and with 22"
    )
    asked = parser.parse_args()
    if asked.one:
        measure(asked.one, Asked(asked.folder, asked.tiny, asked.cap_gib))
        return
    asked.quick = asked.quick or asked.tiny
    with tempfile.TemporaryDirectory() as temporary:
        where = asked.folder or Path(temporary)
        _weights(where, asked.tiny)
        caps = (asked.cap_gib,) if asked.cap_gib or asked.tiny else (0.0, CAP_GIB)
        runs = [_in_a_process(name, Asked(where, asked.tiny, cap)) for name in asked.only.split(",") for cap in caps]
        runs.append(_in_a_process("errors", Asked(where, asked.tiny, 0.0)))
    asked.one = asked.folder = None  # no part of the command as it is typed
    publish("full-flux", tables([run for run in runs if run]), asked)


def _weights(folder: Path, tiny: bool) -> None:
    """The random model and its prepared twin."""
    import full_flux
    import torch

    from nightreel_pipelines.flux.prepare import FolderTarget, Preparation

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (folder / "bf16" / "done").exists():
        full_flux.build(folder / "bf16", device=device, changes=full_flux.TINY if tiny else full_flux.FULL)
        (folder / "bf16" / "done").touch()
    began = time.monotonic()
    Preparation(folder / "bf16", "random", FolderTarget(folder / "fp8")).run(lambda step: None)
    print(f"prepared in {time.monotonic() - began:.1f} s", file=sys.stderr)


def _in_a_process(subject: str, asked: Asked) -> dict[str, Any]:
    words = ["--one", subject, "--folder", str(asked.folder), "--cap-gib", str(asked.cap_gib)]
    words += ["--tiny"] if asked.tiny else []
    run = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip() or "no word").splitlines()[-1][:160]
        print(f"{subject} under {asked.cap_gib:g} GiB: {last}", file=sys.stderr)
        return {"subject": subject, "cap_gib": asked.cap_gib, "failed": last, "gpu": "", "rows": []}
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


# in a process of its own


def measure(subject: str, asked: Asked) -> None:
    """Print one line of JSON."""
    import subjects

    if subject == "errors":
        print(json.dumps({"subject": "errors", "errors": subjects.errors(asked.folder, asked.sizes[0], STEPS)}))
        return
    began = time.monotonic()
    painter = subjects.load(subject, asked.folder, asked.cap_gib)
    load_s = time.monotonic() - began
    rows = []
    for size in asked.sizes:
        for number in (1, 2 if asked.tiny else 8):
            rows.append({"size": size, "keyframes": number} | subjects.time_it(painter, size, number, STEPS))
    about = {
        "subject": subject,
        "cap_gib": asked.cap_gib,
        "gpu": subjects.gpu(),
        "load_s": load_s,
        "placement": painter.placement,
    }
    print(json.dumps(about | {"load_bytes": subjects.weight_bytes(subject, asked.folder), "rows": rows}))


# tables


def tables(runs: list[dict[str, Any]]) -> list[Table]:
    timed = [run for run in runs if run["subject"] != "errors"]
    found = [_times(timed), _loads(timed)]
    return found + [_errors(run["errors"]) for run in runs if run.get("errors")]


def _times(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        name = run["subject"] + (f", {run['cap_gib']:g} GiB" if run["cap_gib"] else "")
        if "failed" in run:
            rows.append((name, "-", "-", "-", run["failed"].replace("|", "/"), "-"))
        for row in run["rows"]:
            size = "x".join(map(str, row["size"]))
            said = ("-", "-", row["failed"]) if "failed" in row else _cells(run, row)
            rows.append((name, size, str(row["keyframes"]), *said))
    return Table(
        title=f"{STEPS} steps",
        columns=("what", "size", "keyframes", "seconds", "peak GiB", "share of matmul peak"),
        rows=tuple(rows),
        notes=(
            f"GPU: {next((run['gpu'] for run in runs if run['gpu']), 'none')}.",
            "Seconds: prompts read, denoised, decoded; the second of two runs. Peak: of torch's allocator.",
            "Share: multiplications of the transformer's steps by arithmetic, against the dense peak on the data sheet.",
        ),
    )


def _cells(run: dict[str, Any], row: dict[str, Any]) -> tuple[str, str, str]:
    card = next((peaks for name, peaks in PEAK_TFLOPS.items() if name in run["gpu"]), None)
    work = step(*row["size"]).all / 1e12
    share = "-"
    if card:
        peak = card[run["subject"].startswith("fp8")]
        share = f"{work * STEPS * row['keyframes'] / row['seconds'] / peak:.0%}"
    return f"{row['seconds']:.2f}", f"{row['peak_gib']:.2f}", share


def _loads(runs: list[dict[str, Any]]) -> Table:
    rows = [
        (
            run["subject"],
            f"{run['load_bytes'] / 1e9:.2f}",
            f"{run['load_s']:.1f}",
            f"{run['load_bytes'] / 1e9 / run['load_s']:.2f}",
        )
        for run in runs
        if "failed" not in run and not run["cap_gib"]
    ]
    note = "Imports, compiling and what the disk's cache holds included; the first of them may find it cold."
    return Table("Loading", ("what", "GB", "seconds", "GB/s"), tuple(rows), (note,))


def _errors(errors: list[float]) -> Table:
    rows = tuple((str(number), f"{error:.4f}") for number, error in enumerate(errors, start=1))
    note = "Random weights, one prompt: shows that the arithmetic is right, not what a trained model's pictures lose."
    return Table("8-bit weights against bf16", ("step", "relative error of the latents"), rows, (note,))


if __name__ == "__main__":
    main()
