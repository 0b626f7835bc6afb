"""The published schema: it is that of the code, it accepts what the code accepts, and the reference page agrees."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_queue.manifest import parse_manifest
from nightreel_queue.problems import PATTERN_WORDS, parse_job
from nightreel_queue.schema import DIALECT, SCHEMA_FILE, job_schema, manifest_schema

ROOT = Path(__file__).parent.parent
EVERY_FIELD: dict[str, Any] = {
    "version": 1,
    "id": "all-of-it",
    "batch": "b",
    "output": {"width": 640, "height": 360, "fps": 24, "crf": 20},
    "render": {"model": "pocket", "megapixels": 0.016, "steps": 4},
    "seed": 4294967295,
    "seed_mode": "fixed",
    "style_prefix": "a",
    "style_suffix": "b",
    "shots": [
        {"prompt": "x", "duration": 2, "seed": 1, "motion": "still", "transition": {"type": "cut"}},
        {"prompt": "y", "motion": {"zoom": [1, 2], "pan": [0, 1], "rotate": 3, "focus": [0.1, 0.9], "ease": "in"}},
        {"image": "gs://pictures/logo.png"},
        {"prompt": "z", "init": {"image": "gs://pictures/hills.jpg", "strength": 0.6}},
        {
            "prompt": "z",
            "control": {"type": "pose", "image": "gs://pictures/pose.png", "scale": 1, "start": 0.1, "end": 0.9},
        },
        {"prompt": "z", "motion": {"walk": {"to": "x", "seed": 3, "rate": 4, "ease": "in"}}},
        {
            "prompt": "z",
            "motion": {"feedback": {"zoom": 1.2, "pan": [0, 0.1], "rotate": 3, "strength": 0.4, "rate": 2}},
        },
    ],
    "transition": {"type": "slide", "duration": 0.5, "direction": "up"},
    "audio": {"uri": "gs://sounds/x.mp3", "gain_db": -3, "start": 1, "loop": True, "fade_in": 1, "fade_out": 2},
    "limits": {"max_seconds": 60.5, "max_cost_usd": 0.25, "not_after": "2026-05-01T06:00:00+02:00"},
    "priority": "urgent",
    "notify": {"topic": "results", "webhook": "https://example.com/hook"},
    "labels": {"a": "b"},
}


def fits(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value fits a schema, as far as JSON Schema's words are used here."""
    unknown = node.keys() - KNOWN_WORDS
    assert not unknown, f"this test does not know {unknown}"
    return all(check(value, node, root) for word, check in CHECKS.items() if word in node)


def _properties_fit(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    known, patterns = node.get("properties", {}), node.get("patternProperties", {})
    for key, item in value.items():
        nodes = [known[key]] if key in known else [part for form, part in patterns.items() if re.search(form, key)]
        if not nodes and node.get("additionalProperties") is False:
            return False
        if not all(fits(item, part, root) for part in nodes):
            return False
    return True


TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float}


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    return (
        isinstance(value, bool) if kind == "boolean" else isinstance(value, TYPES[kind]) and not isinstance(value, bool)
    )


def _items_fit(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    return not isinstance(value, list) or all(fits(item, node["items"], root) for item in value)


CHECKS: dict[str, Any] = {
    "$ref": lambda v, n, r: fits(v, r["$defs"][n["$ref"].removeprefix("#/$defs/")], r),
    "anyOf": lambda v, n, r: any(fits(v, part, r) for part in n["anyOf"]),
    "oneOf": lambda v, n, r: sum(fits(v, part, r) for part in n["oneOf"]) == 1,
    "type": lambda v, n, r: _is(v, n["type"]),
    "const": lambda v, n, r: v == n["const"],
    "enum": lambda v, n, r: v in n["enum"],
    "properties": _properties_fit,
    "patternProperties": _properties_fit,
    "maxProperties": lambda v, n, r: len(v) <= n["maxProperties"],
    "required": lambda v, n, r: not isinstance(v, dict) or set(n["required"]) <= v.keys(),
    "items": _items_fit,
    "prefixItems": lambda v, n, r: (
        not isinstance(v, list) or all(fits(item, part, r) for item, part in zip(v, n["prefixItems"], strict=False))
    ),
    "minItems": lambda v, n, r: not isinstance(v, list) or len(v) >= n["minItems"],
    "maxItems": lambda v, n, r: not isinstance(v, list) or len(v) <= n["maxItems"],
    "minimum": lambda v, n, r: not _is(v, "number") or v >= n["minimum"],
    "maximum": lambda v, n, r: not _is(v, "number") or v <= n["maximum"],
    "minLength": lambda v, n, r: not isinstance(v, str) or len(v) >= n["minLength"],
    "maxLength": lambda v, n, r: not isinstance(v, str) or len(v) <= n["maxLength"],
    "pattern": lambda v, n, r: not isinstance(v, str) or re.search(n["pattern"], v) is not None,
}
KNOWN_WORDS = CHECKS.keys() | {"$schema", "$id", "$defs", "title", "description", "default", "additionalProperties"}


def test_the_packages_schema_file_is_that_of_the_code() -> None:
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))

    assert published == job_schema(), "write it anew: python -m nightreel_queue.schema"


