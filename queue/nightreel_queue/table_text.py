"""Tables as spreadsheets export them: which encoding, which separator, and which line of the file a cell stands in."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidJob, Problem

SEPARATORS = (",", ";", "\t")

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LINE_END = re.compile(r"\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?(?=\r|\n)')  # Excel's own first line
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell that is not empty, without the blanks around it."""

    text: str
    line: int
    """Of the file, from 1: also behind cells of several lines."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table."""

    line: int
    cells: tuple[Cell | None, ...]
    """None for an empty cell."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a table, less the empty ones. Reading them raises InvalidJob where the quotes are wrong."""

    records: Iterator[Record]
    decimal_comma: bool
    """Columns are separated by semicolons, as where people write 0,5 for a half."""


def decode(data: bytes, name: str) -> tuple[str, str]:
    """The text of a file, and what its user should know of that ("" for nothing). Raises InvalidJob.

    A byte order mark decides; without one it is UTF-8, or what is no UTF-8 is Windows-1252.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding, name), ""
    if b"\0" in data:
        raise InvalidJob([Problem("is no text: save it as CSV or text in UTF-8", place=name)])
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return _decoded(
            data, "windows-1252", name
        ), "is not UTF-8; read as Windows-1252: look whether accents are right"


def _decoded(data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        words = (
            "neither UTF-8 nor Windows-1252" if encoding == "windows-1252" else f"not the {encoding.upper()} it says"
        )
        raise InvalidJob([Problem(f"is {words}: save the file as UTF-8", place=f"{name}:{line}")]) from exc


def read_table(text: str, name: str, separator: str | None = None) -> Table:
    """The table in a text. Without `separator` the first line tells which of comma, semicolon and tab it is."""
    announced = None if separator else _SEPARATOR_LINE.match(text)
    chosen = separator or (announced[1] if announced else _most_used(text))
    records = _records(text, name, chosen)
    if announced:
        next(records)
    return Table(records, chosen == ";")


def _most_used(text: str) -> str:
    first = next((line for line in _lines(text) if line.strip()), "")
    bare = _QUOTED.sub("", first)
    return max(SEPARATORS, key=bare.count)


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline=""))


def _records(text: str, name: str, separator: str) -> Iterator[Record]:
    reader = csv.reader(_lines(text), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            raise InvalidJob([Problem(_quote_words(str(exc)), place=f"{name}:{line}")]) from exc
        if cells is None:
            return
        record = Record(line, tuple(_cells(cells, line, reader.line_num > line)))
        if any(record.cells):
            yield record


def _cells(texts: list[str], line: int, tall: bool) -> Iterator[Cell | None]:
    for text in texts:
        stripped = text.strip()
        yield Cell(stripped, line) if stripped else None
        if tall:
            line += len(_LINE_END.findall(text))


def _quote_words(said: str) -> str:
    if "expected after" in said:
        return "has a quote within a quoted cell: write it twice"
    return "has a quoted cell that does not end: close it, and write a quote within a cell twice"
