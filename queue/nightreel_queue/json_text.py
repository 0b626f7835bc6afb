"""JSON with line numbers: RFC 8259, without duplicate keys."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .trees import MAX_DEPTH, MAX_NUMBER_CHARS, MAX_VALUES, Scalar, Tree, Unreadable, check_text, twice

_BLANKS = re.compile(r"[ \t\n\r]*")
_UNUSUAL = re.compile(rf"\\u|NaN|Infinity|[0-9.]{{{MAX_NUMBER_CHARS}}}")  # may be no number, or half a character
_LONG_NUMBER = re.compile(rf"-?[0-9.]{{{MAX_NUMBER_CHARS}}}")


def read_json(text: str, first_line: int = 1) -> Tree:
    """The tree of one JSON document. Raises Unreadable."""
    check_text(text)
    return _Reader(text, first_line).document()


def read_json_line(text: str, line: int) -> Tree:
    """The same for a document that stands in one line: quick where nothing is unusual. Raises Unreadable."""
    text = text.rstrip("\r\n")
    if not _UNUSUAL.search(text) and text.count("{") + text.count("[") < MAX_DEPTH:
        try:
            check_text(text)
            return _wrapped(json.loads(text, object_pairs_hook=lambda pairs: _mapping_of(pairs, line)), line)
        except (ValueError, RecursionError, Unreadable):
            pass  # the other reader finds the words for it
    return read_json(text, line)


def _mapping_of(pairs: list[tuple[str, Any]], line: int) -> Tree:
    items = {key: _wrapped(value, line) for key, value in pairs}
    if len(items) < len(pairs):
        raise ValueError("a field is given twice")
    return Tree(items, line)


def _wrapped(value: Any, line: int) -> Tree:
    if isinstance(value, Tree):
        return value
    if isinstance(value, list):
        return Tree(tuple([_wrapped(item, line) for item in value]), line)
    return Tree(value, line)


def _refuse_constant(name: str) -> NoReturn:
    raise Unreadable(f"holds {name}, which JSON does not know: use a number")


class _Reader:
    """A recursive descent; strings and numbers are left to the standard library's decoder, in C."""

    def __init__(self, text: str, first_line: int) -> None:
        self._text = text
        self._at = 0
        self._values = 0
        self._line_at, self._line_no = 0, first_line
        self._scalars = json.JSONDecoder(parse_constant=_refuse_constant)

    def document(self) -> Tree:
        self._skip_blanks()
        tree = self._value(self._line(), 0)
        if self._at < len(self._text):
            self._fail("goes on after the end of the document")
        return tree

    def _line(self) -> int:
        self._line_no += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line_no

    def _fail(self, message: str) -> NoReturn:
        raise Unreadable(message, self._line())

    def _skip_blanks(self) -> str:
        """Go to the next character that counts, and tell which it is ("" at the end)."""
        match = _BLANKS.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self, line: int, depth: int) -> Tree:
        self._values += 1
        if self._values > MAX_VALUES:
            self._fail(f"holds more than {MAX_VALUES:,} values: split it")
        opening = self._skip_blanks()
        if opening in ("{", "["):
            if depth == MAX_DEPTH:
                self._fail(f"is nested more than {MAX_DEPTH} deep")
            self._at += 1
            tree = Tree(self._mapping(depth + 1) if opening == "{" else self._list(depth + 1), line)
        else:
            tree = Tree(self._scalar(), line)
        self._skip_blanks()
        return tree

    def _scalar(self) -> Scalar:
        if _LONG_NUMBER.match(self._text, self._at):
            self._fail(f"holds a number of more than {MAX_NUMBER_CHARS} digits")
        try:
            value, self._at = self._scalars.raw_decode(self._text, self._at)
        except json.JSONDecodeError as exc:
            self._at = exc.pos
            self._fail(f"is not JSON: {exc.msg[:1].lower()}{exc.msg[1:]} ({self._column()})")
        except Unreadable as exc:
            self._fail(exc.message)
        if isinstance(value, str):
            check_text(value, self._line())
        scalar: Scalar = value
        return scalar

    def _column(self) -> str:
        return f"column {self._at - self._text.rfind(chr(10), 0, self._at)}"

    def _mapping(self, depth: int) -> dict[str, Tree]:
        items: dict[str, Tree] = {}
        if self._skip_blanks() == "}":
            self._at += 1
            return items
        while True:
            if self._skip_blanks() != '"':
                self._fail(f"is not JSON: a name in double quotes belongs here ({self._column()})")
            line = self._line()
            key = str(self._scalar())
            if key in items:
                raise twice(key, items[key].line, line)
            self._expect(":")
            items[key] = self._value(line, depth)
            if self._expect(",}") == "}":
                return items

    def _list(self, depth: int) -> tuple[Tree, ...]:
        items: list[Tree] = []
        if self._skip_blanks() == "]":
            self._at += 1
            return ()
        while True:
            self._skip_blanks()
            items.append(self._value(self._line(), depth))
            if self._expect(",]") == "]":
                return tuple(items)

    def _expect(self, marks: str) -> str:
        found = self._skip_blanks()
        if not found or found not in marks:
            self._fail(f"is not JSON: {' or '.join(marks)} belongs here ({self._column()})")
        self._at += 1
        return found