def test_the_schemas_say_what_they_are() -> None:
    heads = [{key: schema[key] for key in ("$schema", "$id", "title")} for schema in (job_schema(), manifest_schema())]

    assert heads == [
        {"$schema": DIALECT, "$id": "urn:nightreel:job:1", "title": "Nightreel job"},
        {"$schema": DIALECT, "$id": "urn:nightreel:manifest:1", "title": "Nightreel manifest"},
    ]


def test_a_schema_handed_out_is_the_callers_own() -> None:
    job_schema()["properties"].clear()

    assert "shots" in job_schema()["properties"]


@pytest.mark.parametrize("document", [EVERY_FIELD, {"shots": [{"prompt": "x"}]}], ids=["every field", "smallest"])
def test_a_job_that_the_code_accepts_fits_the_schema(document: dict[str, Any]) -> None:
    job = parse_job(json.dumps(document))

    assert fits(document, job_schema(), job_schema())
    assert fits(json.loads(job.to_json()), job_schema(), job_schema())
    assert fits(job.model_dump(mode="json"), job_schema(), job_schema())


def test_the_job_of_every_field_has_every_field() -> None:
    """Else a new field would go untested."""
    assert EVERY_FIELD.keys() == Job.model_fields.keys()
    assert {key for shot in EVERY_FIELD["shots"] for key in shot} == set(job_schema()["$defs"]["Shot"]["properties"])


@pytest.mark.parametrize(
    "change",
    [
        {"sed": 1},
        {"seed": -1},
        {"version": 2},
        {"id": "a b"},
        {"shots": []},
        {"shots": [{}]},
        {"shots": ["x"]},
        {"shots": [{"prompt": ""}]},
        {"shots": [{"prompt": "x", "motion": "stil"}]},
        {"shots": [{"prompt": "x", "motion": {"zoom": [1]}}]},
        {"shots": [{"prompt": "x", "motion": {"zoom": [1, 9]}}]},
        {"shots": [{"prompt": "x", "motion": {"walk": {}, "zoom": [1, 2]}}]},
        {"shots": [{"prompt": "x", "motion": {"walk": {"rate": 9}}}]},
        {"shots": [{"prompt": "x", "motion": {"feedback": {"to": "y"}}}]},
        {"shots": [{"prompt": "x", "init": {"strength": 0.5}}]},
        {"shots": [{"prompt": "x", "control": {"image": "gs://pictures/x.png"}}]},
        {"shots": [{"prompt": "x", "control": {"type": "depth", "image": "gs://pictures/x.png"}}]},
        {"render": {"steps": 51}},
        {"output": {"fps": 99}},
        {"transition": {"type": "slide", "direction": "in"}},
        {"audio": {}},
        {"audio": {"uri": "song.mp3"}},
        {"audio": {"uri": "gs://sounds/x.mp3", "loop": 1}},
        {"audio": {"uri": "gs://sounds/x.mp3", "fade_out": -1}},
        {"labels": {"A": "x"}},
        {"labels": {f"a{number}": "x" for number in range(33)}},
        {"priority": "high"},
        {"notify": {"topic": "a b"}},
        {"notify": {"webhook": "ftp://example.com/"}},
        {"notify": {"webhook": "https://example.com/" + "x" * 2000}},
        {"notify": {"mail": "a@example.com"}},
    ],
)
def test_what_the_code_refuses_in_one_field_the_schema_refuses_too(change: dict[str, Any]) -> None:
    assert not fits({"shots": [{"prompt": "x"}]} | change, job_schema(), job_schema())


