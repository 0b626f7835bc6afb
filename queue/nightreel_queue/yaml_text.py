"""YAML with line numbers, read as YAML 1.2 reads plain words: 9:16, no and 2026-01-31 are text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from .trees import MAX_DEPTH, MAX_NUMBER_CHARS, MAX_VALUES, Scalar, Tree, Unreadable, check_text, twice

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "<<"
_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF_OR_NAN = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_yaml(text: str) -> Tree | None:
    """The tree of one YAML document; None when it holds nothing. Raises Unreadable."""
    check_text(text)
    try:
        return _Builder(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise Unreadable(_words(exc), mark.line + 1 if mark else None) from exc
    except yaml.reader.ReaderError as exc:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else None
        raise Unreadable("holds a control character, which YAML does not allow", line) from exc
    except yaml.YAMLError as exc:
        raise Unreadable(f"is not YAML: {exc}") from exc


def _words(exc: yaml.MarkedYAMLError) -> str:
    if exc.problem and "cannot start any token" in exc.problem:
        return "is not YAML: a tab or a reserved character starts a word here; indent with spaces, or use quotes"
    return "is not YAML: " + ", ".join(part for part in (exc.problem, exc.context) if part)


class _Builder:
    """Turns events into a tree. An alias shares its anchor's tree, so that a bomb is counted, never unfolded."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._values = 0
        self._anchors: dict[str, tuple[Tree, int, int]] = {}  # tree, values in it, levels in it
        self._deepest = 0

    def document(self) -> Tree | None:
        tree = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if tree is not None:
                    raise Unreadable("starts a second document (---): use one file for each", _line(event))
                tree = self._node(next(self._events), 0)
        return None if tree is not None and tree.value is None else tree

    def _node(self, event: Any, depth: int) -> Tree:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._count(1, event)
        before, self._deepest = self._deepest, depth
        values = self._values
        tree = Tree(self._content(event, depth), _line(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = (tree, self._values - values + 1, self._deepest - depth)
        self._deepest = max(before, self._deepest)
        return tree

    def _content(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        _check_tag(event, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
        self._check_depth(depth + 1, event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth + 1)
        return tuple(self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent))

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _alias(self, event: Any, depth: int) -> Tree:
        if event.anchor not in self._anchors:
            raise Unreadable(f"*{event.anchor} has no &{event.anchor} before it", _line(event))
        tree, values, levels = self._anchors[event.anchor]
        self._count(values, event)
        self._check_depth(depth + levels, event)
        return replace(tree, line=_line(event))

    def _mapping(self, depth: int) -> dict[str, Tree]:
        items: dict[str, Tree] = {}
        merged: Tree | None = None
        for event in self._until(yaml.MappingEndEvent):
            key, line = self._key(event), _line(event)
            value = replace(self._node(next(self._events), depth), line=line)
            merging = key == _MERGE and isinstance(event, yaml.ScalarEvent) and not event.style
            first = merged if merging else items.get(key)
            if first is not None:
                raise twice(key, first.line, line)
            if merging:
                merged = value
            else:
                items[key] = value
        for source in _merge_sources(merged):
            items = {**source, **items}
        return items

    def _key(self, event: Any) -> str:
        self._count(1, event)
        if isinstance(event, yaml.AliasEvent) and isinstance(key := self._alias(event, 0).value, str):
            return key
        if not isinstance(event, yaml.ScalarEvent):
            raise Unreadable("uses a list, a mapping or an alias as a field's name", _line(event))
        check_text(event.value, _line(event))
        _check_tag(event, "str")
        if event.anchor is not None:
            self._anchors[event.anchor] = (Tree(str(event.value), _line(event)), 1, 0)
        return str(event.value)

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise Unreadable(f"comes to more than {MAX_VALUES:,} values, aliases unfolded: split it", _line(event))

    def _check_depth(self, depth: int, event: Any) -> None:
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise Unreadable(f"is nested more than {MAX_DEPTH} deep", _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _merge_sources(merged: Tree | None) -> list[dict[str, Tree]]:
    """What `<<` brings in, the strongest first."""
    if merged is None:
        return []
    sources = merged.value if isinstance(merged.value, tuple) else (merged,)
    mappings = [source.value for source in sources if isinstance(source.value, dict)]
    if len(mappings) < len(sources):
        raise Unreadable("<< merges mappings only", merged.line)
    return mappings


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
        raise Unreadable(f"the tag {event.tag[:40]!r} means nothing here: leave it out", _line(event))


def _scalar(event: Any) -> Scalar:
    text = event.value
    check_text(text, _line(event))
    _check_tag(event, "str")
    if event.tag is not None or event.style:  # the C parser calls the plain style "", the Python one None
        return str(text)
    return _plain(text, event)


def _plain(text: str, event: Any) -> Scalar:
    """The core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        return _number(text, event)
    if match := _INF_OR_NAN.fullmatch(text):
        return float("nan") if match[3] else float(match[1] + "inf")
    return text


def _number(text: str, event: Any) -> int | float:
    if len(text) > MAX_NUMBER_CHARS:
        raise Unreadable(f"holds a number of more than {MAX_NUMBER_CHARS} digits", _line(event))
    if text[:2] in ("0o", "0x"):
        return int(text, 0)
    return int(text) if _INT.fullmatch(text) else float(text)
