"""What is wrong with a job, in plain words: which field, what was found, what is allowed, and the nearest mend."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import InvalidJob, Problem
from .job import Job
from .json_text import read_json
from .motions import KINDS, WalkMotion
from .schema import job_schema
from .strict import INCOMPLETE
from .trees import Path, Tree, Unreadable

MAX_JOB_BYTES = 2**20
MAX_MISTAKES = 50  # told of one job; more would help nobody
SHORT_CHARS = 40  # of a found value that a message repeats

ADDRESS = (
    r"^(gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^\x00-\x1f\x7f]+|https?://[^\x00-\x20\x7f]+"
    r"|input:sha256:[0-9a-f]{64}\.[a-z0-9]{2,4})$"
)
PATTERN_WORDS = {
    r"^[A-Za-z0-9_-]{1,64}$": "1 to 64 letters, digits, - or _",
    r"^[a-z0-9][a-z0-9_-]{0,39}$": "a model's name: at most 40 lower-case letters, digits, - or _",
    ADDRESS: "an address: gs://BUCKET/NAME or https://..., at most 2000 characters",
    r"^[A-Za-z][A-Za-z0-9._~+-]{2,247}$": "a topic's name: a letter, then 2 to 247 letters, digits or . _ ~ + -",
    r"^https?://[\x21-\x7e]+$": "an https:// address of at most 2000 characters, without blanks",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})$": "a time with its zone, such as 2026-05-01T06:00:00Z",
    r"^[a-z][a-z0-9_-]{0,62}$": "a lower-case letter, then at most 62 lower-case letters, digits, - or _",
}
_SCHEMA = job_schema()
_LABEL_NAME = PATTERN_WORDS[next(iter(_SCHEMA["properties"]["labels"]["patternProperties"]))]
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Mistake(NamedTuple):
    """One thing that a model refused, before its place is known."""

    path: Path
    message: str
    spans_fields: bool
    """It is about several fields that do not go together, not about one alone."""


def parse_job(data: bytes | str, place: str = "") -> Job:
    """The job in a message: canonical JSON or any other JSON of at most 1 MB. Raises InvalidJob with every problem."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > MAX_JOB_BYTES:
        raise InvalidJob([Problem(f"is {len(raw):,} bytes; a job may have {MAX_JOB_BYTES:,}", place=place)])
    try:
        tree = read_json(raw.decode("utf-8"))
        return Job.model_validate(tree.plain())
    except UnicodeDecodeError as exc:
        raise InvalidJob([Problem(f"is not UTF-8 (byte {exc.start + 1}): write JSON as UTF-8", place=place)]) from exc
    except Unreadable as exc:
        where = f"line {exc.line}: " if exc.line and exc.line > 1 else ""
        raise InvalidJob([Problem(where + exc.message, place=place)]) from exc
    except ValidationError as exc:
        found = [Problem(mistake.message, field_name(mistake.path), place) for mistake in mistakes(exc)]
        raise InvalidJob(found) from exc


def mistakes(error: ValidationError) -> list[Mistake]:
    """All that a model refused, each thing once, in the order of the fields."""
    details = error.errors(include_url=False)
    told = details[:MAX_MISTAKES]
    misspelt = {_meant(detail["loc"]) for detail in told if detail["type"] == "extra_forbidden"}
    found = [_mistake(item) for item in told if item["type"] != "missing" or item["loc"] not in misspelt]
    if len(details) > MAX_MISTAKES:
        found.append(Mistake((), f"has {len(details) - MAX_MISTAKES:,} more problems", False))
    return list(dict.fromkeys(found))


def field_name(path: Path) -> str:
    """A path as a user writes it: shots[2].motion.zoom."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        elif _PLAIN_NAME.fullmatch(step) and len(step) <= SHORT_CHARS:
            name += f".{step}" if name else step
        else:
            name += f"[{_quoted(step)}]"
    return name


def unknown_field(name: str, known: list[str], what: str = "field") -> str:
    """What to say of a field, or of another named thing, that does not exist."""
    nearest = _nearest(name, known)
    mend = f"did you mean {nearest!r}?" if nearest else f"the {what}s here are: {', '.join(sorted(known))}"
    return f"unknown {what} {_quoted(name)}; {mend}"


def found_words(value: Any) -> str:
    """A value as found, short enough for a message: 'is 5'."""
    if value is None or value == "":
        return "is empty"
    if isinstance(value, str):
        long = f" ({len(value)} characters)" if len(value) > SHORT_CHARS else ""
        return f"is {_quoted(value)}{long}"
    if isinstance(value, dict):
        return f"is a mapping of {len(value)} fields"
    if isinstance(value, tuple):
        scalars = all(isinstance(item, int | float | str | None) for item in value[:SHORT_CHARS])
        text = json.dumps(value) if scalars and len(value) <= SHORT_CHARS else ""
        return f"is {text}" if 0 < len(text) <= SHORT_CHARS else f"is a list of {len(value)} items"
    return f"is {json.dumps(value)}"


def _mistake(detail: ErrorDetails) -> Mistake:
    kind, context = detail["type"], detail.get("ctx", {})
    loc = detail["loc"]
    if kind in ("nightreel", INCOMPLETE):
        return Mistake(_path(loc) + tuple(context["at"]), str(context["message"]), kind == INCOMPLETE or not loc)
    if loc[-1:] == ("[key]",):
        return Mistake(_path(loc[:-1]), f"is not a label's name; must be {_LABEL_NAME}", False)
    path = _path(loc)
    if kind == "extra_forbidden":
        name, known = str(path[-1]), _names_at(path[:-1])
        if name in known:  # two members of a union, mixed
            return Mistake(path, "does not go with the other fields here: take one or the other", False)
        return Mistake(path, unknown_field(name, known), False)
    if kind == "missing" and isinstance(path[-1], int):  # half of a pair: say what the pair must be
        return Mistake(path[:-1], _refusal(path[:-1], found_words(detail["input"]), detail["input"]), False)
    found = "is missing" if kind == "missing" else found_words(detail["input"])
    return Mistake(path, _refusal(path, found, detail["input"]), False)


def _path(loc: tuple[str | int, ...]) -> Path:
    """A location without the tags that tell a union's members apart."""
    return tuple(
        step
        for index, step in enumerate(loc)
        if not (step in KINDS and index == 3 and loc[0] == "shots" and loc[2] == "motion")
    )


