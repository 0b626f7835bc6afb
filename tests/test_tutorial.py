"""The tutorial does what it says: its commands are run as they stand there, with the files that it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nightreel_storage.folder import FolderStore

PAGE = Path(__file__).parent.parent / "docs/tutorial.md"
COMMANDS = re.findall(r"^    (nightreel .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
FILES = dict(re.findall(r"Make a file `([\w.]+)`.*?```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which somebody followed the page, and what each command said."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")}
    told = {}
    for command in COMMANDS:
        run = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{command}:\n{run.stdout}\n{run.stderr}"
        told[command] = run.stdout
    return folder, told


def test_every_file_that_the_page_names_is_there_afterwards(said: tuple[Path, dict[str, str]]) -> None:
    folder, _ = said
    for name in ("preview/first/evening.preview.mp4", "out/first/evening.mp4", "videos/second/evening.mp4"):
        assert f"`{name}`" in PAGE.read_text(encoding="utf-8") or name.startswith("videos/second/")
        assert (folder / name).is_file(), name
    store = FolderStore(folder / "out")
    assert [entry.name for entry in store.list("first/")] == [f"first/evening.{end}" for end in ("jpg", "json", "mp4")]


def test_the_commands_say_what_the_page_says_that_they_say(said: tuple[Path, dict[str, str]]) -> None:
    _, told = said
    quoted = "0 keyframes rendered, 2 from the store"

    assert f"It says `{quoted}`" in PAGE.read_text(encoding="utf-8")
    assert quoted in told["nightreel render second.yaml"]
    assert "fail" not in {line[:4] for line in told["nightreel doctor"].splitlines()}


def test_the_page_has_all_the_steps() -> None:
    assert [command.split()[1] for command in COMMANDS] == [
        "doctor", "preview", "render", "render", "status", "download",
    ]  # fmt: skip
    assert list(FILES) == ["first.yaml", "second.yaml"]
