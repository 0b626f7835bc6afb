"""weights prepare, weights verify: 8-bit weights, made once and looked at whenever there is doubt."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_storage.base import ABSENT, Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import NotFound

from .common import EXIT_BAD_INPUT, complain, errors_in_one_line

if TYPE_CHECKING:
    from nightreel_pipelines.flux.prepare import Step, Target

_NEEDED = ("torch", "safetensors")

weights = typer.Typer(help="A model's weights.", no_args_is_help=True)


@weights.command("prepare")
def weights_prepare(
    source: Annotated[
        str,
        typer.Argument(help="A folder in diffusers' layout, or org/name on the Hugging Face hub.", show_default=False),
    ],
    dest: Annotated[str, typer.Argument(help="A folder, or gs://BUCKET/PREFIX.", show_default=False)],
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="Largest file, in MB.")] = 1000,
    compile_cache: Annotated[
        str, typer.Option("--compile-cache", help="Then compile for these sizes on this GPU: 1024x1024,1360x768.")
    ] = "",
) -> None:
    """Write a model's weights with 8-bit matrices, about half as large; a command that was cut off goes on."""
    sizes = _sizes(compile_cache)
    with errors_in_one_line(), _disk_trouble(dest):
        folder, name = _source(source)
        _check_installed()
        from nightreel_pipelines.flux.prepare import Preparation

        if sizes:
            _check_gpu(dest)
        with _target(dest) as target, _progress() as heard:
            done = Preparation(folder, name, target, shard_bytes=shard_mb * 1_000_000).run(heard)
        if sizes:
            from nightreel_pipelines.flux.compiling import make_cache

            print(make_cache(Path(dest), sizes))
    size_bytes = sum(file.size_bytes for file in done.files.values())
    print(f"{dest}: {len(done.files)} files, {size_bytes / 1e9:.2f} GB, from {done.source} {done.source_revision}")


@weights.command("verify")
def weights_verify(
    folder: Annotated[Path, typer.Argument(help="A folder that was prepared.", show_default=False)],
) -> None:
    """Compare every file of prepared weights with its sha256."""
    from nightreel_pipelines.flux.prepared import manifest_of, problems

    with errors_in_one_line():
        manifest = manifest_of(folder, sizes=False)
        if manifest is None:
            raise SourceUnavailable(f"{folder} holds no prepared weights: nightreel weights prepare {folder} DEST")
        found = list(problems(folder, manifest, lambda name, count: None))
    for problem in found:
        complain(problem)
    if found:
        complain(f"copy these files to {folder} again, or delete the folder and prepare {manifest.source} again")
        raise typer.Exit(EXIT_BAD_INPUT)
    print(f"{folder}: {len(manifest.files)} files are whole")


class BucketTarget:
    """A place in a store."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch

    def scratch(self) -> Path:
        return self._scratch

    def read(self, name: str) -> bytes | None:
        with contextlib.suppress(NotFound):
            return self._store.get(name)[0]
        return None

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data)

    def add(self, name: str, file: Path) -> None:
        self._put(name, file)
        file.unlink()

    def is_empty(self) -> bool:
        return next(iter(self._store.list()), None) is None

    def _put(self, name: str, content: bytes | Path) -> None:
        """Over what is there: who was killed between a file and the note of it writes the same bytes once more."""
        there = self._store.head(name)
        self._store.put(name, content, generation=there.generation if there else ABSENT)


def _sizes(text: str) -> list[tuple[int, int]]:
    try:
        pairs = [part.split("x") for part in text.split(",") if part]
        return [(int(width), int(height)) for width, height in pairs]
    except ValueError:
        complain(f"--compile-cache: {text!r} is no list of sizes such as 1024x1024,1360x768")
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _check_gpu(dest: str) -> None:
    """Before hours of work: can a compile cache be made here? Raises SourceUnavailable."""
    from nightreel_pipelines.flux.speed import this_machine

    if "://" in dest:
        raise SourceUnavailable("a compile cache is made beside local weights: prepare into a folder, then copy it")
    this_machine()


def _source(source: str) -> tuple[Path, str]:
    """The source's folder, and what to call it. Raises SourceUnavailable."""
    if Path(source).is_dir():
        return Path(source), Path(source).resolve().name
    from nightreel_pipelines.flux.hub import ID, download

    if not ID.fullmatch(source):
        raise SourceUnavailable(f"{source} is no folder, and no org/name on the Hugging Face hub")
    return download(source), source


@contextlib.contextmanager
def _target(dest: str) -> Iterator[Target]:
    if "://" not in dest:
        from nightreel_pipelines.flux.prepare import FolderTarget

        yield FolderTarget(Path(dest))
        return
    with tempfile.TemporaryDirectory(prefix="nightreel-") as scratch:
        yield BucketTarget(open_store(dest), Path(scratch))


def _check_installed() -> None:
    from importlib.util import find_spec

    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise SourceUnavailable(
            f"preparing weights needs {', '.join(missing)}: pip install 'nightreel[cpu]' (or [gpu])"
        )


@contextlib.contextmanager
def _disk_trouble(dest: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SourceUnavailable(
            f"cannot write {dest}: {exc}; give the same command again, it goes on where it was"
        ) from exc


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal, a line a file elsewhere; both with GB of the source a second."""
    began, skipped = time.monotonic(), 0
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def speed(step: Step) -> str:
        return f"{(step.done_bytes - skipped) / 1e9 / max(1e-3, time.monotonic() - began):.2f} GB/s"

    def say(step: Step) -> None:
        nonlocal skipped
        if step.resumed:
            skipped = step.done_bytes
        if step.finished:
            how = "was there already" if step.resumed else speed(step)
            print(f"{step.done_bytes / 1e9:.2f} of {step.all_bytes / 1e9:.2f} GB: {step.file}, {how}", flush=True)

    if not sys.stderr.isatty():
        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("reading", total=None, speed="")

        def draw(step: Step) -> None:
            nonlocal skipped
            skipped = step.done_bytes if step.resumed else skipped
            bars.update(bar, description=step.file, total=step.all_bytes, completed=step.done_bytes, speed=speed(step))

        yield draw