def _meant(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where an unknown field would be if it were spelt as its nearest name: that one is not missing too."""
    return (*loc[:-1], _nearest(str(loc[-1]), _names_at(_path(loc[:-1]))) or "")


def _refusal(path: Path, found: str, value: Any) -> str:
    nodes = list(_alternatives(_node_at(path)))
    words = ", or ".join(map(_words, nodes)).replace(", or a mapping of", ", or of")
    words = words.replace(", or of", ", or a mapping of", 1) if not words.startswith("a mapping") else words
    return f"{found}; must be {words}{_hint(value, nodes)}"


def _hint(value: Any, nodes: list[dict[str, Any]]) -> str:
    types = {node.get("type") for node in nodes}
    if types == {"string"} and isinstance(value, int | float):
        return ": put it in quotes"
    if types & {"integer", "number"} and isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return ": leave out the quotes"
    choices = [word for node in nodes for word in node.get("enum", [node["const"]] if "const" in node else [])]
    nearest = _nearest(value, choices) if isinstance(value, str) else None
    return f"; did you mean {nearest!r}?" if nearest else ""


def _nearest(name: str, known: list[Any]) -> str | None:
    if len(name) > SHORT_CHARS:
        return None
    words = [word for word in known if isinstance(word, str)]
    return next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), words, n=1)), None)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHORT_CHARS else text[: SHORT_CHARS - 1] + "…")


def _node_at(path: Path) -> dict[str, Any]:
    node: dict[str, Any] = _SCHEMA
    for step in path:
        node = next((child for part in _alternatives(node) for child in _children(part, step)), {})
    return node


def _children(node: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(step, int):
        yield from node.get("prefixItems", [])[step : step + 1]
        if "items" in node:
            yield node["items"]
    elif step in node.get("properties", {}):
        yield node["properties"][step]
    else:
        yield from node.get("patternProperties", {}).values()


def _alternatives(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The forms that a value may have, null aside."""
    if "$ref" in node:
        yield from _alternatives(_SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]])
    elif "properties" not in node and ("anyOf" in node or "oneOf" in node):
        for part in node.get("anyOf") or node["oneOf"]:
            yield from _alternatives(part)
    elif node.get("type") != "null":
        yield node


def forms_at(path: Path) -> list[dict[str, Any]]:
    """The JSON Schemas that a value at `path` of a job may fit, null aside; none for a path that leads nowhere."""
    return list(_alternatives(_node_at(path)))


def _names_at(path: Path) -> list[str]:
    return [name for node in forms_at(path) for name in node.get("properties", {})]


def _words(node: dict[str, Any]) -> str:
    """What a schema asks for, in words."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return " or ".join(node["enum"]) if len(node["enum"]) == 2 else f"one of {', '.join(node['enum'])}"
    if "prefixItems" in node:
        item = node["prefixItems"][0]
        return f"a list of {len(node['prefixItems'])} numbers from {item['minimum']} to {item['maximum']}"
    kind = node.get("type")
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number from {node['minimum']} to {node['maximum']}"
    if kind == "boolean":
        return "true or false"
    if kind == "string":
        return PATTERN_WORDS.get(node.get("pattern", ""), "") or _text_words(node)
    if kind == "array":
        return f"a list of {node['minItems']} to {node['maxItems']} items"
    if "properties" in node:
        return f"a mapping of {', '.join(node['properties'])}"
    return f"a mapping of at most {node['maxProperties']} names to texts"


def _text_words(node: dict[str, Any]) -> str:
    if "maxLength" not in node:
        return "text"
    shortest = f"{node['minLength']} to" if "minLength" in node else "at most"
    return f"text of {shortest} {node['maxLength']} characters"


def check_size(job: Job) -> str | None:
    """What to say of a job that no message could carry; None when it fits."""
    ends = [shot.motion.walk.to for shot in job.shots if isinstance(shot.motion, WalkMotion)]
    if sum(len(text or "") for text in [*ends, *(shot.prompt for shot in job.shots)]) < MAX_JOB_BYTES // 8:
        return None
    size_bytes = len(job.to_json().encode())
    allowed = MAX_JOB_BYTES - 1000  # what resolving adds: model, batch and id
    return f"is {size_bytes:,} bytes as JSON; a job may have {allowed:,}" if size_bytes > allowed else None


def validated(tree: Tree) -> Job | list[Mistake]:
    """The job in a tree, or what is wrong with it."""
    try:
        return Job.model_validate(tree.plain())
    except ValidationError as exc:
        return mistakes(exc)


def mistakes_in(tree: Tree) -> list[Mistake]:
    """What is wrong with the job in a tree; nothing when all is well."""
    found = validated(tree)
    return [] if isinstance(found, Job) else found
