"""Manifests: files of many jobs, in YAML, JSON, JSON lines, tables (CSV, TSV) or plain lists of prompts (TXT).

A manifest is taken whole or not at all. Every problem of every job is told at once, each with its file and line; what
comes from the defaults is told at the defaults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .errors import InvalidJob, Problem
from .forms import Form, Notes, read_document, read_lines, refusal
from .gather import gather
from .job import Job
from .json_text import read_json
from .local_files import LocalFiles
from .names import FINGERPRINT_CHARS, name_from
from .problems import found_words, validated
from .table_text import decode, read_table
from .tables import read_prompts, read_rows
from .templates import VarsTable, vars_from, vars_in
from .trees import Tree
from .yaml_text import read_yaml

MAX_FILE_BYTES = 256 * 10**6

Kind = Literal["yaml", "json", "jsonl", "csv", "tsv", "txt"]
KINDS: dict[str, Kind] = {
    ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt",
}  # fmt: skip
SEPARATORS: dict[str, str | None] = {".csv": None, ".tsv": "\t"}  # None: its first line tells
FROM_SPREADSHEETS = ("csv", "tsv", "txt")  # these may come in any encoding; the others are UTF-8 by their standards


@dataclass(frozen=True, slots=True)
class Manifest:
    """The jobs of one file, each once."""

    name: str
    """The file's name, as problems tell it."""
    batch: str
    """As the file gives it; "" until `resolved` makes one."""
    jobs: tuple[Job, ...]
    repeated: int = 0
    """Jobs left out because the same one came before."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Local files that the jobs name by content, by address: they must be in the store before the jobs are published."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of the jobs, by id, once they are `resolved`."""
    remarks: tuple[str, ...] = ()
    """What is no mistake, and yet worth a look; each begins with the file's name."""

    def resolved(self, model: str, steps: Mapping[str, int] | None = None) -> Manifest:
        """This manifest with model, steps, batch and id written into every job, as a queue carries them.

        `steps`: as `Job.resolved` takes them.

        A batch that the file does not name is called after the file and the jobs' contents: the same jobs make the
        same batch, in whatever order. Raises InvalidJob when jobs that differ come to the same id.
        """
        known: dict[str, Job] = {}
        for job in self.jobs:
            full = job.resolved(model=model, batch="", steps=steps)
            first = known.setdefault(str(full.id), full)
            if first is not full and first != full:
                raise refusal(f"holds different jobs that come to the id {full.id!r}: give each its own", self.name)
        fingerprints = {name: job.fingerprint for name, job in known.items()}
        batch = self.batch or f"{name_from(Path(self.name).stem)}-{_fingerprint(fingerprints)}"
        jobs = tuple(job.model_copy(update={"batch": batch}) for job in known.values())
        repeated = self.repeated + len(self.jobs) - len(jobs)
        return replace(self, batch=batch, jobs=jobs, repeated=repeated, fingerprints=fingerprints)


def _fingerprint(jobs: Mapping[str, str]) -> str:
    lines = sorted(f"{name} {fingerprint}\n" for name, fingerprint in jobs.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:FINGERPRINT_CHARS]


def load_manifest(file_name: Path | str, *, local_files: bool = False) -> Manifest:
    """The manifest in a file; its suffix tells the form. Raises InvalidJob.

    `local_files`: it may name files of this machine, by paths that begin at its own folder. Only for manifests of
    this machine's user: any file that can be read could be named.
    """
    path = Path(file_name)
    if path.is_dir():
        raise refusal("is a folder: name a file", path.name or str(path))
    _kind(path.name)  # before anything is read
    return _manifest(_content(path), path.name, LocalFiles(path.parent) if local_files else None)


def read_manifest(data: bytes, name: str) -> Manifest:
    """The manifest that is a file's content, sent from elsewhere: it may name no files of this machine.

    The suffix of `name` tells the form. Raises InvalidJob.
    """
    return _manifest(data, name, None)


