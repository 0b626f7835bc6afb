"""Templates: jobs with {placeholders}, and the table of `vars` whose rows fill them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from .columns import header_name, value_of
from .forms import Notes
from .names import name_from
from .problems import found_words, unknown_field
from .table_text import Record, Table
from .tables import check_names, names_of
from .trees import Path, Scalar, Tree

_PARTS = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Vars:
    """One row of `vars`."""

    where: str
    """In words: row 3 of vars, line 12."""
    values: dict[str, Scalar]
    """None for an empty cell."""
    decimal_comma: bool = False


@dataclass(frozen=True, slots=True)
class VarsTable:
    """The rows that fill the templates of one manifest."""

    names: tuple[str, ...]
    rows: tuple[Vars, ...]
    place: str
    """The file and line that it comes from."""


class Unfilled(Exception):
    """Raised when a row has nothing for a placeholder, or the braces are wrong; `path` is where in the template."""

    path: Path = ()


def vars_in(tree: Tree, notes: Notes) -> VarsTable:
    """The table of a list of mappings. What is wrong with it is noted."""
    rows = tree.value if isinstance(tree.value, tuple) else ()
    if not rows:
        found = "is empty" if tree.value == () else found_words(tree.plain())
        notes.add(tree.line, ("vars",), f"{found}; must be a list of rows, or name a CSV file")
    names: dict[str, None] = {}
    filling = []
    for number, row in enumerate(rows, 1):
        if isinstance(row.value, dict):
            values = _values(row, number - 1, notes)
            names |= dict.fromkeys(values)
            filling.append(Vars(f"row {number} of vars, line {row.line}", values))
        else:
            notes.add(
                row.line, ("vars", number - 1), f"{found_words(row.plain())}; must be a mapping of names to values"
            )
    return VarsTable(tuple(names), tuple(filling), f"{notes.name}:{tree.line}")


def _values(row: Tree, index: int, notes: Notes) -> dict[str, Scalar]:
    assert isinstance(row.value, dict)
    values: dict[str, Scalar] = {}
    for key, item in row.value.items():
        name = header_name(key)
        if isinstance(item.value, dict | tuple):
            notes.add(item.line, ("vars", index, key), f"{found_words(item.plain())}; must be text or a number")
        elif name in values:
            notes.add(item.line, ("vars", index, key), f"is there twice as {name!r}: leave one out")
        else:
            values[name] = None if item.value == "" else item.value
    return values


def vars_from(table: Table, name: str) -> VarsTable:
    """The table of a CSV file. Raises InvalidJob with every problem of it."""
    notes = Notes(name)
    header = next(table.records, None)
    names = names_of(header, notes) if header else []
    rows = [_row(record, names, number, table, notes) for number, record in enumerate(table.records, 1)]
    if not rows:
        notes.add(1, (), "has no rows below its first one: write the names of the columns, then a row for each video")
    notes.check()
    return VarsTable(tuple(filter(None, names)), tuple(rows), f"{name}:{header.line if header else 1}")


def _row(record: Record, names: list[str], number: int, table: Table, notes: Notes) -> Vars:
    check_names(record, names, notes)
    cells = dict(zip(names, record.cells, strict=False))
    values: dict[str, Scalar] = {name: cell.text if (cell := cells.get(name)) else None for name in names}
    return Vars(f"row {number} of {notes.name}, line {record.line}", values, table.decimal_comma)


def used_in(tree: Tree, prefix: Path, table: VarsTable, notes: Notes) -> set[str] | None:
    """The columns that a template uses. None when it cannot be filled by any row, with the reason noted:

    placeholders without a column, braces without their other half, an id that would be the same for all rows.
    """
    used: set[str] = set()
    wrong = _has_one_id(tree, prefix, table, notes)
    for path, leaf in _texts(tree, ()):
        line, full = tree.locate(path, prefix)
        try:
            names = {name for name, _ in _parts(str(leaf.value)) if name is not None}
        except Unfilled as exc:
            notes.add(line, full, str(exc))
            wrong = True
            continue
        for name in sorted(names - set(table.names)):
            notes.add(line, full, unknown_field(name, list(table.names), "column"))
            wrong = True
        used |= names
    return None if wrong else used


def _has_one_id(tree: Tree, prefix: Path, table: VarsTable, notes: Notes) -> bool:
    name = tree.child("id")
    if name is None or not isinstance(name.value, str) or len(table.rows) == 1 or "{" in name.value:
        return False
    words = f"names all {len(table.rows)} videos {name.value!r}"
    example = "{" + table.names[0] + "}" if table.names else "{name}"
    notes.add_at(tree, ("id",), f"{words}: put a placeholder into it, such as {name.value}-{example}", prefix)
    return True


def _texts(tree: Tree, path: Path) -> Iterator[tuple[Path, Tree]]:
    if isinstance(tree.value, dict):
        for key, item in tree.value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(tree.value, tuple):
        for index, item in enumerate(tree.value):
            yield from _texts(item, (*path, index))
    elif isinstance(tree.value, str):
        yield path, tree


def filled(tree: Tree, row: Vars, path: Path = ()) -> Tree:
    """A template with a row's values in its placeholders. Raises Unfilled."""
    match tree.value:
        case dict():
            return Tree(
                {key: filled(item, row, (*path, key)) for key, item in tree.value.items()}, tree.line, tree.field
            )
        case tuple():
            items = [filled(item, row, (*path, index)) for index, item in enumerate(tree.value)]
            return Tree(tuple(items), tree.line, tree.field)
        case str(text) if "{" in text or "}" in text:
            return _filled_text(tree, text, row, path)
    return tree


def _filled_text(tree: Tree, text: str, row: Vars, path: Path) -> Tree:
    try:
        return _written(tree, text, row, path)
    except Unfilled as exc:
        exc.path = path
        raise


def _written(tree: Tree, text: str, row: Vars, path: Path) -> Tree:
    """A placeholder that is all of a number's field gives the number; in an id, cells become names."""
    parts = _parts(text)
    if len(parts) == 1 and parts[0][0] is not None:
        value = value_of(path, _words(_cell(parts[0][0], row)), row.decimal_comma)
        if isinstance(value, list):
            return Tree(tuple(Tree(number, tree.line) for number in value), tree.line, tree.field)
        if not isinstance(value, str):
            return Tree(value, tree.line, tree.field)
    words = [plain if name is None else _words(_cell(name, row)) for name, plain in parts]
    if path == ("id",):
        words = [word if name is None else name_from(word, "") for (name, _), word in zip(parts, words, strict=True)]
    return Tree("".join(words), tree.line, tree.field)


def _cell(name: str, row: Vars) -> Scalar:
    value = row.values.get(name)
    if value is None:
        raise Unfilled(f"{row.where}, has no {name!r}, which is wanted here: fill it in")
    return value


def _words(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(maxsize=10_000)
def _parts(text: str) -> tuple[tuple[str | None, str], ...]:
    """A text taken apart: (name, "") for a placeholder, (None, words) for what lies between. Raises Unfilled."""
    parts: list[tuple[str | None, str]] = []
    for part in _PARTS.findall(text):
        if part in ("{", "}"):
            raise Unfilled(f"has a {part} without its other half: write {part * 2} for a brace")
        if part in ("{{", "}}"):
            parts.append((None, part[0]))
        elif part.startswith("{"):
            parts.append((header_name(part[1:-1]), ""))
        else:
            parts.append((None, part))
    return tuple(parts)
