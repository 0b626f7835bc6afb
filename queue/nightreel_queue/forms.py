"""The forms a manifest may have, taken apart: its top, its defaults, and one row for each job."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .errors import InvalidJob, Problem
from .job import Job
from .json_text import read_json_line
from .problems import field_name, found_words, mistakes_in, unknown_field
from .trees import Path, Tree, Unreadable

TOP = ("version", "batch", "defaults")  # beside the jobs
MAX_TOLD = 1000  # problems of one file; more would help nobody


@dataclass(frozen=True, slots=True)
class Row:
    """A job as written, and its path in the file."""

    tree: Tree
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A manifest taken apart. `batch` is "" when the file names none."""

    batch: str
    defaults: Tree | None
    rows: Iterable[Row]
    """May be read once; reading it notes more problems."""
    vars: Tree | None = None
    """The rows that fill the jobs' placeholders, or the name of the file that has them."""


@dataclass(slots=True)
class Notes:
    """The problems found so far, each once, and where."""

    name: str
    _found: dict[tuple[int, Path, str], Problem] = field(default_factory=dict)

    def add(self, line: int, path: Path, message: str, aside: str = "") -> None:
        """Note a problem. `aside` does not make it another one."""
        noted = Problem(message + aside, field_name(path), f"{self.name}:{line}")
        self._found.setdefault((line, path, message), noted)

    def add_at(self, tree: Tree, path: Path, message: str, prefix: Path = ()) -> None:
        """Note a problem with what `path` leads to in a tree whose own path is `prefix`."""
        line, full = tree.locate(path, prefix)
        self.add(line, full, message)

    def check(self) -> None:
        """Raise InvalidJob with all problems in the order of their lines, if there are any."""
        if self._found:
            told = [self._found[key] for key in sorted(self._found, key=lambda key: key[0])]
            more = len(told) - MAX_TOLD
            rest = [Problem(f"has {more:,} more problems: mend these first", place=self.name)] if more > 0 else []
            raise InvalidJob([*told[:MAX_TOLD], *rest])


def read_document(text: str, name: str, read: Callable[[str], Tree | None], notes: Notes) -> Form:
    """A YAML or JSON document: many jobs under `jobs`, or one job. Raises InvalidJob when it is neither."""
    try:
        tree = read(text)
    except Unreadable as exc:
        raise refusal(exc.message, name, exc.line) from exc
    if tree is None:
        raise refusal("holds nothing: write jobs, or the shots of one video", name)
    if not isinstance(tree.value, dict):
        raise refusal(f"{found_words(tree.plain())}; must be a mapping with jobs, or with shots", name, tree.line)
    if "jobs" in tree.value:
        return _many(tree, notes)
    if "shots" in tree.value:
        return _one(tree, notes)
    raise _neither(tree, name)


def _many(tree: Tree, notes: Notes) -> Form:
    batch = _check_top(tree, [*TOP, "vars", "jobs"], notes)
    jobs = tree.child("jobs")
    if jobs is None or not isinstance(jobs.value, tuple) or not jobs.value:
        words = found_words(jobs.plain()) if jobs and jobs.value != () else "is empty"
        notes.add_at(tree, ("jobs",), f"{words}; must be a list of at least one job")
        return Form(batch, tree.child("defaults"), ())
    rows = tuple(Row(job, ("jobs", index)) for index, job in enumerate(jobs.value))
    return Form(batch, tree.child("defaults"), rows, tree.child("vars"))


def _one(tree: Tree, notes: Notes) -> Form:
    """The batch and the vars of a file that is one job stand beside the job's own fields."""
    batch = _check_top(tree, None, notes)
    return Form(batch, None, (Row(tree.without("batch", "vars")),), tree.child("vars"))


def _neither(tree: Tree, name: str) -> InvalidJob:
    assert isinstance(tree.value, dict)
    known = [*TOP, "vars", "jobs", *Job.model_fields]
    unknown = [(key, item.line) for key, item in tree.value.items() if key not in known]
    found = [Problem(unknown_field(key, known), field_name((key,)), f"{name}:{line}") for key, line in unknown]
    return InvalidJob(found) if found else refusal("has neither jobs nor shots", name, tree.line)


def read_lines(text: str, notes: Notes) -> Form:
    """JSON lines: one job a line. The first may hold the manifest's own fields instead."""
    trees = (tree for tree in _lines(text, notes) if tree is not None)
    head = next(trees, None)
    if head is None:
        return Form("", None, ())
    if _is_head(head):
        return Form(_check_top(head, list(TOP), notes), head.child("defaults"), _line_rows(trees, notes))
    return Form("", None, _line_rows(itertools.chain([head], trees), notes))


def _line_rows(trees: Iterable[Tree], notes: Notes) -> Iterator[Row]:
    for tree in trees:
        if tree.child("defaults"):
            notes.add_at(tree, ("defaults",), "belongs on the first line, and alone there")
        yield Row(tree.without("defaults") if tree.child("defaults") else tree)


def _lines(text: str, notes: Notes) -> Iterator[Tree | None]:
    lines = enumerate(io.StringIO(text, newline="\n"), 1)  # at newlines only: a prompt may hold other line ends
    return (_line(line, number, notes) for number, line in lines if line.strip(" \t\r\n"))


def _line(text: str, number: int, notes: Notes) -> Tree | None:
    try:
        return read_json_line(text, number)
    except Unreadable as exc:
        notes.add(number, (), exc.message)
        return None


def _is_head(tree: Tree) -> bool:
    return isinstance(tree.value, dict) and (
        "defaults" in tree.value or (0 < len(tree.value) <= len(TOP) and all(key in TOP for key in tree.value))
    )


def _check_top(tree: Tree, known: list[str] | None, notes: Notes) -> str:
    """Note what is wrong with the fields beside the jobs (with unknown ones too, unless `known` is None).

    Returns the batch, "" when there is none.
    """
    assert isinstance(tree.value, dict)
    for key in tree.value:
        if known is not None and key not in known:
            notes.add_at(tree, (key,), unknown_field(key, known))
    top = {key: item for key, item in tree.value.items() if key in ("version", "batch")}
    sound = {"shots": Tree((Tree({"prompt": Tree("any", 0)}, 0),), 0)}
    for mistake in mistakes_in(Tree(top | sound, tree.line)):
        notes.add_at(tree, mistake.path, mistake.message)
    batch = tree.child("batch")
    return batch.value if batch and isinstance(batch.value, str) else ""


def refusal(message: str, name: str, line: int | None = None) -> InvalidJob:
    """The error of a file that cannot be read as a manifest at all."""
    return InvalidJob([Problem(message, place=f"{name}:{line}" if line else name)])
