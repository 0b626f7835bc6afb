"""download: the finished videos of a batch, from the store into a folder of one's own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from nightreel_dispatcher.looking import known_batch, no_job
from nightreel_storage.base import Store
from nightreel_storage.batches import Batches
from nightreel_storage.connect import open_store
from nightreel_storage.errors import Damaged, NotFound, StoreError
from nightreel_storage.receipts import Receipt, Receipts, Standing, receipt_name

from .common import EXIT_NOT_ALL_MADE, StoreFlag, complain, errors_in_one_line, settings_with

AT_ONCE = 4  # videos: a bucket's one connection rarely fills a line
PART = ".part"  # behind the name of a file that has not come whole yet


class NotHad(Exception):
    """Raised when a file of a job cannot be had; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object, and where it goes."""

    name: str
    sha256: str
    """As the receipt has it; empty: what the store says."""
    path: Path


def download(
    batch: Annotated[str, typer.Argument(help="A batch's name.", show_default=False)],
    jobs: Annotated[list[str] | None, typer.Argument(help="Some jobs; all when left out.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder in which the batch's own is made; this one when left out.")
    ] = Path(),
    everything: Annotated[bool, typer.Option("--all", help="Posters and receipts, too.")] = False,
    store: StoreFlag = None,
) -> None:
    """Copy a batch's finished videos into a folder. Exit code 1: not all could be had."""
    settings = settings_with(store=store)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        names = _asked(kept, batch, jobs or [])
        standings = Receipts(kept).standings(batch)
        missing = {name: why for name in names if (why := _why_not(kept, batch, name, standings.get(name)))}
        done = [name for name in names if name not in missing]
        counts: Counter[bool] = Counter()
        if done:
            with _folder(output / batch) as folder:
                missing |= _copy_all(kept, batch, done, folder, everything, counts)
    for name in names:
        if name in missing:
            complain(f"{batch}/{name}: {missing[name]}")
    print(
        f"{len(names) - len(missing)} of {len(names)} videos of {batch} are in {output / batch}"
        f" ({counts[True]} files copied, {counts[False]} were there already)"
    )
    if missing:
        raise typer.Exit(EXIT_NOT_ALL_MADE)


def _asked(store: Store, batch: str, jobs: Sequence[str]) -> list[str]:
    """Ids, in the order of the batch. Raises NotFound for a job that it does not have."""
    known = [asked.id for asked in Batches(store).jobs(known_batch(store, batch))]
    for job in jobs:
        if job not in known:
            raise no_job(batch, job)
    return [name for name in known if name in jobs] if jobs else known


def _why_not(store: Store, batch: str, job: str, standing: Standing | None) -> str:
    """Why a job has no video; empty when it has one."""
    if standing is None or not standing.ended:
        return f"has not ended yet; see: nightreel status {batch}"
    if standing.state == "done":
        return ""
    held = Receipts(store).read(batch, job)
    reason = held.receipt.reason if held else ""
    return f"{standing.state}: {reason}; once more: nightreel retry {batch} {job}"


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Make the folder, and keep other downloads out of it. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise StoreError(f"{path} cannot be made or read ({exc.strerror}): choose another folder with -o") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    except BlockingIOError as exc:
        raise StoreError(f"another download into {path} is running: wait for it, or choose another folder") from exc
    finally:
        os.close(descriptor)


def _copy_all(
    store: Store, batch: str, jobs: Sequence[str], folder: Path, everything: bool, counts: Counter[bool]
) -> dict[str, str]:
    """Several jobs at once; returns why some could not be had, and counts what was copied, and what was there."""
    missing = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {pool.submit(_copy, store, batch, job, folder, everything): job for job in jobs}
        try:
            for future in as_completed(started):
                try:
                    copied = future.result()
                except NotHad as exc:
                    missing[started[future]] = str(exc)
                else:
                    counts.update(copied.values())
                    for path in (path for path, new in copied.items() if new):
                        print(path, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return missing


def _copy(store: Store, batch: str, job: str, folder: Path, everything: bool) -> dict[Path, bool]:
    """The files of one job; False for those that were there already. Raises NotHad, StoreUnavailable."""
    held = Receipts(store).read(batch, job)
    if held is None or held.receipt.state != "done":
        raise NotHad("its receipt has changed meanwhile: run the same command again")
    return {wanted.path: _bring(store, wanted) for wanted in _files(held.receipt, folder, everything)}


def _files(receipt: Receipt, folder: Path, everything: bool) -> Iterator[Wanted]:
    for file in receipt.outputs:
        if everything or file.content_type.startswith("video/"):
            yield Wanted(file.name, file.sha256, folder / PurePosixPath(file.name).name)
    if everything:
        yield Wanted(receipt_name(receipt.batch, receipt.job), "", folder / f"{receipt.job}.json")


def _bring(store: Store, wanted: Wanted) -> bool:
    """Copy a file unless it is there; replaces nothing but a part that an earlier download left. Raises NotHad."""
    sha256 = wanted.sha256 or _sha256_in(store, wanted.name)
    try:
        if os.path.lexists(wanted.path):
            if wanted.path.is_symlink() or not wanted.path.is_file() or _sha256(wanted.path) != sha256:
                raise NotHad(f"{wanted.path} is there already and is another file: move it away, or use -o")
            return False
        part = _fresh(wanted.path.with_name(wanted.path.name + PART))
        store.fetch(wanted.name, part)
        if _sha256(part) != sha256:
            part.unlink()
            raise NotHad(f"the store's {wanted.name} is not what the receipt tells of: it was changed, or is damaged")
        _place(part, wanted.path)
    except (NotFound, Damaged) as exc:
        raise NotHad(str(exc)) from exc
    except OSError as exc:
        raise NotHad(f"{exc.filename or wanted.path}: {exc.strerror}: make room there, or choose -o") from exc
    return True


def _sha256_in(store: Store, name: str) -> str:
    entry = store.head(name)
    if entry is None:
        raise NotHad(f"the store has no {name} any more")
    return entry.sha256


def _fresh(part: Path) -> Path:
    """The part's path, with nothing there."""
    if os.path.lexists(part):
        if not stat.S_ISREG(part.lstat().st_mode):
            raise NotHad(f"{part} is in the way and no file of ours: move it away, or use -o")
        part.unlink()
    return part


def _place(part: Path, path: Path) -> None:
    """Give a whole file its name, unless somebody took it meanwhile. Raises NotHad."""
    try:
        os.link(part, path)  # unlike a rename, replaces nothing
    except FileExistsError as exc:
        raise NotHad(f"{path} has appeared meanwhile: move it away, or use -o") from exc
    except OSError:  # a disk without hard links
        if os.path.lexists(path):
            raise NotHad(f"{path} has appeared meanwhile: move it away, or use -o") from None
        part.rename(path)
        return
    part.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
