"""The diagrams of the architecture show the tree as it is; the tools that contributors are told of do what CI does."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [ROOT / package for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
DIAGRAMS = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)


def test_the_diagram_of_packages_is_the_contract_that_imports_keep() -> None:
    [layers] = [each["layers"] for each in PYPROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    rows = [[name.strip() for name in layer.split("|")] for layer in layers]
    wanted = {(upper, lower) for above, below in pairwise(rows) for upper in above for lower in below}

    assert set(re.findall(r"(\w+) --> (\w+)", DIAGRAMS[0])) == wanted


def test_the_page_lists_the_packages_that_there_are() -> None:
    listed = re.findall(r"^    (\w+/\w+) ", PAGE, re.MULTILINE)

    assert sorted(listed) == sorted(str(package.relative_to(ROOT)) for package in PACKAGES)


def test_every_module_on_a_jobs_way_is_there_once() -> None:
    named = re.findall(r"\w+\.py", DIAGRAMS[1])

    assert len(named) > 10
    for name in named:
        assert [path for package in PACKAGES for path in package.rglob(name)], name


def test_the_readme_lists_every_verb_in_a_group() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    verbs = re.findall(r"^\| \[`([\w ]+)`\]", page, re.MULTILINE)
    table = re.search(r"^\| for \| verbs \|\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert table is not None

    assert sorted(re.findall(r"`([\w ]+)`", table[1])) == sorted(verbs)


def test_a_commit_is_checked_as_ci_checks_it() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    check = (ROOT / "scripts/check").read_text()

    assert [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]] == ["scripts/check"]
    assert re.findall(r"^step (\S+)", check, re.MULTILINE) == ["ruff", "ruff", "mypy", "lint-imports"]
    assert re.search(r"^scripts/check$", (ROOT / "scripts/test").read_text(), re.MULTILINE)


def test_contributors_are_told_of_files_that_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:scripts|bench|tests|docs)/[\w./-]*\w", page)

    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []
