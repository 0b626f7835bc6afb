"""Values that remember their line: what the readers of YAML and JSON give, before a model looks at it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

MAX_DEPTH = 50
MAX_VALUES = 5_000_000  # in one file, aliases, defaults and templates spread out; about 100,000 jobs
MAX_NUMBER_CHARS = 100
MOTIONS = ({"zoom", "pan", "rotate", "focus", "ease"}, {"walk"}, {"feedback"})  # fields that tell one from another

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None

_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(Exception):
    """Raised when text is not the YAML or JSON that it should be; `line` is None when no line is to blame."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.message = message
        self.line = line
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Tree:
    """A value with its place. `field` is its path when it comes from a manifest's defaults or from a table, else None."""

    value: Scalar | dict[str, Tree] | tuple[Tree, ...]
    line: int
    """Of its key in a mapping, else of its start; from 1."""
    field: Path | None = None

    def child(self, step: str | int) -> Tree | None:
        """The item that one step of a path leads to."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, tuple) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None

    def plain(self) -> Any:
        """The bare value, with tuples for lists, as strict models want them."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, tuple):
            return tuple([item.plain() for item in self.value])
        return self.value

    def stamped(self, field: Path) -> Tree:
        """The same tree with a path written on every value."""
        if isinstance(self.value, dict):
            return Tree({key: item.stamped((*field, key)) for key, item in self.value.items()}, self.line, field)
        if isinstance(self.value, tuple):
            return Tree(tuple(item.stamped((*field, i)) for i, item in enumerate(self.value)), self.line, field)
        return replace(self, field=field)

    def without(self, *keys: str) -> Tree:
        """A mapping less some of its keys."""
        assert isinstance(self.value, dict)
        return replace(self, value={key: item for key, item in self.value.items() if key not in keys})

    def size(self) -> int:
        """How many values it holds, itself included."""
        if isinstance(self.value, dict):
            return 1 + sum([item.size() for item in self.value.values()])
        if isinstance(self.value, tuple):
            return 1 + sum([item.size() for item in self.value])
        return 1

    def locate(self, path: Path, prefix: Path = ()) -> tuple[int, Path]:
        """Line and full path of what `path` leads to; of a missing value, the line of what it is missing from."""
        node, field = self, prefix if self.field is None else self.field
        for index, step in enumerate(path):
            found = node.child(step)
            if found is None:
                return node.line, field + path[index:]
            node, field = found, (*field, step) if found.field is None else found.field
        return node.line, field


def overlay(own: Tree, under: Tree | None) -> Tree:
    """`own` with what it leaves out taken from `under`: mappings merge, all else replaces."""
    if under is None or not isinstance(own.value, dict) or not isinstance(under.value, dict):
        return own
    merged = dict(own.value)
    gone = _supplanted(own.value)
    for key, item in under.value.items():
        if key in own.value:
            merged[key] = overlay(own.value[key], item)
        elif key not in gone:
            merged[key] = item
    return replace(own, value=merged)


def _supplanted(own: dict[str, Tree]) -> set[str]:
    """Fields that cannot stand beside those given: a default must not contradict what a job says itself."""
    gone: set[str] = set()
    if "aspect" in own:
        gone |= {"width", "height"}
    if "width" in own or "height" in own:
        gone.add("aspect")
    if "type" in own and own["type"].value == "cut":
        gone.add("duration")
    for kind in MOTIONS:
        if not own.keys().isdisjoint(kind):
            gone |= {field for other in MOTIONS if other is not kind for field in other}
    return gone


def twice(key: str, first_line: int, line: int) -> Unreadable:
    """The error of a mapping that gives a field twice."""
    lines = f"in line {line}" if first_line == line else f"in lines {first_line} and {line}"
    return Unreadable(f"gives {key[:40]!r} twice, {lines}: keep one", line)


def check_text(text: str, line: int | None = None) -> None:
    """Raise Unreadable when text holds half a character, which no file and no queue can carry."""
    if not text.isascii() and _SURROGATE.search(text):
        raise Unreadable("holds half a character (a lone surrogate): write the character itself", line)
