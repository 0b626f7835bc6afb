"""preview: the storyboard of each job of a manifest as a film, and all of them on a contact sheet. Needs no model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightreel_dispatcher.submit import check_models
from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import PipelineError, Unrenderable
from nightreel_pipelines.models import ModelSpec, load_models, own_steps
from nightreel_pipelines.plan import Plan, plan
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_queue.manifest import Manifest
from nightreel_worker.errors import WorkerError
from nightreel_worker.inputs import Inputs, Rules
from nightreel_worker.settings import Settings
from nightreel_worker.web import Web

from .common import EXIT_NOT_ALL_MADE, complain, errors_in_one_line, settings_with
from .sheet import check_sheet, sheet_names, write_sheet
from .submit import read
from .work import check_installed

if TYPE_CHECKING:
    from nightreel_pipelines.animatic import Animatic
    from nightreel_pipelines.base import Picture
    from nightreel_pipelines.contact_sheet import Film

SUFFIX = ".preview.mp4"  # what bears it is a preview, and may be replaced by a newer one
SHEET = "contact-sheet.jpg"
MOST_SHOTS = 24  # of one film that its contact sheet shows


def preview(
    manifest: Annotated[Path, typer.Argument(help="YAML, JSON or JSONL file of jobs.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for them; preview/NAME when left out.")
    ] = None,
    job: Annotated[str | None, typer.Option("--job", help="Make the video of this job alone.")] = None,
) -> None:
    """Make a storyboard film of each job, with its exact timing, and a contact sheet. Exit code 1: not every one was made."""
    check_installed()
    settings = settings_with()
    with errors_in_one_line():
        models = load_models(settings.models)
        batch = read(manifest).resolved(settings.model, own_steps(models))
        check_models(batch.jobs, models)
        folder = output or Path("preview") / manifest.stem
        wanted = _wanted(batch, job)
        _check_folder(folder, wanted, batch)
        studio = Studio(settings, folder, {each.id or "" for each in wanted}, batch.files)
        try:
            studio.make(manifest.stem, batch.jobs)
        except OSError as exc:
            raise PipelineError(f"{folder}: {exc.strerror or exc}: name another folder with -o") from exc
    if studio.failed:
        raise typer.Exit(EXIT_NOT_ALL_MADE)


class Studio:
    """Makes the previews of one manifest."""

    def __init__(self, settings: Settings, folder: Path, wanted: set[str], files: Mapping[str, Path]) -> None:
        """`wanted`: the jobs whose videos are made; the contact sheet shows all. `files`: the user's own, by address."""
        from nightreel_pipelines.fonts import Fonts  # Pillow and friends: not for those who only publish

        self._folder, self._wanted, self._settings, self._files = folder, wanted, settings, files
        self._models = load_models(settings.models)
        self._fonts = Fonts()
        self.failed = 0
        """Jobs whose videos could not be made."""

    def make(self, title: str, jobs: Sequence[Job]) -> None:
        """Write the videos and the sheets. Raises FilmFailed, OSError."""
        from nightreel_pipelines.contact_sheet import STORYBOARD, sheets

        self._folder.mkdir(parents=True, exist_ok=True)
        pages = list(sheet_names(SHEET, len(jobs), STORYBOARD.films))
        for name, jpeg in zip(pages, sheets(title, self._films(jobs), len(jobs), STORYBOARD, self._fonts), strict=True):
            write_sheet(self._folder / name, jpeg)
            print(self._folder / name)
        if missing := self._fonts.missing:
            from nightreel_pipelines.fonts import named

            complain(f"no font here has {named(missing)}: install one that has, such as Noto; they are shown as marks")

    def _films(self, jobs: Sequence[Job]) -> Iterator[Film]:
        for job in jobs:
            layout = plan(job, self._spec(job), Description("", "", "", ""), {each: each for each in job.inputs})
            yield self._film(job, layout)

    def _film(self, job: Job, layout: Plan) -> Film:
        from nightreel_pipelines.animatic import Animatic
        from nightreel_pipelines.contact_sheet import Film, spread

        name = job.id or ""
        broken = ""
        try:
            given = self._given(job)
        except Unrenderable as exc:
            given, broken = {}, str(exc)
        animatic = Animatic(job, layout, self._fonts, given)
        if name in self._wanted and broken:
            complain(f"{name}: {broken}")
            self.failed += 1
        elif name in self._wanted:
            self._write(name, layout, animatic)
        shown = spread(len(job.shots), MOST_SHOTS)
        return Film(name, _facts(job, layout, len(shown)), [animatic.still(index) for index in shown])

    def _write(self, name: str, layout: Plan, animatic: Animatic) -> None:
        video = self._folder / f"{name}{SUFFIX}"
        partial = video.with_name(video.name + ".part")
        animatic.film(partial)
        partial.replace(video)
        print(f"{name}: {layout.frames / layout.fps:g} s, {layout.frames} frames: {video}")

    def _given(self, job: Job) -> Mapping[str, Picture]:
        """The pictures that the job names, in small; none when they cannot be had. Raises Unrenderable for a broken one."""
        from nightreel_pipelines.animatic import reduced
        from nightreel_pipelines.pictures import BadPicture, load_any

        if not job.pictures:
            return {}
        pictures = {}
        with tempfile.TemporaryDirectory() as scratch:
            try:
                silent = job.model_copy(update={"audio": None})
                found = self._inputs.fetch(silent, Path(scratch), self._files)
            except WorkerError as exc:
                complain(f"{job.id}: {exc}; its pictures are shown by their names")
                return {}
            for address, given in found.items():
                try:
                    pictures[address] = reduced(load_any(given.path))
                except BadPicture as exc:
                    raise Unrenderable(f"{job.inputs[address]}: {address} {exc}") from exc
        return pictures

    @property
    def _inputs(self) -> Inputs:
        """From where the settings let a worker take pictures, too."""
        settings = self._settings
        rules = Rules(
            settings.listed("input_buckets"), settings.input_https, settings.input_max_mb, settings.input_timeout_s
        )
        return Inputs(rules, Web(settings.listed("trusted_hosts")))

    def _spec(self, job: Job) -> ModelSpec:
        return self._models[job.render.model or self._settings.model]


def _wanted(batch: Manifest, job: str | None) -> list[Job]:
    wanted = [each for each in batch.jobs if job in (None, each.id)]
    if not wanted:
        ids = ", ".join(str(each.id) for each in batch.jobs[:5])
        raise InvalidJob([Problem(f"--job {job}: {batch.name} has no such job; there are {ids}")])
    return wanted


def _check_folder(folder: Path, wanted: Sequence[Job], batch: Manifest) -> None:
    """Nothing is replaced but previews. Raises InvalidJob."""
    from nightreel_pipelines.contact_sheet import STORYBOARD

    if folder.exists() and not folder.is_dir():
        raise InvalidJob([Problem(f"-o {folder} is a file: name a folder")])
    videos = [folder / f"{job.id}{SUFFIX}" for job in wanted]
    if taken := next((video for video in videos if os.path.lexists(video) and not video.is_file()), None):
        raise InvalidJob([Problem(f"{taken} is no file: move it away, or name another folder with -o")])
    for name in sheet_names(SHEET, len(batch.jobs), STORYBOARD.films):
        check_sheet(folder / name)


def _facts(job: Job, layout: Plan, shown: int) -> str:
    count = len(job.shots)
    shots = f"{count} shot{'s' * (count > 1)}" if shown == count else f"{shown} of {count} shots"
    return f"{shots}, {layout.frames / layout.fps:g} s, {layout.width} x {layout.height}, {layout.fps} fps"
