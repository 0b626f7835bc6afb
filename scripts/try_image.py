"""Runs an image's install steps in a clean virtual environment: python scripts/try_image.py [Dockerfile]

For machines without a Docker engine. The commands are the Dockerfile's own, with its paths led into a temporary folder, and
only what it copies is there. The worker's CUDA wheels are exchanged for torch's build for CPUs; the rest is as pinned.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOR_GPUS = ("torch", "torchao", "torchvision", "xformers", "cuda-pathfinder")


def instructions(dockerfile: str) -> Iterator[tuple[str, str, str]]:
    """Stage, instruction and the rest of each, lines joined and mounts left out."""
    stage = ""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    for line in filter(None, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" AS ")[2]
        yield stage, name, re.sub(r"--mount=\S+\s*", "", rest)


def for_a_cpu(lock: str) -> str:
    """The worker's pins without those that need CUDA, with torch as a CPU has it."""
    kept = [line for line in lock.splitlines() if line.partition("==")[0] not in FOR_GPUS]
    [torch] = re.findall(r"^torch==.*$", (ROOT / "requirements-cpu.txt").read_text(), flags=re.MULTILINE)
    return "\n".join([*kept, torch, ""])


def try_image(name: str, folder: Path) -> None:
    """Raises CalledProcessError when a step fails."""
    steps = list(instructions((ROOT / name).read_text()))
    last = steps[-1][0]
    source, temporary = folder / "src", folder / "tmp"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    environment = os.environ | {"PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    for part in (source, temporary):
        part.mkdir()
    for stage, instruction, rest in steps:
        if stage not in ("wheel", last):
            continue
        if instruction == "COPY" and not rest.startswith("--from"):
            *files, target = rest.split()
            copy(files, source if stage == "wheel" else temporary, target)
        elif instruction == "RUN" and "pip" in rest:
            command = re.sub(r"(?<= )/(dist|tmp)\b", lambda found: str(folder / found[1]), rest)
            print(f"+ {rest}", flush=True)
            subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True)


def copy(files: list[str], folder: Path, target: str) -> None:
    for file in files:
        path = ROOT / file
        if path.is_dir():
            shutil.copytree(path, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        elif file == "requirements.txt":
            (folder / file).write_text(for_a_cpu(path.read_text()))
        else:
            shutil.copy(path, folder)


def main() -> None:
    parser = argparse.ArgumentParser("scripts/try_image.py", description=__doc__)
    parser.add_argument("dockerfile", nargs="*", default=["Dockerfile", "dispatcher.Dockerfile"])
    for name in parser.parse_args().dockerfile:
        print(f"== {name}")
        with tempfile.TemporaryDirectory() as folder:
            try_image(name, Path(folder))


if __name__ == "__main__":
    main()
