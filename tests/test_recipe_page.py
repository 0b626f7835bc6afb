"""The page of the recipe tells each field of the code and no other, and the fingerprint on it is one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Control, Recipe, Start, Toward, Warp
from nightreel_queue.job import Job, Output, Render, Shot
from nightreel_queue.motions import Feedback, Walk
from nightreel_queue.pictures import Control as ControlField
from nightreel_queue.pictures import Init
from nightreel_queue.strict import Strict

PAGE = (Path(__file__).parent.parent / "docs/reference/recipe.md").read_text(encoding="utf-8")
WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", tuple[float, float]: "2 numbers"}


def words(annotation: Any) -> str:
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return WORDS.get(annotation) or f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def rows(section: str) -> list[list[str]]:
    text = re.split(r"^## ", PAGE.split(f"\n## {section}\n")[1], flags=re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]


@pytest.mark.parametrize("part", [Recipe, Toward, Start, Warp, Control], ids=lambda part: part.__name__)
def test_the_page_tells_each_field_with_its_type_and_whether_it_is_always_there(part: type[Any]) -> None:
    kinds = typing.get_type_hints(part)

    assert [row[:3] for row in rows(part.__name__)] == [
        [f"`{field.name}`", words(kinds[field.name]), "always there" if field.default is dataclasses.MISSING else "-"]
        for field in dataclasses.fields(part)
    ]
    assert all(len(row) == 5 and row[3] and row[4] for row in rows(part.__name__)), (
        "each needs where from, and a meaning"
    )


def test_the_page_names_fields_that_jobs_and_entries_have() -> None:
    parts: dict[str, type[Strict]] = {
        "": Shot,
        "output": Output,
        "render": Render,
        "init": Init,
        "walk": Walk,
        "feedback": Feedback,
    }
    parts |= {"control": ControlField}
    for section in ("Recipe", "Toward", "Start", "Warp", "Control"):
        for row in rows(section):
            for name in re.findall(r"(?<!entry's )(?<!and )`([\w.]+)`", row[3]):
                owner, _, field = name.rpartition(".")
                owner = "" if owner == "motion" else owner
                assert (
                    field in parts[owner].model_fields or field in Job.model_fields or field in ("walk", "feedback")
                ), name
            for said in re.findall(r"entry's `(\w+)`(?: and `(\w+)`)?", row[3]):
                assert set(filter(None, said)) <= ModelSpec.model_fields.keys()


def test_the_fingerprint_on_the_page_is_that_of_the_recipe_on_it() -> None:
    (text,) = re.findall(r"```json\n(.*)\n```", PAGE)
    (fingerprint,) = re.findall(r"fingerprint `([0-9a-f]{64})`", PAGE)
    fields = json.loads(text)
    recipe = Recipe(**fields | {"control": Control(**fields["control"])})

    assert recipe.fingerprint == fingerprint
    assert hashlib.sha256(text.encode()).hexdigest() == fingerprint


def test_a_fingerprint_is_made_as_the_page_says_whatever_letters_a_prompt_has() -> None:
    recipe = Recipe("flux/1", "a", "fp32", "Müller's 月", seed=5, steps=4, guidance=0, width=64, height=64)
    text = (
        '{"guidance": 0, "height": 64, "precision": "fp32", "prompt": "M\\u00fcller\'s \\u6708", "revision": "a", '
        '"seed": 5, "source": "flux/1", "steps": 4, "width": 64}'
    )

    assert recipe.fingerprint == hashlib.sha256(text.encode("ascii")).hexdigest()
