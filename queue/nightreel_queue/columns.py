"""The columns of a table of shots: a job's and a shot's fields by their dotted names, as the schema has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from .job import Job
from .problems import forms_at, unknown_field
from .trees import MAX_NUMBER_CHARS, Path

JOB = "job"  # the column that joins rows to one video
NOT_COLUMNS = {"version", "batch", "shots"}

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WITH_COMMA = re.compile(r"([-+]?[0-9]*),([0-9]+)")
_SHOT: Path = ("shots", 0)


@dataclass(frozen=True, slots=True)
class Column:
    """A field that a cell may give."""

    path: Path
    """Within the job, or within the shot."""
    of_shot: bool
    field: Path
    """How the header and problems call it."""

    @property
    def name(self) -> str:
        return ".".join(map(str, self.field))

    @property
    def full_path(self) -> Path:
        """Within a job, as its schema knows it."""
        return _SHOT + self.path if self.of_shot else self.path


def header_name(text: str) -> str:
    """A column's name as written in a header, in small letters, without blanks around it and with _ for those within."""
    return re.sub(r"[\s-]+", "_", text.strip().casefold())


def column(name: str) -> Column | None:
    """The column of that name."""
    if name.startswith("labels.") and len(name) > len("labels."):
        path = ("labels", name.removeprefix("labels."))
        return Column(path, False, path)
    return known_columns().get(name)


@cache
def known_columns() -> dict[str, Column]:
    """All columns with a name of their own. What jobs and shots both have is the job's; the shot's begins with `shot.`."""
    both = {str(path[0]) for path in _leaves(())} & {str(path[0]) for path in _leaves(_SHOT)}
    of_job = [Column(path, False, path) for path in _leaves(()) if path[0] not in NOT_COLUMNS]
    of_shot = [Column(path, True, ("shot", *path) if path[0] in both else path) for path in _leaves(_SHOT)]
    return {JOB: Column(("id",), False, (JOB,))} | {each.name: each for each in of_job + of_shot}


def unknown_column(name: str) -> str:
    """What to say of a column that there is none of."""
    last = [each for each in known_columns() if each.rpartition(".")[2] == name]
    if last:
        return f"unknown column {name!r}; did you mean {last[0]!r}?"
    return unknown_field(name, [*known_columns(), "labels.NAME"], "column")


def is_pair(path: Path) -> bool:
    """Does the field at `path` of a job take two numbers?"""
    return _kind(path) == "pair"


def value_of(path: Path, text: str, decimal_comma: bool) -> str | int | float | list[int | float]:
    """A cell's text as the field at `path` of a job wants it; left as it is where it is no number.

    Two numbers have a blank between.
    """
    kind = _kind(path)
    if kind == "text":
        return text
    if kind == "pair":
        numbers = [_number(part, True, decimal_comma) for part in text.split()]
        return text if None in numbers else [number for number in numbers if number is not None]
    number = _number(text, kind == "integer", decimal_comma)
    return text if number is None else number


@lru_cache(maxsize=10_000)
def _kind(path: Path) -> Literal["text", "pair", "integer", "number"]:
    forms = forms_at(path)
    kinds = {form.get("type") for form in forms}
    if "string" in kinds:
        return "text"
    if any("prefixItems" in form for form in forms):
        return "pair"
    if "integer" in kinds:
        return "integer"
    return "number" if "number" in kinds else "text"


def _number(text: str, whole: bool, decimal_comma: bool) -> int | float | None:
    """`whole`: 24.0 counts as 24, as programs write whole columns that have empty cells."""
    if decimal_comma:
        text = _WITH_COMMA.sub(r"\1.\2", text)
    if len(text) > MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
        return None
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    number = float(text)
    return int(number) if whole and number.is_integer() else number


def _leaves(at: Path) -> Iterator[Path]:
    """Paths below `at` to fields that one cell can give."""
    for name in Job.model_fields if not at else [name for form in forms_at(at) for name in form.get("properties", {})]:
        yield from _below((*at, name), (name,))


def _below(at: Path, path: Path) -> Iterator[Path]:
    forms = forms_at(at)
    if any(form.get("type") not in ("object", "array") or "prefixItems" in form for form in forms):
        yield path
    for form in forms:
        for name in form.get("properties", {}):
            yield from _below((*at, name), (*path, name))
