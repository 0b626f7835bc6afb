"""The wheel: complete, and light for a program that only publishes jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [
    ROOT / package
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
]
HEAVY = ("diffusers", "google", "imageio", "numpy", "opencv", "pillow", "torch", "transformers")
MANIFEST = """
jobs:
  - id: harbour
    shots:
      - prompt: a harbour at night
  - id: lighthouse
    shots:
      - prompt: a lighthouse in the fog
"""


@dataclass(frozen=True, slots=True)
class Publisher:
    """A machine with the wheel and its base dependencies, nothing else."""

    bin: Path

    def run(self, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
        command = [str(self.bin / program), *arguments]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def publisher(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Downloads about 5 MB where pip has not kept them."""
    venv = tmp_path_factory.mktemp("publisher") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, check=True)
    command = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return Publisher(venv / "bin")


def test_the_wheel_holds_all_six_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    names = set(zipfile.ZipFile(wheel).namelist())

    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_light_client_installs_nothing_heavy(publisher: Publisher, tmp_path: Path) -> None:
    listed = publisher.run("python", "-m", "pip", "list", "--format", "json", cwd=tmp_path)

    names = {package["name"] for package in json.loads(listed.stdout)}
    assert "nightreel" in names
    assert [name for name in names if name.startswith(HEAVY)] == []


def test_the_light_client_publishes(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(MANIFEST)
    program = "import nightreel, pathlib; print(len(nightreel.load_manifest(pathlib.Path('night.yaml')).jobs))"

    assert publisher.run("nightreel", "--help", cwd=tmp_path).returncode == 0
    assert "shots" in json.loads(publisher.run("nightreel", "schema", cwd=tmp_path).stdout)["properties"]
    loaded = publisher.run("python", "-c", program, cwd=tmp_path)
    assert loaded.stdout == "2\n", loaded.stderr
    enqueued = publisher.run(
        "nightreel", "enqueue", "night.yaml", "--queue", "sqlite:///q.db", "--store", "out", cwd=tmp_path
    )
    assert enqueued.returncode == 0, enqueued.stderr
    assert enqueued.stdout.startswith("2 jobs enqueued")
    assert (tmp_path / "q.db").is_file()


def test_rendering_with_the_light_client_names_what_to_install(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(MANIFEST)

    result = publisher.run("nightreel", "render", "night.yaml", cwd=tmp_path)

    assert result.returncode != 0
    [line] = (result.stdout + result.stderr).splitlines()
    assert "pip install 'nightreel[cpu]'" in line
