"""Manifests: files of many jobs with shared defaults, in YAML, JSON or JSON lines.

A manifest is taken whole or not at all. Every problem of every job is told at once, each with its file and line; what
comes from the defaults is told at the defaults.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .defaults import Defaults, refused
from .errors import InvalidJob, Problem
from .forms import Form, Notes, Row, read_document, read_lines, refusal
from .job import Job
from .json_text import read_json
from .problems import check_size, found_words, mistakes_in, validated
from .trees import MAX_VALUES, Tree
from .yaml_text import read_yaml

MAX_FILE_BYTES = 64 * 10**6
NAME_CHARS = 64
FINGERPRINT_CHARS = 8  # of the jobs' contents, at the end of a batch's name

Kind = Literal["yaml", "json", "jsonl"]
KINDS: dict[str, Kind] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".jsonl": "jsonl"}


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

    def resolved(self, model: str, steps: Mapping[str, int] | None = None) -> Manifest:
        """This manifest with model, steps, batch and id written into every job, as a queue carries them.

        `steps`: as `Job.resolved` takes them.

        A batch that the file does not name is called after the file and the jobs' contents: the same jobs make the
        same batch, in whatever order. Raises InvalidJob when jobs that differ come to the same id.
        """
        known: dict[str, Job] = {}
        for job in self.jobs:
            full = job.resolved(model=model, batch="", steps=steps)
            if known.setdefault(str(full.id), full) != full:
                raise refusal(f"holds different jobs that come to the id {full.id!r}: give each its own", self.name)
        batch = self.batch or f"{name_from(Path(self.name).stem)}-{_fingerprint(known)}"
        jobs = tuple(job.model_copy(update={"batch": batch}) for job in known.values())
        return replace(self, batch=batch, jobs=jobs, repeated=self.repeated + len(self.jobs) - len(jobs))


def _fingerprint(jobs: dict[str, Job]) -> str:
    lines = sorted(f"{name} {job.fingerprint}\n" for name, job in jobs.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:FINGERPRINT_CHARS]


def load_manifest(file_name: Path | str) -> Manifest:
    """The manifest in a file; its suffix tells the form. Raises InvalidJob."""
    path = Path(file_name)
    kind = KINDS.get(path.suffix.lower())
    if path.is_dir():
        raise refusal("is a folder: name a file", path.name or str(path))
    if kind is None:
        raise refusal(f"ends in {path.suffix!r}; must be {', '.join(KINDS)}", path.name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise refusal(f"cannot be read: {exc.strerror or exc}", str(path)) from exc
    if len(data) > MAX_FILE_BYTES:
        raise refusal(f"is larger than {MAX_FILE_BYTES // 10**6} MB: split it", path.name)
    try:
        return parse_manifest(data.decode("utf-8"), path.name, kind)
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise refusal("is not UTF-8: save the file as UTF-8", path.name, line) from exc


def parse_manifest(text: str, name: str, kind: Kind) -> Manifest:
    """The manifest in a text; `name` is its file's. Raises InvalidJob with every problem, in the order of the lines."""
    text = text.removeprefix("\ufeff")
    notes = Notes(name)
    if kind == "jsonl":
        form = read_lines(text, notes)
    else:
        form = read_document(text, name, read_yaml if kind == "yaml" else read_json, notes)
    jobs = _jobs(form, _defaults(form, notes), notes)
    kept = _each_once(jobs, notes)
    notes.check()
    if not kept:
        raise refusal("holds no jobs", name)
    return Manifest(name, form.batch, kept, len(jobs) - len(kept))


def from_prompt(prompt: str) -> Manifest:
    """A manifest of one job with one shot of a prompt; both are called after its words. Raises InvalidJob."""
    name = name_from(prompt, "video")
    tree = Tree({"id": Tree(name, 1), "shots": Tree((Tree({"prompt": Tree(prompt, 1)}, 1),), 1)}, 1)
    job = validated(tree)
    if not isinstance(job, Job):
        raise InvalidJob([Problem(mistake.message, "prompt") for mistake in job])
    return Manifest(name, "", (job,))


