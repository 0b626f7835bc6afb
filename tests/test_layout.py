"""The house: where things lie, how large they may grow, and that no folder shadows the standard library."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [ROOT / package for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
SOURCE_ROOTS = [package.parent for package in PACKAGES]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

by_name = pytest.mark.parametrize("source_root", SOURCE_ROOTS, ids=lambda path: path.name)


def modules() -> Iterator[Path]:
    for folder in [*SOURCE_ROOTS, ROOT / "scripts", ROOT / "bench"]:
        yield from sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("name", ["worker", "pipelines", "queue", "storage", "requirements.txt", "tests", "scripts"])
def test_the_top_level_has_what_people_look_for(name: str) -> None:
    assert (ROOT / name).exists()


@by_name
def test_a_thread_pool_starts_in_every_source_folder(source_root: Path) -> None:
    program = (
        "import concurrent.futures, logging.handlers, queue\n"
        "print(concurrent.futures.ThreadPoolExecutor().submit(queue.Queue).result().empty())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=source_root, env=environment, capture_output=True, text=True, check=False
    )

    assert result.stdout == "True\n", result.stderr


@by_name
def test_a_source_folder_holds_one_package_and_is_none(source_root: Path) -> None:
    inside = {path.name for path in source_root.iterdir() if path.is_dir() or path.suffix == ".py"}

    assert inside - {"__pycache__"} == {package.name for package in PACKAGES if package.parent == source_root}


def test_the_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_module_grows_past_what_one_sitting_reads() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}

    assert {path: lines for path, lines in long.items() if lines > MAX_MODULE_LINES} == {}


def test_no_function_grows_past_one_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
    ]

    assert long == []


def wanted(extra: str) -> Iterator[Requirement]:
    """What pip installs for nightreel[extra], one level deep."""
    for line in [*PYPROJECT["project"]["dependencies"], *EXTRAS[extra]]:
        requirement = Requirement(line)
        if requirement.name != "nightreel":
            yield requirement
            continue
        for other in requirement.extras:
            yield from wanted(other)


def pins(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            package, _, version = line.partition(";")[0].strip().partition("==")
            found[canonicalize_name(package)] = version
    return found


def admits(requirement: Requirement, pinned: dict[str, str]) -> bool:
    return pinned[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(
    ("extra", "file"),
    [
        ("cpu", "requirements-cpu.txt"),
        ("gpu", "requirements.txt"),
        ("comfyui", "requirements.txt"),
        ("comfyui", "requirements-cpu.txt"),
        ("gcp", "requirements.txt"),
        ("metrics", "requirements.txt"),
        ("gcp", "requirements-dispatcher.txt"),
        ("gemini", "requirements-dev.txt"),
        ("cloudrun", "requirements-dispatcher.txt"),
        ("serve", "requirements-dispatcher.txt"),
        ("serve", "requirements-dev.txt"),
        ("dev", "requirements-dev.txt"),
    ],
)
def test_the_pinned_sets_are_what_the_extras_ask_for(extra: str, file: str) -> None:
    pinned = pins(file)
    requirements = list(wanted(extra))

    assert {canonicalize_name(one.name) for one in requirements} - pinned.keys() == set()
    outside = [f"{one} ({pinned[canonicalize_name(one.name)]})" for one in requirements if not admits(one, pinned)]
    assert outside == []


def test_nothing_that_breaks_flux_on_a_cpu_is_pinned_for_it() -> None:
    assert {"torchvision", "xformers"} & pins("requirements-dev.txt").keys() == set()
