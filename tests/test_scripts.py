"""The scripts that a newcomer runs first, in a tiny checkout whose few wheels lie beside it: no network, no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TORCH = "2.0.0"
NIGHTREEL = """
import os, sys

def main():
    print(os.getcwd(), *sys.argv[1:])
"""
BACKEND = """
import pathlib, shutil

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return pathlib.Path(shutil.copy("wheels/nightreel-0-py3-none-any.whl", wheel_directory)).name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "nightreel"
version = "0"
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does the usual torch bring CUDA")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository with the real scripts and next to nothing to install."""

    root: Path
    path: Path
    """The only folder on PATH."""

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def run(self, script: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.path),
            "HOME": str(self.root),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.root / "wheels"),
        }
        command = [str(script), *arguments]
        return subprocess.run(
            command, env=environment, cwd=cwd or self.root, capture_output=True, text=True, check=False, timeout=120
        )

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.root / "scripts" / "install", *arguments)


def make_checkout(folder: Path) -> Checkout:
    checkout = Checkout(folder / "checkout", folder / "bin")
    shutil.copytree(ROOT / "scripts", checkout.root / "scripts")
    (checkout.root / "requirements-cpu.txt").write_text(f"torch=={TORCH}\n")
    (checkout.root / "requirements-dev.txt").write_text("-r requirements-cpu.txt\ntool==1\n")
    (checkout.root / "pyproject.toml").write_text(PYPROJECT)
    (checkout.root / "backend.py").write_text(BACKEND)
    entrance = "[console_scripts]\nnightreel = tiny:main\n"
    write_wheel(checkout, "nightreel", "0", {"tiny.py": NIGHTREEL, "nightreel-0.dist-info/entry_points.txt": entrance})
    write_wheel(checkout, "tool", "1")
    checkout.path.mkdir()
    for program in ("dirname", "readlink"):
        (checkout.path / program).symlink_to(str(shutil.which(program)))
    put_python(checkout, "python3", f'exec "{Path(sys.executable).resolve()}" "$@"')
    return checkout


def write_wheel(checkout: Checkout, name: str, version: str, files: dict[str, str] | None = None) -> None:
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        **(files or {}),
    }
    folder = checkout.root / "wheels"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in contents.items():
            wheel.writestr(path, text)


def put_python(checkout: Checkout, name: str, body: str) -> None:
    program = checkout.path / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Installed from another folder, through a symlink. Tests leave it installed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    checkout = make_checkout(tmp_path_factory.mktemp("installed"))
    write_wheel(checkout, "torch", f"{TORCH}+cpu")
    link = elsewhere / "install"
    link.symlink_to(checkout.root / "scripts" / "install")
    result = checkout.run(link, cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    assert list(elsewhere.iterdir()) == [link]
    return checkout


def site_packages(checkout: Checkout) -> Path:
    [folder] = (checkout.venv / "lib").glob("python3*/site-packages")
    return folder


def test_every_script_can_be_executed() -> None:
    for name in (
        *("scripts/install", "scripts/render", "scripts/check", "scripts/test", ".ci/run"),
        *("scripts/deploy", "scripts/destroy"),
    ):
        assert os.access(ROOT / name, os.X_OK), name


def test_an_install_tells_its_size_before_pip_starts_and_leaves_nothing_half_made(checkout: Checkout) -> None:
    write_wheel(checkout, "torch", f"{TORCH}+cpu")
    (checkout.root / "requirements-cpu.txt").write_text(f"torch=={TORCH}\nnot-to-be-had==1\n")

    result = checkout.install()

    assert result.returncode == 1
    announced, failed = result.stderr.index("MB to download"), result.stderr.index("pip could not install")
    assert announced < failed
    assert "not-to-be-had" in result.stderr[failed:]
    assert "run scripts/install again" in result.stderr[failed:]
    assert not checkout.venv.exists()


def test_a_second_install_does_and_says_nothing(installed: Checkout) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in installed.venv.rglob("*"))

    result = installed.install()

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert sorted((path, path.stat().st_mtime_ns) for path in installed.venv.rglob("*")) == before


def test_a_linter_setting_is_no_reason_to_install(installed: Checkout) -> None:
    (installed.root / "pyproject.toml").write_text(PYPROJECT + "[tool.ruff]\nline-length = 99\n")

    assert installed.install().stderr == ""


def test_the_tools_are_added_in_place_and_stay(installed: Checkout) -> None:
    kept = installed.venv / "kept"
    kept.touch()

    added = installed.install("--dev")
    after = installed.install()

    assert added.returncode == 0, added.stderr
    assert "up to date" in added.stderr
    assert kept.exists()
    assert (site_packages(installed) / "tool-1.dist-info").is_dir()
    assert after.stderr == ""


def test_an_interrupted_install_is_made_again(installed: Checkout) -> None:
    leftover = installed.venv / "leftover"
    leftover.touch()
    (installed.venv / "nightreel-install.json").unlink()

    result = installed.install()

    assert result.returncode == 0, result.stderr
    assert "not finished" in result.stderr
    assert not leftover.exists()
    assert (site_packages(installed) / f"torch-{TORCH}+cpu.dist-info").is_dir()


def test_render_passes_its_arguments_on_and_stays_where_it_was_called(installed: Checkout, tmp_path: Path) -> None:
    result = installed.run(installed.root / "scripts" / "render", "night reel.yaml", "--out", "x", cwd=tmp_path)

    assert result.stdout == f"{tmp_path} render night reel.yaml --out x\n"


@on_linux
def test_gigabytes_of_cuda_are_refused_with_their_size_and_the_ways_out(checkout: Checkout) -> None:
    write_wheel(checkout, "torch", TORCH)

    result = checkout.install()

    assert result.returncode == 1
    assert "3.4 GB" in result.stderr
    assert "--allow-cuda" in result.stderr
    assert not checkout.venv.exists()


@on_linux
def test_a_machine_without_network_is_told_so(checkout: Checkout) -> None:
    result = checkout.install()

    assert result.returncode == 1
    assert "Is this machine online?" in result.stderr


def test_too_old_a_python_is_refused_by_name(checkout: Checkout) -> None:
    put_python(checkout, "python3", "echo 3.10")

    result = checkout.install()

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "needs Python 3.11, 3.12 or 3.13" in result.stderr
    assert f"found {checkout.path}/python3 (3.10)" in result.stderr


def test_a_python_that_only_pretends_to_be_there_is_passed_over(checkout: Checkout) -> None:
    put_python(checkout, "python3", "echo 'no such version is installed' >&2; exit 127")

    assert "found none" in checkout.install().stderr


def test_a_python_without_venv_is_told_the_package_to_install(checkout: Checkout) -> None:
    put_python(checkout, "python3", 'case "$*" in *ensurepip*) exit 1 ;; *) echo 3.11 ;; esac')

    result = checkout.install()

    assert result.returncode == 1
    assert "apt install python3.11-venv" in result.stderr
