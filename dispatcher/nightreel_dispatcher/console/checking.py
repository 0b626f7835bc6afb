"""What a manifest would make and take, or what is wrong with it, line by line; nothing of it is enqueued."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nightreel_pipelines.models import load_models, own_steps
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.manifest import KINDS, Kind, Manifest, read_manifest
from nightreel_queue.names import name_from
from nightreel_queue.table_text import decode
from nightreel_storage.batches import Batches
from nightreel_storage.receipts import utc_now
from nightreel_worker.forecast import Forecast, forecast
from nightreel_worker.prices import find_price

from ..desk import Desk
from ..intake import Intake
from ..submit import check_models

SHOWN_PROBLEMS = 50
SHOWN_JOBS = 20
SHOWN_CHARS = 160  # of a line
PLANNED_JOBS = 2000  # of more the first ones are planned, and the rest is taken in proportion
DEFAULT_STEM = "console"
_LINE = re.compile(r":(\d+)$")
_COLUMNS = re.compile(r"(?i)^\W*(sep=.|([\w.\[\]]+[,;\t])*prompt([,;\t][\w.\[\]]+)*)\W*$")


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody has typed, pasted or uploaded."""

    name: str
    """A manifest's file name; its suffix tells the form."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Mistake:
    """One problem, and the line that it is about."""

    line: int
    """From 1; 0 for the whole."""
    text: str
    """How the line begins."""
    problem: Problem


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest that was looked at."""

    given: Given
    mistakes: Sequence[Mistake] = ()
    more_mistakes: int = 0
    manifest: Manifest | None = None
    """With batch, ids and models, when nothing is wrong."""
    plan: Forecast | None = None
    planned: int = 0
    """How many of its jobs the plan is made of: the first ones."""
    is_there: bool = False
    """Was this batch enqueued before?"""

    @property
    def kind(self) -> str:
        return PurePosixPath(self.given.name).suffix.removeprefix(".").upper()

    @property
    def scale(self) -> float:
        """What figures of the plan are multiplied with."""
        return len(self.manifest.jobs) / self.planned if self.manifest and self.planned else 1.0

    @property
    def video_s(self) -> float:
        return sum(job.duration_s for job in self.manifest.jobs) if self.manifest else 0.0


def given_text(stem: str, kind: str, text: str) -> Given:
    """What was typed; `kind` is one of the manifest's, or empty: what it looks like."""
    data = text.replace("\r\n", "\n").encode("utf-8", "replace")
    return Given(f"{name_from(stem, DEFAULT_STEM) if stem else DEFAULT_STEM}.{kind or guess(text)}", data)


def given_file(name: str, data: bytes) -> Given:
    """An uploaded file: its suffix tells what it is, or what it looks like."""
    path = PurePosixPath(name.replace("\\", "/"))
    suffix = (
        path.suffix.lower() if path.suffix.lower() in KINDS else f".{guess(data[:4096].decode('utf-8', 'replace'))}"
    )
    return Given(name_from(path.stem, DEFAULT_STEM) + suffix, data)


def guess(text: str) -> Kind:
    """The form of a manifest, from how it begins. Prompts, one a line, when it looks like nothing else."""
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("#")] or lines
    if not lines:
        return "txt"
    if lines[0].startswith(("{", "[")):
        return "jsonl" if len(lines) > 1 and _is_json(lines[0]) else "json"
    if _COLUMNS.match(lines[0]):
        return "tsv" if "\t" in lines[0] else "csv"
    first = re.match(
        r"(?:---$|(defaults|jobs|shots|vars|version|batch|id|output|render|seed|style_prefix)\s*:)", lines[0]
    )
    return "yaml" if first else "txt"


def check(desk: Desk, given: Given) -> Checked:
    """Raises what cannot be reached."""
    settings = desk.settings
    try:
        Intake(desk).check_size(len(given.data), given.name)
        models = load_models(settings.models)
        manifest = read_manifest(given.data, given.name).resolved(settings.model, own_steps(models))
        check_models(manifest.jobs, models)
    except InvalidJob as exc:
        found = with_lines(exc.problems[:SHOWN_PROBLEMS], given)
        return Checked(given, found, max(0, len(exc.problems) - SHOWN_PROBLEMS))
    first = manifest.jobs[:PLANNED_JOBS]
    plan = forecast(first, desk.store, models, find_price(settings.price, settings.prices), utc_now())
    is_there = Batches(desk.store).read(manifest.batch) is not None
    return Checked(given, manifest=manifest, plan=plan, planned=len(first), is_there=is_there)


def with_lines(problems: Sequence[Problem], given: Given) -> list[Mistake]:
    """Problems with the lines that they are about, in the order of the lines."""
    lines = text_of(given).split("\n")
    found = []
    for problem in problems:
        match = _LINE.search(problem.place)
        number = int(match[1]) if match else 0
        text = lines[number - 1] if 0 < number <= len(lines) else ""
        cut = f"{text[:SHOWN_CHARS]}…" if len(text) > SHOWN_CHARS else text
        found.append(Mistake(number, cut.rstrip("\r"), problem))
    return sorted(found, key=lambda mistake: mistake.line)


def text_of(given: Given) -> str:
    """Its text as the manifest's reader has it, or as near as can be; never fails."""
    try:
        return decode(given.data, given.name)[0].replace("\r\n", "\n")
    except InvalidJob:
        return given.data.decode("utf-8", "replace")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
