"""Imports point one way, each vendor's SDK stays in its place, and the light client stays light."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [
    ROOT / package
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
]
HEAVY = {
    "PIL",
    "accelerate",
    "cv2",
    "diffusers",
    "fastapi",
    "google",
    "imageio_ffmpeg",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "pynvml",
    "torch",
    "transformers",
    "websockets",
}
RENDERING = {"accelerate", "diffusers", "torch", "transformers"}


def check_contracts(root: Path) -> subprocess.CompletedProcess[str]:
    sources = os.pathsep.join(str(root / package.relative_to(ROOT).parent) for package in PACKAGES)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": sources}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def imported_by(*modules: str) -> set[str]:
    """The packages of which a fresh Python holds files after importing these; a bare namespace is nothing yet."""
    lines = [f"import {module}" for module in modules]
    program = "\n".join(
        [
            *lines,
            "import json, sys",
            "files = [name for name, module in sys.modules.items() if getattr(module, '__file__', None)]",
            "print(json.dumps([name.partition('.')[0] for name in files]))",
        ]
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_the_contracts_hold() -> None:
    result = check_contracts(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("queue/nightreel_queue/extra.py", "import nightreel_storage"),
        ("storage/nightreel_storage/extra.py", "import nightreel_pipelines"),
        ("pipelines/nightreel_pipelines/extra.py", "import nightreel_storage"),
        ("worker/nightreel_worker/extra.py", "import nightreel_dispatcher"),
        ("dispatcher/nightreel_dispatcher/extra.py", "import nightreel"),
        ("worker/nightreel_worker/extra.py", "import torch"),
        ("pipelines/nightreel_pipelines/extra.py", "import diffusers"),
        ("pipelines/nightreel_pipelines/extra.py", "def late():\n    import transformers"),
        ("worker/nightreel_worker/extra.py", "from google.cloud import storage"),
        ("storage/nightreel_storage/extra.py", "from google.cloud import pubsub_v1"),
        ("dispatcher/nightreel_dispatcher/extra.py", "from google.oauth2 import id_token"),
        ("worker/nightreel_worker/extra.py", "from opentelemetry import metrics"),
        ("worker/nightreel_worker/extra.py", "import pynvml"),
        ("worker/nightreel_worker/extra.py", "from websockets.sync.client import connect"),
    ],
)
def test_an_import_in_the_wrong_place_breaks_them(module: str, line: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(package, tmp_path / package.relative_to(ROOT), ignore=shutil.ignore_patterns("weights"))
    (tmp_path / module).write_text(f"{line}\n")

    result = check_contracts(tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{Path(module).parent.name}.extra" in result.stdout


def test_a_publisher_imports_nothing_heavy() -> None:
    assert imported_by("nightreel") & HEAVY == set()


def test_the_rules_of_waking_and_their_simulation_import_nothing_heavy() -> None:
    modules = ("strategies", "traces", "chart")

    assert imported_by(*(f"nightreel_dispatcher.{module}" for module in modules)) & {*HEAVY, "fastapi"} == set()


def test_the_workers_parent_process_never_imports_torch() -> None:
    package = ROOT / "worker" / "nightreel_worker"
    modules = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(package.rglob("*.py"))
        if path.stem not in ("child", "__main__")  # the child is the process that renders
    ]

    assert "nightreel_worker" in modules
    assert imported_by(*modules) & RENDERING == set()
