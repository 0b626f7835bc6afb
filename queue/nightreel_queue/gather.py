"""From a manifest's form to its jobs: defaults laid under, placeholders filled, files found, each job checked once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .defaults import Defaults, refused
from .forms import Form, Notes, Row
from .job import Job
from .local_files import LocalFiles
from .problems import check_size, found_words, mistakes_in, validated
from .templates import Unfilled, Vars, VarsTable, filled, used_in
from .trees import MAX_VALUES, Tree

MAX_JOBS = 100_000


@dataclass(frozen=True, slots=True)
class Gathered:
    """The jobs of a form."""

    jobs: tuple[Job, ...]
    """Each once."""
    repeated: int
    unused: tuple[str, ...]
    """Columns of `vars` that no placeholder names."""


def gather(form: Form, table: VarsTable | None, local: LocalFiles | None, notes: Notes) -> Gathered:
    """The sound jobs of a form; what is wrong with the others, and with the defaults, is noted."""
    gatherer = _Gatherer(form, table, local, notes)
    gatherer.read()
    unused = [name for name in table.names if name not in gatherer.used] if table else []
    return Gathered(tuple(job for job, _ in gatherer.kept.values()), gatherer.repeated, tuple(unused))


@dataclass(slots=True)
class _Gatherer:
    form: Form
    table: VarsTable | None
    local: LocalFiles | None
    notes: Notes
    defaults: Defaults = field(default_factory=Defaults)
    kept: dict[str, tuple[Job, str]] = field(default_factory=dict)
    """Jobs and their places in words, by id or else by fingerprint."""
    repeated: int = 0
    used: set[str] = field(default_factory=set)

    def read(self) -> None:
        self.defaults = self._defaults()
        number = values = 0
        for row in self.form.rows:
            size = self.defaults.size_for(row.tree)
            for vars_ in self._vars_of(row):
                number, values = number + 1, values + size
                if number > MAX_JOBS or values > MAX_VALUES:
                    self._too_many(row, number)
                    return
                self._take(row, vars_)

    def _vars_of(self, row: Row) -> Sequence[Vars | None]:
        """What fills a row, once for each video that is to be made of it."""
        if self.table is None:
            return [None]
        if isinstance(row.tree.value, dict):
            used = used_in(self.defaults.apply(row.tree), row.path, self.table, self.notes)
            if used is None:
                return []
            self.used |= used
        return self.table.rows

    def _too_many(self, row: Row, number: int) -> None:
        if number > MAX_JOBS:
            words = f"brings the file to more than {MAX_JOBS:,} jobs: split it"
        else:
            words = f"brings the file to more than {MAX_VALUES:,} values, defaults and vars spread out: split it"
        self.notes.add(row.tree.line, row.path, words)

    def _take(self, row: Row, vars_: Vars | None) -> None:
        tree, notes = row.tree, self.notes
        if not isinstance(tree.value, dict):
            notes.add(tree.line, row.path, f"{found_words(tree.plain())}; must be a mapping of a job's fields")
            return
        if "batch" in tree.value:
            notes.add_at(tree, ("batch",), "belongs at the top of the manifest", row.path)
            tree = tree.without("batch")
        whole = self._completed(self.defaults.apply(tree), row, vars_)
        if whole is None:
            return
        job = validated(whole)
        if isinstance(job, Job):
            self._keep(job, whole, row, vars_)
            return
        for mistake in job:
            line, path = whole.locate(mistake.path, row.path)
            shared = self.defaults.job is not None and path[:1] == ("defaults",)
            aside = f" (in {vars_.where})" if vars_ else f" (seen in the job of line {tree.line})" if shared else ""
            notes.add(line, path, mistake.message, aside)

    def _completed(self, tree: Tree, row: Row, vars_: Vars | None) -> Tree | None:
        """A job with its placeholders filled and contents' addresses for local files; None when a cell is missing."""
        if vars_ is not None:
            try:
                tree = filled(tree, vars_)
            except Unfilled as exc:
                line, path = tree.locate(exc.path, row.path)
                self.notes.add(line, path, str(exc))
                return None
        if self.local is not None:
            tree, wrong = self.local.by_content(tree)
            for path, message in wrong:
                line, full = tree.locate(path, row.path)
                self.notes.add(line, full, message)
        return tree

    def _keep(self, job: Job, whole: Tree, row: Row, vars_: Vars | None) -> None:
        """Keep a job unless the same one came before; one that differs but would get its name is noted."""
        line, notes = row.tree.line, self.notes
        if too_large := check_size(job):
            notes.add(line, row.path, too_large)
            return
        place = vars_.where if vars_ else f"line {line}"
        known, before = self.kept.setdefault(job.id or job.fingerprint, (job, place))
        if known is job:
            return
        self.repeated += 1
        if known == job:
            return
        aside = f" (in {vars_.where})" if vars_ else ""
        if job.id is None:
            message = f"is the video of {before} with another priority or labels: give each its own id"
            notes.add(line, row.path, message, aside)
        else:
            other = "another priority or labels" if job.fingerprint == known.fingerprint else "other content"
            at, path = whole.locate(("id",), row.path)
            notes.add(at, path, f"{job.id!r} is taken by {before}, with {other}", aside)

    def _defaults(self) -> Defaults:
        """The defaults, with all that is wrong with them noted, whether a job uses it or not."""
        tree, notes = self.form.defaults, self.notes
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
        for probe in self._probes(defaults):
            for mistake in mistakes_in(probe):
                line, path = probe.locate(mistake.path)
                if path[0] == "defaults" and not mistake.spans_fields:
                    notes.add(line, path, mistake.message)
        return defaults

    def _probes(self, defaults: Defaults) -> Iterator[Tree]:
        """Jobs of nothing but defaults, filled by the first row of `vars`."""
        first = self.table.rows[0] if self.table else None
        for probe in defaults.probes():
            if self.table and used_in(probe, (), self.table, self.notes) is None:
                continue
            whole = self._completed(probe, Row(probe), first)
            if whole is not None:
                yield whole
