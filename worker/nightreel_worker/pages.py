"""Pages of runs in the store: reports/RUN.html, made at a run's end, or later from its report.

No batch's outputs end in .html, so the folder may bear any batch's name. A page is derived: it is replaced, but only over
an object whose metadata says that it is the page of this run.
"""

from __future__ import annotations

import contextlib
import threading

from nightreel_storage.base import ABSENT, Store
from nightreel_storage.errors import Conflict, StoreError

from .report import RunReport
from .run_page import poster_name, run_page
from .summary import Place

OF = "page-of"  # the metadata that makes an object a page of ours: the run
EMBEDDED_BYTES = 6_000_000  # of all posters in one page, before base64
POSTER_BYTES = 1_000_000  # of one of them; a larger one is left out
AT_ONCE = 8  # reads of a store, which wait for its answers most of the time


def page_name(run: str) -> str:
    return f"reports/{run}.html"


def keep_page(store: Store, report: RunReport, place: Place) -> str:
    """Put the page of a run, over an older one of the same run; returns its name. Raises StoreError."""
    name = page_name(report.run)
    page = run_page(report, posters(store, report), lambda to: f"../{to}", place)
    entry = store.head(name)
    if entry and entry.metadata.get(OF) != report.run:
        raise StoreError(f"{name} is there already and is no page of this run: move it away")
    generation = entry.generation if entry else ABSENT
    try:
        store.put(name, page, generation=generation, content_type="text/html; charset=utf-8", metadata={OF: report.run})
    except Conflict as exc:
        raise StoreError(f"{name} is being written by somebody else: try again") from exc
    return name


def posters(store: Store, report: RunReport) -> dict[str, bytes]:
    """Of the videos that are shown, as long as there is room; those that cannot be had are left out."""
    wanted, room = [], EMBEDDED_BYTES
    for each in report.shown:
        if 0 < each.poster_bytes <= min(POSTER_BYTES, room):
            wanted.append(poster_name(each))
            room -= each.poster_bytes

    found: dict[str, bytes] = {}

    def read(names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(StoreError):
                found[name] = store.get(name)[0]

    # no pool: its threads would keep a process whose store does not answer
    threads = [threading.Thread(target=read, args=(wanted[at::AT_ONCE],), daemon=True) for at in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: jpeg for name, jpeg in found.items() if len(jpeg) <= POSTER_BYTES}
