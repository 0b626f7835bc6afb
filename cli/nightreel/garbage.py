"""gc: what a store keeps although nobody needs it any more, and away with it."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from nightreel_pipelines.models import load_models
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.connect import open_store
from nightreel_storage.keeping import KEEP_DAYS
from nightreel_storage.receipts import utc_now
from nightreel_worker.garbage import Litter, delete, find

from .common import JsonFlag, StoreFlag, errors_in_one_line, settings_with

UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def gc(
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="14d, 36h or 90m, instead of each kind's own days.")
    ] = None,
    really: Annotated[bool, typer.Option("--delete", help="Delete it; without this flag nothing is changed.")] = False,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is kept that nobody needs any more: keyframes, inputs, records. Videos and receipts always stay."""
    settings = settings_with(store=store)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        found = find(kept, load_models(settings.models), utc_now(), _parse(older_than))
        deleted = {each.kind: delete(kept, each) for each in found} if really else {}
    if as_json:
        print(json.dumps({"store": settings.store, "kinds": [_row(each, deleted) for each in found]}))
    else:
        _show(found, deleted, settings.store, really)


def _parse(text: str | None) -> dt.timedelta | None:
    """Raises InvalidJob."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})([dhm])|0", text)
    if match is None:
        raise InvalidJob([Problem(f"--older-than {text}: give days, hours or minutes, such as 14d, 36h or 90m")])
    return dt.timedelta(**{UNITS[match[2]]: int(match[1])}) if match[2] else dt.timedelta()


def _row(each: Litter, deleted: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "objects": len(each.entries),
        "bytes": each.size_bytes,
        "oldest": each.oldest.isoformat(timespec="seconds") if each.oldest else None,
        "in_use": each.in_use,
        "deleted": deleted.get(each.kind, 0),
    }


def _show(found: Sequence[Litter], deleted: dict[str, int], store: str, really: bool) -> None:
    right = [Column(name, justify="right") for name in ("deleted" if really else "objects", "MB", "oldest", "in use")]
    table = Table("kind", *right, box=None)
    for each in found:
        count = deleted[each.kind] if really else len(each.entries)
        oldest = f"{each.oldest:%Y-%m-%d %H:%M}" if each.oldest else "-"
        table.add_row(each.kind, f"{count:,}", f"{each.size_bytes / 1e6:.1f}", oldest, f"{each.in_use:,}")
    Console(highlight=False, soft_wrap=True).print(table)
    if store.startswith("gs://"):
        days = ", ".join(f"{folder.split('/')[1]} after {days} days" for folder, days in KEEP_DAYS.items())
        print(f"The bucket clears away by itself, once `nightreel gcs setup` has told it to: {days}.")
    if not really:
        any_ = any(each.entries for each in found)
        print("Nothing was deleted: add --delete to delete these." if any_ else "There is nothing to delete.")
