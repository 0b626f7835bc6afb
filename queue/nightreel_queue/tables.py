"""Tables as manifests: one row a shot, rows of one job below each other; and lists of prompts, one a line."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from .columns import JOB, Column, column, header_name, is_pair, unknown_column, value_of
from .forms import Form, Notes, Row
from .names import FINGERPRINT_CHARS, name_from
from .problems import found_words
from .table_text import Cell, Record, read_table
from .trees import Path, Tree


def read_prompts(text: str, notes: Notes) -> Form:
    """A list of prompts: one a line, each a video called after its words. Lines that begin with # are remarks."""
    lines = ((number, line.strip()) for number, line in enumerate(io.StringIO(text, newline=None), 1))
    return Form("", None, (_prompt_row(line, number, notes) for number, line in lines if line and line[0] != "#"))


def _prompt_row(prompt: str, line: int, notes: Notes) -> Row:
    """The id has a hash of the prompt at its end, so that it stays the same whatever the other lines say."""
    if "\t" in prompt:
        notes.add(line, (), "holds a tab, as a table's rows do: call a table .tsv, or write a blank instead")
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:FINGERPRINT_CHARS]
    name = Tree(f"{name_from(prompt, 'video')}-{digest}", line, ())
    shot = Tree({"prompt": Tree(prompt, line, ())}, line, ())
    return Row(Tree({"id": name, "shots": Tree((shot,), line, ())}, line, ()))


def read_rows(text: str, notes: Notes, separator: str | None = None) -> Form:
    """A table with a header: each row is a shot; rows with one `job` are one video.

    Raises InvalidJob for a header that is wrong, and while rows are read for quotes that are.
    """
    table = read_table(text, notes.name, separator)
    header = next(table.records, None)
    if header is None:
        return Form("", None, ())
    return Form("", None, _Reader(_columns(header, notes), table.decimal_comma, notes).rows(table.records))


def names_of(header: Record, notes: Notes) -> list[str]:
    """The columns' names, "" for one that has none; one that is there twice is noted."""
    names: list[str] = []
    for cell in header.cells:
        name = header_name(cell.text) if cell else ""
        if cell and name in names:
            notes.add(cell.line, (), f"has two columns {name!r}: leave one out")
        names.append(name)
    return names


def check_names(record: Record, names: list[str], notes: Notes) -> None:
    """Note a cell that stands under no name."""
    for index, cell in enumerate(record.cells):
        if cell and (index >= len(names) or not names[index]):
            words = f"column {index + 1} {found_words(cell.text)}, and has no name in the first row"
            notes.add(cell.line, (), f"{words}: give it one, or put text that holds a separator in quotes")
            return


def _columns(header: Record, notes: Notes) -> list[Column | None]:
    names = names_of(header, notes)
    found = [column(name) for name in names]
    for name, each, cell in zip(names, found, header.cells, strict=True):
        if cell and each is None:
            notes.add(cell.line, (), unknown_column(name))
    if JOB in names and "id" in names:
        notes.add(header.line, (), "has columns job and id: keep job, which joins rows to one video, or id, one a row")
    notes.check()  # a wrong header would make every row wrong
    return found


@dataclass(slots=True)
class _Group:
    """The rows of one video."""

    key: str | None
    line: int
    own: dict[Path, Tree] = field(default_factory=dict)
    """The job's own fields, from its first row."""
    shots: list[Tree] = field(default_factory=list)


@dataclass(slots=True)
class _Reader:
    columns: list[Column | None]
    decimal_comma: bool
    notes: Notes
    lines: dict[str, int] = field(default_factory=dict)
    """Where each job began."""

    def rows(self, records: Iterator[Record]) -> Iterator[Row]:
        """A job at a time."""
        names = [each.name if each else "" for each in self.columns]
        joins = names.index(JOB) if JOB in names else None
        group: _Group | None = None
        for record in records:
            check_names(record, names, self.notes)
            key = None if joins is None else self._key(record, joins, group)
            if group is None or key is None or key != group.key:
                if group is not None:
                    yield self._row(group)
                group = _Group(key, record.line)
            self._add(record, group)
        if group is not None:
            yield self._row(group)

    def _key(self, record: Record, joins: int, group: _Group | None) -> str | None:
        cell = record.cells[joins] if joins < len(record.cells) else None
        if cell is None:
            self.notes.add(record.line, (JOB,), "is empty: write the name of the video that this shot belongs to")
            return None
        began = self.lines.setdefault(cell.text, record.line)
        if began != record.line and (group is None or group.key != cell.text):
            self.notes.add(cell.line, (JOB,), f"{cell.text!r} began in line {began}: put its rows below each other")
            return None
        return cell.text

    def _add(self, record: Record, group: _Group) -> None:
        shot: dict[Path, Tree] = {}
        for each, cell in zip(self.columns, record.cells, strict=False):
            if each is None or cell is None or (each.field == (JOB,) and group.key is None):
                continue
            leaf = self._leaf(each, cell)
            if leaf is None:
                continue
            if each.of_shot:
                shot[each.path] = leaf
            elif group.shots:
                self._compare(each, cell, leaf, group)
            else:
                group.own[each.path] = leaf
        group.shots.append(self._nested(shot, record.line))

    def _leaf(self, each: Column, cell: Cell) -> Tree | None:
        value = value_of(each.full_path, cell.text, self.decimal_comma)
        if isinstance(value, list):
            return Tree(tuple([Tree(number, cell.line) for number in value]), cell.line, each.field)
        if is_pair(each.full_path):
            self.notes.add(
                cell.line, each.field, f"{found_words(value)}; must be two numbers with a blank between: 1 1.2"
            )
            return None
        return Tree(value, cell.line, each.field)

    def _compare(self, each: Column, cell: Cell, leaf: Tree, group: _Group) -> None:
        """A job's own field stands in its first row, or is the same in all."""
        first = group.own.get(each.path)
        if first is None:
            words = f"stands here, and not in line {group.line}, where its video begins: write it there"
            self.notes.add(cell.line, each.field, words)
        elif first.plain() != leaf.plain():
            words = f"{found_words(leaf.plain())}, and {first.plain()!r} in line {first.line}: a video has one"
            self.notes.add(cell.line, each.field, f"{words}; leave it out here")

    def _row(self, group: _Group) -> Row:
        job = self._nested(group.own, group.line)
        assert isinstance(job.value, dict)
        job.value["shots"] = Tree(tuple(group.shots), group.line, ())
        return Row(job)

    def _nested(self, leaves: dict[Path, Tree], line: int) -> Tree:
        """Leaves by their paths as one mapping; what stands in another one's way is noted."""
        whole: dict[str, Tree] = {}
        for path, leaf in leaves.items():
            assert leaf.field is not None
            inner, above = whole, leaf.field[: len(leaf.field) - len(path)]
            for depth, step in enumerate(path[:-1], 1):
                node = inner.setdefault(str(step), Tree({}, leaf.line, above + path[:depth]))
                if not isinstance(node.value, dict):
                    self._clash(leaf, node)
                    break
                inner = node.value
            else:
                if (other := inner.setdefault(str(path[-1]), leaf)) is not leaf:
                    self._clash(leaf, other)
        return Tree(whole, line, ())

    def _clash(self, leaf: Tree, other: Tree) -> None:
        names = [".".join(map(str, each.field or ())) for each in (leaf, other)]
        shorter, longer = sorted(names, key=len)
        self.notes.add(leaf.line, leaf.field or (), f"{shorter} and {longer} do not go together: empty one of the two")