MANIFESTS: list[tuple[Any, bool]] = [
    ({"jobs": [{"shots": ["x", {"duration": 2}]}], "defaults": {"shot": {"prompt": "y"}}, "batch": "b"}, True),
    ({"jobs": [{"seed": 1}, {"seed": 2}], "defaults": {"shots": ["x"]}, "version": 1}, True),
    ({"shots": ["x"], "batch": "b"}, True),
    ({"jobs": [{"shots": ["x"], "batch": "b"}]}, False),
    ({"jobs": [{"shots": ["x"]}], "shots": ["x"]}, False),
    ({"shots": ["x"], "defaults": {}}, False),
    ({"jobs": [{"shots": ["x"]}], "defaults": {"id": "x"}}, False),
    ({"jobs": [{"shots": ["x"]}], "defaults": {"shot": {"transition": {}}}}, False),
    ({"jobs": [{"shots": ["x"]}], "defaults": {"shot": {"promt": "x"}}}, False),
    ({"jobs": []}, False),
    ({"vars": [{"a": 1}], "id": "film-{a}", "seed": "{a}", "shots": ["{a}"]}, True),
    ({"vars": [{"a": 1}], "defaults": {"seed": "{a}"}, "jobs": [{"shots": ["{a}"]}]}, True),
    ({"vars": [], "shots": ["x"]}, False),
    ({"vars": 5, "jobs": [{"shots": ["x"]}]}, False),
    ({}, False),
]


@pytest.mark.parametrize(("document", "sound"), MANIFESTS)
def test_the_manifest_schema_agrees_with_the_code(document: Any, sound: bool) -> None:
    try:
        accepted = bool(parse_manifest(json.dumps(document), "m.json", "json").jobs)
    except InvalidJob:
        accepted = False

    assert accepted is sound
    assert fits(document, manifest_schema(), manifest_schema()) is sound


def test_the_example_fits_the_manifest_schema() -> None:
    document = yaml.safe_load((ROOT / "examples/nightly.yaml").read_text(encoding="utf-8"))

    assert fits(document, manifest_schema(), manifest_schema())


# The reference page


def type_words(node: dict[str, Any]) -> str:
    parts = [part for part in node.get("anyOf", node.get("oneOf", [node])) if part.get("type") != "null"]
    return " or ".join(map(_type_word, parts))


def _type_word(node: dict[str, Any]) -> str:
    if "$ref" in node:
        part = node["$ref"].rsplit("/", 1)[1]
        return f"[{part}](#{part.lower()})"
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node["enum"])
    if "prefixItems" in node:
        return f"{len(node['prefixItems'])} numbers"
    if node["type"] == "array":
        return f"list of {_type_word(node['items'])}"
    words = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}
    return (words | {"boolean": "`true` or `false`"})[node["type"]]


def default_words(name: str, node: dict[str, Any], required: list[str]) -> str:
    if name in required:
        return "required"
    default = node.get("default")
    if isinstance(default, dict):
        default = {key: item for key, item in default.items() if key == "zoom"}
    if default is None:
        return "-"
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def limit_words(node: dict[str, Any]) -> str:
    parts = [part for part in node.get("anyOf", [node]) if part.get("type") != "null"]
    part = parts[0].get("prefixItems", parts)[0]
    if "pattern" in part:
        return PATTERN_WORDS[part["pattern"]]
    if "maxProperties" in part:
        return f"at most {part['maxProperties']}"
    bounds = [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", "")]
    for low, high, unit in bounds:
        if high in part:
            return f"{part.get(low, 0)} to {part[high]}{unit}"
    return "-"


def expected_rows(part: str) -> dict[str, list[str]]:
    schema = job_schema()
    node = schema if part == "Job" else schema["$defs"][part]
    required = node.get("required", [])
    return {
        name: [type_words(item), default_words(name, item, required), limit_words(item)]
        for name, item in node["properties"].items()
    }


def written_rows(part: str) -> dict[str, list[str]]:
    page = (ROOT / "docs/reference/job.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {part}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]
    return {row[0].strip("`"): row[1:] for row in rows if row[0].startswith("`")}


PARTS = ["Job", *job_schema()["$defs"]]


@pytest.mark.parametrize("part", PARTS)
def test_the_reference_page_has_every_field_with_its_type_default_and_limits(part: str) -> None:
    written = written_rows(part)

    assert {name: row[:3] for name, row in written.items()} == expected_rows(part)
    assert all(len(row) == 4 and row[3] for row in written.values()), "each field needs its meaning"
