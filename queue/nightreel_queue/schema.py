"""JSON Schema of jobs and manifests, for editors and for publishers in other languages.

The job's schema is also a file of the package, `job.schema.json`. After a change of the models, write it anew with

    python -m nightreel_queue.schema
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from .job import Job

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILE = Path(__file__).with_name("job.schema.json")

Schema = dict[str, Any]


def job_schema() -> Schema:
    """The JSON Schema of one job. Rules that span several fields are beyond it; parse_job checks them too."""
    return copy.deepcopy(_job_schema())


@cache
def _job_schema() -> Schema:
    schema = Job.model_json_schema()
    schema["properties"]["labels"]["additionalProperties"] = False  # else keys of another form would pass
    _tidy(schema)
    head = {"$schema": DIALECT, "$id": "urn:nightreel:job:1", "title": "Nightreel job"}
    return head | {key: value for key, value in schema.items() if key != "title"}


def _tidy(node: Any) -> None:
    """Drop the titles that pydantic makes from names, and the defaults that say only 'left out'."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", ...) is None:
        del node["default"]
    for key, item in node.items():
        if key != "default":
            _tidy(item)


def manifest_schema() -> Schema:
    """The JSON Schema of a YAML or JSON manifest: a list of jobs with defaults, or one job."""
    schema = job_schema()
    parts: Schema = schema["$defs"]
    properties: Schema = {key: value for key, value in schema["properties"].items() if key != "batch"}
    shot = {key: value for key, value in parts["Shot"].items() if key not in ("required", "anyOf")}
    words = {"type": "string", "minLength": 1, "description": "a shot that is only its prompt"}
    properties["shots"] |= {"items": {"anyOf": [words, {"$ref": "#/$defs/Shot"}]}}
    parts |= {
        "Shot": shot | {"description": "A shot; what it leaves out comes from defaults.shot."},
        "Job": _mapping(properties, "One video; what it leaves out comes from defaults."),
        "Defaults": _mapping(_default_fields(properties, shot), "Fields for every job, and shot: for every shot."),
    }
    top = {"version": properties["version"], "batch": schema["properties"]["batch"]}
    jobs = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Job"}}
    many = _mapping(top | {"defaults": {"$ref": "#/$defs/Defaults"}, "jobs": jobs}, "Many videos.", "jobs")
    one = _mapping(properties | top, "One video.", "shots")
    head = {"$schema": DIALECT, "$id": "urn:nightreel:manifest:1", "title": "Nightreel manifest"}
    forms = [many, one, _templates(top)]
    whole: Schema = head | {"description": "A file of jobs with shared defaults.", "oneOf": forms, "$defs": parts}
    _allow_paths(whole)
    return whole


def _templates(top: Schema) -> Schema:
    """With `vars` any field may hold a placeholder: what it must be shows when that is filled."""
    row = {"type": "object", "description": "Texts and numbers by the names of the placeholders."}
    rows = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": row}]}
    template = {"type": "object", "description": "A job whose texts may hold {placeholders}."}
    properties = top | {
        "vars": rows | {"description": "Rows that fill the placeholders, or the path of a CSV file that has them."},
        "defaults": {"type": "object"},
        "jobs": {"type": "array", "minItems": 1, "items": template},
    }
    return {"type": "object", "description": "One video for each row.", "properties": properties, "required": ["vars"]}


def _allow_paths(node: Any) -> None:
    """A manifest may name a file where a job has an address."""
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _allow_paths(item)
    if isinstance(node, dict) and "input:sha256:" in str(node.get("pattern", "")):
        del node["pattern"]


def _default_fields(properties: Schema, shot: Schema) -> Schema:
    shared = {key: value for key, value in properties.items() if key != "id"}
    of_shots = {key: value for key, value in shot["properties"].items() if key != "transition"}
    return shared | {"shot": _mapping(of_shots, "Fields for every shot of every job.")}


def _mapping(properties: Schema, description: str, *required: str) -> Schema:
    mapping = {"type": "object", "description": description, "additionalProperties": False, "properties": properties}
    return mapping | ({"required": list(required)} if required else {})


def write_job_schema() -> None:
    """Write the package's copy anew."""
    SCHEMA_FILE.write_text(json.dumps(_job_schema(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_job_schema()
