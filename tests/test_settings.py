"""Settings: one page tells them all, and what does not fit is told in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from nightreel.common import SETTINGS, settings_with, variables
from nightreel_worker.settings import Settings

PAGE = (Path(__file__).parent.parent / "docs/reference/settings.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NIGHTREEL_"):
            monkeypatch.delenv(name)


def status(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")}
    command = [sys.executable, "-m", "nightreel", "status"]
    return subprocess.run(
        command, cwd=folder, env=environment | settings, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_page_tells_every_setting_with_its_default_limits_and_meaning(kind: type[BaseSettings]) -> None:
    fields = dict(zip(variables(kind).values(), kind.model_fields.items(), strict=True))
    rows = re.findall(r"^\| `(NIGHTREEL_\w+)` \| (.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    own = [row for row in rows if row[0] in fields]

    assert own == [
        (variable, default(field), limits(name, field), field.description) for variable, (name, field) in fields.items()
    ]


def test_the_page_tells_no_other_settings_and_none_twice() -> None:
    rows = re.findall(r"^\| `(NIGHTREEL_\w+)` \|", PAGE, re.MULTILINE)

    assert sorted(rows) == sorted(name for kind in SETTINGS for name in variables(kind).values())


def default(field: FieldInfo) -> str:
    if field.default in (None, ""):
        return "-"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, int | float) else f"`{field.default}`"


def limits(name: str, field: FieldInfo) -> str:
    """The unit and the limits of a setting, in the page's words."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "true or false"
    if SecretStr in get_args(field.annotation):
        return "secret"
    if not {int, float} & {field.annotation, *get_args(field.annotation)}:
        return "text" if field.annotation is str else "path"
    bounds = {
        word: getattr(each, word) for each in field.metadata for word in ("ge", "gt", "le") if hasattr(each, word)
    }
    unit = {
        "s": "seconds",
        "mb": "MB",
        "gb": "GB",
        "gib": "GiB",
        "usd": "US dollars",
        "hour": "US dollars an hour",
        "share": "share",
    }.get(name.rpartition("_")[2], "whole number")
    match bounds:
        case {"ge": least, "le": most}:
            return f"{unit}, {least:g} to {most:g}"
        case {"ge": least}:
            return f"{unit}, at least {least:g}"
        case {"gt": bound}:
            return f"{unit}, more than {bound:g}"
    raise AssertionError(f"{name} has no limits: {field.metadata}")