def _manifest(data: bytes, name: str, files: LocalFiles | None) -> Manifest:
    kind = _kind(name)
    if len(data) > MAX_FILE_BYTES:
        raise refusal(f"is larger than {MAX_FILE_BYTES // 10**6} MB: split it", name)
    text, remark = _text(data, name, any_encoding=kind in FROM_SPREADSHEETS)
    manifest = parse_manifest(text, name, kind, files=files)
    return replace(manifest, remarks=(f"{name}: {remark}", *manifest.remarks)) if remark else manifest


def _kind(name: str) -> Kind:
    suffix = Path(name).suffix
    if (kind := KINDS.get(suffix.lower())) is None:
        raise refusal(f"ends in {suffix!r}; must be {', '.join(KINDS)}", name)
    return kind


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise refusal(f"cannot be read: {exc.strerror or exc}", str(path)) from exc
    if len(data) > MAX_FILE_BYTES:
        raise refusal(f"is larger than {MAX_FILE_BYTES // 10**6} MB: split it", path.name)
    return data


def _text(data: bytes, name: str, *, any_encoding: bool) -> tuple[str, str]:
    """A file's text, and what to remark on it."""
    if any_encoding:
        return decode(data, name)
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise refusal("is not UTF-8: save the file as UTF-8", name, line) from exc


def parse_manifest(text: str, name: str, kind: Kind, *, files: LocalFiles | None = None) -> Manifest:
    """The manifest in a text; `name` is its file's. Raises InvalidJob with every problem, in the order of the lines.

    `files` reads the local files that it may name; without it, it may name none.
    """
    text = text.removeprefix("\ufeff")
    notes = Notes(name)
    form = _form(text, name, kind, notes)
    table, remarks = _vars(form.vars, files, notes) if form.vars else (None, ())
    found = gather(form, table, files, notes)
    notes.check()
    if not found.jobs:
        raise refusal("holds no jobs", name)
    unused = (f"{table.place}: no placeholder uses {each!r}" for each in found.unused) if table else ()
    named = files.found if files else {}
    return Manifest(name, form.batch, found.jobs, found.repeated, named, remarks=(*remarks, *unused))


def _form(text: str, name: str, kind: Kind, notes: Notes) -> Form:
    match kind:
        case "jsonl":
            return read_lines(text, notes)
        case "csv" | "tsv":
            return read_rows(text, notes, SEPARATORS[f".{kind}"])
        case "txt":
            return read_prompts(text, notes)
    return read_document(text, name, read_yaml if kind == "yaml" else read_json, notes)


def _vars(tree: Tree, files: LocalFiles | None, notes: Notes) -> tuple[VarsTable, tuple[str, ...]]:
    """The table that `vars` holds or names, and what to remark on its file. Raises InvalidJob for a file's problems."""
    if not isinstance(tree.value, str):
        table = vars_in(tree, notes)
        notes.check()
        return table, ()
    where = f"{notes.name}:{tree.line}"
    if files is None:
        words = "names a file, and this manifest may name none of this machine: write the rows here"
        raise InvalidJob([Problem(words, "vars", where)])
    path = files.folder / tree.value
    if path.suffix.lower() not in SEPARATORS:
        raise InvalidJob([Problem(f"{found_words(tree.value)}; must be a .csv or .tsv file, or rows", "vars", where)])
    try:
        text, remark = _text(_content(path), path.name, any_encoding=True)
    except InvalidJob as exc:
        raise InvalidJob([replace(each, place=f"{where}: vars: {each.place}") for each in exc.problems]) from exc
    table = vars_from(read_table(text, path.name, SEPARATORS[path.suffix.lower()]), path.name)
    return table, (f"{path.name}: {remark}",) if remark else ()


def from_prompt(prompt: str) -> Manifest:
    """A manifest of one job with one shot of a prompt; both are called after its words. Raises InvalidJob."""
    name = name_from(prompt, "video")
    tree = Tree({"id": Tree(name, 1), "shots": Tree((Tree({"prompt": Tree(prompt, 1)}, 1),), 1)}, 1)
    job = validated(tree)
    if not isinstance(job, Job):
        raise InvalidJob([Problem(mistake.message, "prompt") for mistake in job])
    return Manifest(name, "", (job,))