def name_from(words: str, fallback: str = "batch") -> str:
    """A name for outputs made of some words, with room for a fingerprint behind it."""
    ascii_words = unicodedata.normalize("NFKD", words[:1000]).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_words)[: NAME_CHARS - FINGERPRINT_CHARS - 1].strip("-")
    return name or fallback


def _defaults(form: Form, notes: Notes) -> Defaults:
    """The defaults, with all that is wrong with them noted, whether a job uses it or not."""
    tree = form.defaults
    if tree is None:
        return Defaults()
    if not isinstance(tree.value, dict):
        notes.add(tree.line, ("defaults",), f"{found_words(tree.plain())}; must be a mapping of a job's fields")
        return Defaults()
    for path, why in refused(tree):
        notes.add_at(tree, path, why, ("defaults",))
    defaults = Defaults.of(tree)
    if defaults.shot is not None and not isinstance(defaults.shot.value, dict):
        found = found_words(defaults.shot.plain())
        notes.add_at(tree, ("shot",), f"{found}; must be a mapping of a shot's fields", ("defaults",))
    for probe in defaults.probes():
        for mistake in mistakes_in(probe):
            line, path = probe.locate(mistake.path)
            if path[0] == "defaults" and not mistake.spans_fields:
                notes.add(line, path, mistake.message)
    return defaults


def _jobs(form: Form, defaults: Defaults, notes: Notes) -> list[tuple[Job, Row]]:
    """The sound jobs, with the rows they stand in; what is wrong with the others is noted."""
    found: list[tuple[Job, Row]] = []
    values = 0
    for row in form.rows:
        values += defaults.size_for(row.tree)
        if values > MAX_VALUES:
            notes.add(
                row.tree.line,
                row.path,
                f"brings the file to more than {MAX_VALUES:,} values, defaults spread out: split it",
            )
            break
        job = _job(row, defaults, notes)
        if job is not None:
            found.append((job, row))
    return found


def _job(row: Row, defaults: Defaults, notes: Notes) -> Job | None:
    tree = row.tree
    if not isinstance(tree.value, dict):
        notes.add(tree.line, row.path, f"{found_words(tree.plain())}; must be a mapping of a job's fields")
        return None
    if "batch" in tree.value:
        notes.add_at(tree, ("batch",), "belongs at the top of the manifest", row.path)
    whole = defaults.apply(tree.without("batch"))
    job = validated(whole)
    if isinstance(job, Job):
        too_large = check_size(job)
        if too_large:
            notes.add(tree.line, row.path, too_large)
        return None if too_large else job
    for mistake in job:
        line, path = whole.locate(mistake.path, row.path)
        shared = defaults.job is not None and path[:1] == ("defaults",)
        notes.add(line, path, mistake.message, f" (seen in the job of line {tree.line})" if shared else "")
    return None


def _each_once(jobs: Sequence[tuple[Job, Row]], notes: Notes) -> tuple[Job, ...]:
    """The jobs without those that came before; two that differ but would get one name are noted."""
    first: dict[str, tuple[Job, Row]] = {}
    for job, row in jobs:
        known, known_row = first.setdefault(job.id or job.fingerprint, (job, row))
        if known == job:
            continue
        before = f"line {known_row.tree.line}"
        if job.id is None:
            message = f"is the video of {before} with another priority or labels: give each its own id"
            notes.add(row.tree.line, row.path, message)
        elif job.fingerprint == known.fingerprint:
            notes.add_at(
                row.tree, ("id",), f"{job.id!r} is taken by {before}, with another priority or labels", row.path
            )
        else:
            notes.add_at(row.tree, ("id",), f"{job.id!r} is taken by {before}, with other content", row.path)
    return tuple(job for job, _ in first.values())