def test_no_other_page_repeats_the_table() -> None:
    """Other pages link to it, so that one place is right."""
    root = Path(__file__).parent.parent
    others = [page for page in (root / "README.md", *root.glob("docs/**/*.md")) if page.name != "settings.md"]

    for page in others:
        assert not re.findall(r"^\| `NIGHTREEL_", page.read_text(encoding="utf-8"), re.MULTILINE), page


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("NIGHTREEL_IDLE_TIMEOUT_S", "-1", "greater than or equal to 0"),
        ("NIGHTREEL_MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("NIGHTREEL_MAX_ATTEMPTS", "2.5", "integer"),
        ("NIGHTREEL_RETRY_DELAY_S", "601", "less than or equal to 600"),
        ("NIGHTREEL_STALL_S", "0", "greater than 0"),
        ("NIGHTREEL_STALL_S", "nan", "greater than 0"),
        ("NIGHTREEL_DRAIN_S", "soon", "number"),
        ("NIGHTREEL_X264_PRESET", "placebo", "'ultrafast'"),
        ("NIGHTREEL_LOG_FORMAT", "xml", "'json'"),
        ("NIGHTREEL_RESULTS_TOPIC", "results", "must be pubsub://PROJECT/TOPIC"),
        ("NIGHTREEL_RESULTS_TOPIC", "pubsub://demo/a,pubsub://demo/b", "must be one"),
        ("NIGHTREEL_NOTIFY_TOPICS", "pubsub://demo/a, pubsub://demo", "must be pubsub://PROJECT/TOPIC"),
        ("NIGHTREEL_NOTIFY_TOPICS", "pubsub://demo/a,pubsub://other/a", "the same last part"),
        ("NIGHTREEL_TRUSTED_HOSTS", "localhost,http://10.0.0.1/", "'http://10.0.0.1/' is no host"),
        ("NIGHTREEL_WEBHOOK_SECRET", "c2VjcmV0LXdpdGhvdXQtaXRzLXByZWZpeC0h", "must be whsec_"),
        ("NIGHTREEL_WEBHOOK_SECRET", "whsec_c2hvcnQ=", "24 to 64 random bytes"),
        ("NIGHTREEL_WEBHOOK_SECRET", "whsec_not/base64!", "the base64 of"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, why: str
) -> None:
    monkeypatch.setenv(setting, value)

    with pytest.raises(ValidationError, match=why):
        Settings()


def test_the_command_tells_every_wrong_setting_in_a_line_of_its_own(tmp_path: Path) -> None:
    wrong = {"NIGHTREEL_STALL_S": "0", "NIGHTREEL_MAX_ATTEMPTS": "many", "NIGHTREEL_LOG_LEVEL": "loud"}

    run = status(tmp_path, **wrong)

    assert run.returncode == 2
    assert run.stdout == ""
    lines = run.stderr.splitlines()
    assert sorted(line.split(":")[1] for line in lines) == sorted(f" setting {name}" for name in wrong)
    for line in lines:
        name = line.split()[2].rstrip(":")
        assert line.startswith("nightreel: ")
        assert line.endswith(f"found {wrong[name]!r}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", [{}, {"NIGHTREEL_STORE": "", "NIGHTREEL_MAX_ATTEMPTS": "", "NIGHTREEL_WEIGHTS": ""}])
def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, empty: Mapping[str, str]) -> None:
    for name, value in empty.items():
        monkeypatch.setenv(name, value)

    assert (Settings().store, Settings().max_attempts, Settings().weights) == ("out", 3, None)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREEL_STORE", "from-the-environment")
    monkeypatch.setenv("NIGHTREEL_MODEL", "from-the-environment")

    settings = settings_with(store="from-the-flag", model=None)

    assert (settings.store, settings.model) == ("from-the-flag", "from-the-environment")


def test_the_queue_lies_in_the_store_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().queue_url == "sqlite:///out/.nightreel/queue.db"

    monkeypatch.setenv("NIGHTREEL_STORE", "/srv/videos")
    assert Settings().queue_url == "sqlite:////srv/videos/.nightreel/queue.db"

    monkeypatch.setenv("NIGHTREEL_QUEUE", "sqlite:///jobs.db")
    assert Settings().queue_url == "sqlite:///jobs.db"


def test_settings_cannot_be_changed_once_they_are_built() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().store = "elsewhere"  # type: ignore[misc]  # which is the point


def test_a_misspelt_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    done = status(tmp_path, NIGHTREEL_STOER="out")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "nightreel: setting NIGHTREEL_STOER: there is none of that name; did you mean NIGHTREEL_STORE?"
    ]


@pytest.mark.parametrize("secret", ["sekrit", "whsec_sekrit", "whsec_c2Vrcml0", "whsec_" + "QUFB" * 8 + ",sekrit"])
def test_a_secret_that_does_not_fit_is_not_repeated(tmp_path: Path, secret: str) -> None:
    run = status(tmp_path, NIGHTREEL_WEBHOOK_SECRET=secret)

    assert run.returncode == 2
    assert run.stderr.startswith("nightreel: setting NIGHTREEL_WEBHOOK_SECRET: ")
    assert not any(part in run.stderr for part in ("sekrit", "c2Vrcml0", "QUFB"))


def test_a_secret_is_shown_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREEL_WEBHOOK_SECRET", "whsec_" + "QUFB" * 8)

    settings = Settings()

    assert "QUFB" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    # Not even by an error that nobody expected
    monkeypatch.setenv("NIGHTREEL_WEBHOOK_SECRET", "whsec_sekrit")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "sekrit" not in str(caught.value)
