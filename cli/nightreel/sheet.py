"""sheet: the finished videos of a batch on a contact sheet; and what `render` and `preview` share with it."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightreel_pipelines.errors import PipelineError
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.base import ABSENT, Entry, Store
from nightreel_storage.batches import Batches
from nightreel_storage.connect import open_store
from nightreel_storage.errors import Conflict, NotFound, StoreError
from nightreel_storage.receipts import Receipt, Receipts

from .common import StoreFlag, complain, errors_in_one_line, settings_with
from .work import check_installed

if TYPE_CHECKING:
    from nightreel_pipelines.base import Picture
    from nightreel_pipelines.contact_sheet import Film, Style

NAME = "contact.sheet.jpg"  # a job's id has no dot, so no job's output can bear it
OF = "sheet-of"  # the metadata that makes an object a sheet of ours: what it shows
FORMAT = "1"  # of the sheets; another one is made anew
TRIES = 5  # against others who make the same sheet


def sheet(
    batch: Annotated[str, typer.Argument(help="A batch's name.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it to this JPEG file, not into the store.")
    ] = None,
    store: StoreFlag = None,
) -> None:
    """Make a contact sheet of a batch's finished videos."""
    check_installed()
    settings = settings_with(store=store)
    with errors_in_one_line():
        kept = open_store(settings.store)
        made = _made(kept, batch)
        if not made:
            raise NotFound(f"batch {batch} has no finished video; see: nightreel status {batch}")
        for place in _write(kept, batch, made, output) if output else keep_sheets(kept, batch, made):
            print(place)


def sheets_of(store: Store, batch: str) -> list[str]:
    """Make the sheets of a batch of several videos, unless they are there, and say where they are. Raises StoreError."""
    made = _made(store, batch)
    return keep_sheets(store, batch, made) if len(made) > 1 else []


def keep_sheets(store: Store, batch: str, made: Sequence[Receipt]) -> list[str]:
    """Put the sheets beside the videos, over older ones. Raises StoreError where something else bears their names."""
    shown = _shown(made)
    names = [f"{batch}/{name}" for name in sheet_names(NAME, len(made), _style(made).films)]
    entries = [store.head(name) for name in names]
    if all(entry is not None and entry.metadata.get(OF) == shown for entry in entries):
        return [store.url(name) for name in names]
    for entry in entries:
        _check_ours(entry)
    for name, jpeg in zip(names, _sheets(store, batch, made), strict=True):
        _put(store, name, jpeg, shown)
    return [store.url(name) for name in names]


def sheet_names(name: str, films: int, per_sheet: int) -> Iterator[str]:
    """One for each sheet; the first bears the plain name."""
    stem, _, suffix = name.rpartition(".")
    for number in range(1, -(-films // per_sheet) + 1):
        yield name if number == 1 else f"{stem}-{number}.{suffix}"


def check_sheet(path: Path) -> None:
    """Raises InvalidJob unless a sheet may be written there: nothing is replaced but an older one."""
    from nightreel_pipelines.contact_sheet import is_sheet

    if os.path.lexists(path) and not (path.is_file() and is_sheet(path.read_bytes())):
        raise InvalidJob([Problem(f"{path} is there already and is no contact sheet: move it away")])


def write_sheet(path: Path, jpeg: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(jpeg)
    partial.replace(path)


def _write(store: Store, batch: str, made: Sequence[Receipt], output: Path) -> list[Path]:
    if output.suffix.lower() not in (".jpg", ".jpeg"):
        raise InvalidJob([Problem(f"-o {output}: contact sheets are JPEG files: call it {output.stem}.jpg")])
    if not output.absolute().parent.is_dir():
        raise InvalidJob([Problem(f"-o {output}: there is no folder {output.parent}: make it first")])
    paths = [output.with_name(name) for name in sheet_names(output.name, len(made), _style(made).films)]
    for path in paths:
        check_sheet(path)
    for path, jpeg in zip(paths, _sheets(store, batch, made), strict=True):
        write_sheet(path, jpeg)
    return paths


def _put(store: Store, name: str, jpeg: bytes, shown: str) -> None:
    for _ in range(TRIES):
        entry = store.head(name)
        _check_ours(entry)
        try:
            generation = entry.generation if entry else ABSENT
            store.put(name, jpeg, generation=generation, content_type="image/jpeg", metadata={OF: shown})
            return
        except Conflict:
            continue  # another render of this batch has just ended, too
    raise StoreError(f"{name} is being written by others all the time: try again")


def _check_ours(entry: Entry | None) -> None:
    if entry and OF not in entry.metadata:
        raise StoreError(f"{entry.name} is there already and is no contact sheet: move it away, or use -o")


def _made(store: Store, batch: str) -> list[Receipt]:
    """The receipts of the finished videos, in the order in which the jobs were asked for."""
    known = Batches(store).read(batch)
    order = {job.id: at for at, job in enumerate(known.jobs)} if known else {}
    made = [receipt for receipt in Receipts(store).list(batch) if receipt.state == "done" and receipt.video]
    return sorted(made, key=lambda receipt: order.get(receipt.job, len(order)))


def _shown(made: Sequence[Receipt]) -> str:
    """Changes with the videos."""
    lines = [f"{receipt.job} {output.sha256}\n" for receipt in made for output in receipt.outputs]
    return hashlib.sha256("".join([f"{FORMAT}\n", *lines]).encode()).hexdigest()


def _style(made: Sequence[Receipt]) -> Style:
    """Three frames of each video as long as one sheet has them all; of more videos only their posters are read."""
    from nightreel_pipelines.contact_sheet import FILMS, POSTERS

    return FILMS if len(made) <= FILMS.films else POSTERS


def _sheets(store: Store, batch: str, made: Sequence[Receipt]) -> Iterator[bytes]:
    from nightreel_pipelines.contact_sheet import sheets
    from nightreel_pipelines.fonts import Fonts

    style = _style(made)
    return sheets(batch, (_film(store, receipt, style) for receipt in made), len(made), style, Fonts())


def _film(store: Store, receipt: Receipt, style: Style) -> Film:
    from nightreel_pipelines.contact_sheet import Film, blank

    video = receipt.video
    assert video is not None
    size = style.picture_size(video.width, video.height)
    try:
        pictures = _frames(store, receipt, size) if style.per_film > 1 else [_poster(store, receipt)]
    except (StoreError, PipelineError, OSError) as exc:
        complain(f"{receipt.job}: {exc}; its place on the contact sheet stays empty")
        pictures = [blank(*size)] * style.per_film
    return Film(receipt.job, f"{video.duration_s:g} s, {video.width} x {video.height}", pictures)


def _frames(store: Store, receipt: Receipt, size: tuple[int, int]) -> Sequence[Picture]:
    from nightreel_pipelines.contact_sheet import first_middle_last
    from nightreel_pipelines.stills import stills

    assert receipt.video is not None
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "video.mp4"
        store.fetch(_output(receipt, ".mp4"), video)
        at = first_middle_last(receipt.video.frames)
        return stills(video, at, fps=receipt.video.fps, width=size[0], height=size[1])


def _poster(store: Store, receipt: Receipt) -> Picture:
    import numpy as np
    from PIL import Image

    data, _ = store.get(_output(receipt, ".jpg"))
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as poster:
        return np.array(poster.convert("RGB"))


def _output(receipt: Receipt, suffix: str) -> str:
    return next(
        (file.name for file in receipt.outputs if file.name.endswith(suffix)), f"{receipt.batch}/{receipt.job}{suffix}"
    )
