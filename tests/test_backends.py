"""The file of backends, its page, and `nightreel backends`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from house import House

from nightreel_dispatcher.backends import Backend, BadBackends, load_backends
from nightreel_dispatcher.health import asker
from nightreel_pipelines.models import load_models

PAGE = (Path(__file__).parent.parent / "docs/reference/backends.md").read_text(encoding="utf-8")
GOOD = '[local]\nlauncher = "process"\nmodel = "testcard"\n'


def load(folder: Path, text: str) -> tuple[Backend, ...]:
    path = folder / "backends.toml"
    path.write_text(text)
    return load_backends(path, load_models(), None)


def test_backends_keep_the_order_of_their_file(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD.replace("local", "zoo") + GOOD)

    assert [each.name for each in found] == ["zoo", "local"]


def test_the_file_on_the_page_is_one(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None

    assert [each.name for each in load(tmp_path, example[1])] == ["local", "cloud"]


def test_the_page_tells_every_field_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    fields = {name: field for name, field in Backend.model_fields.items() if name != "name"}

    assert [(name, meaning) for name, _, meaning in rows] == [
        (name, field.description) for name, field in fields.items()
    ]
    for name, default, _ in rows:
        field = fields[name]
        wanted = "required" if field.is_required() else "-" if field.default in ("", {}) else f"`{field.default}`"
        assert default in (wanted, wanted.replace(".0`", "`")), name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no backend in it; write [local] with launcher and model"),
        ('launcher = "process"', "launcher stands outside a table: write [NAME] above it"),
        ('[local]\nlauncher = "process"\n', "local.model: Field required"),
        (GOOD + "wokers = 1\n", "local.wokers: Extra inputs are not permitted; there are name, launcher"),
        (GOOD.replace('"process"', '"heroku"'), "local.launcher: no launcher 'heroku'; there are none, process"),
        (GOOD.replace("testcard", "testcrad"), "local.model: no model testcrad; did you mean testcard?"),
        (GOOD + 'price = "cheap"\n', "local.price: no price 'cheap'; there are cloudrun-l4"),
        (GOOD + "max_workers = 0\n", "local.max_workers: Input should be greater than or equal to 1"),
        (GOOD + 'health = "ftp://x"\n', "local.health: String should match"),
        (GOOD + '[local.env]\nNIGHTREEL_STORE = "x"\n', "local.env: NIGHTREEL_STORE follows from the entry"),
        (GOOD + '[local.env]\nlower = "hunter2"\n', "local.env: lower is no name of a variable"),
        ("[local\n", "Expected ']'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadBackends) as told:
        load(tmp_path, text)

    assert str(told.value).startswith(f"cannot use {tmp_path / 'backends.toml'}: ")
    assert said in str(told.value)
    assert "hunter2" not in str(told.value), "values may be secret"


def test_comfyui_is_asked_by_its_own_function_at_the_backends_own_servers() -> None:
    spec = load_models()["comfyui-schnell"]
    backend = Backend(
        name="local",
        launcher="process",
        model=spec.name,
        env={"NIGHTREEL_COMFYUI_SERVERS": "http://127.0.0.1:9,http://127.0.0.1:10"},
    )

    ask = asker(backend, spec)

    assert ask is not None
    answer = ask()
    assert not answer.ok
    assert "127.0.0.1:9" in answer.words
    assert "127.0.0.1:10" in answer.words
    assert asker(backend.model_copy(update={"health": "none"}), spec) is None
    assert asker(backend, load_models()["flux-schnell"]) is None


def test_the_command_tells_of_each_backend_and_keeps_a_preference(tmp_path: Path) -> None:
    house = House(tmp_path)
    text = GOOD + 'health = "http://127.0.0.1:9/"\nretries = 0\n' + GOOD.replace("local", "spare")
    (tmp_path / "backends.toml").write_text(text)
    command = (sys.executable, "-m", "nightreel", "backends", "--check", "--prefer", "spare")

    run = house.work(*command, dispatcher_backends=str(tmp_path / "backends.toml"), model="testcard")

    assert run.code == 0, run.err
    spare, local = (
        line for line in run.out.splitlines() if line.split()[0] in ("spare", "local") and "process" in line
    )
    assert spare.split()[:4] == ["spare", "process", "testcard", "green"]
    assert spare.rstrip().endswith("here: preferred")
    assert "no: local did not answer since" in local
    board = json.loads((tmp_path / "out/.nightreel/backends.json").read_text())
    assert (board["prefer"]["name"], board["backends"]["local"]["breaker"]["opened"]) == ("spare", 1)
    house.close()
