"""The console's pages: how soon they are answered, how heavy they are, and when a browser has painted them.

    python bench/console.py [--quick] [--rounds N]

A real `nightreel serve` with SQLite and a folder that holds one large batch, half of it done; who asks is a process beside it
on the same machine. Paints are Chromium's own figures, of a page that was asked for the first time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from common import Table, arguments, count, median, publish
from PIL import Image

from dispatcher import serving
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import Cost, OutputFile, Receipt, Receipts, Video

BATCH = "nightly"
ASKERS = (1, 8)
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
PAGES = {
    "tonight": "/console/",
    "tonight, unchanged": "/console/tonight?was={was}",
    "the batch": f"/console/batches/{BATCH}",
    "its last page": f"/console/batches/{BATCH}?at={{last}}",
    "its failures": f"/console/batches/{BATCH}?state=failed",
    "one job": f"/console/batches/{BATCH}/v0",
    "submit": "/console/submit",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of asking for one page for a while."""

    per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    asked = arguments("The console's pages.").parse_args()
    jobs, times = (130, 5) if asked.quick else (10_000, 300)
    rounds = range(asked.rounds or (1 if asked.quick else 3))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        fill(open_store(str(home / "out")), jobs)
        with serving(home) as url:
            painted = () if asked.quick else _painted(url, rounds)
            tables = (*_answered(url, jobs, times, rounds), *painted)
    publish("console", tables, asked)


def fill(store: Store, jobs: int) -> None:
    """A batch whose first half is done, but for every hundredth job, which failed; the second half waits."""
    os.fsync = lambda fd: None  # of this process: a store that is thrown away need not survive a power cut
    asked = [
        Asked(id=f"v{n}", fingerprint="f" * 16, duration_s=2.0, message='{"shots": ["a boat"]}') for n in range(jobs)
    ]
    Batches(store).record(BATCH, f"{BATCH}.csv", NOW, asked)
    picture = _jpeg()
    for n in range(jobs // 2):
        if n % 100 == 99:
            Receipts(store).commit(_receipt(n, f"needs {n} GB of memory, and there are 22"), None)
            continue
        files = [
            store.put(f"{BATCH}/v{n}.mp4", b"a film", content_type="video/mp4"),
            store.put(f"{BATCH}/v{n}.jpg", picture, content_type="image/jpeg"),
        ]
        outputs = [
            OutputFile(name=f.name, sha256=f.sha256, size_bytes=f.size_bytes, content_type=f.content_type)
            for f in files
        ]
        Receipts(store).commit(_receipt(n, "", *outputs), None)


def _receipt(n: int, reason: str, *outputs: OutputFile) -> Receipt:
    return Receipt(
        state="failed" if reason else "done",
        batch=BATCH,
        job=f"v{n}",
        fingerprint="f" * 16,
        reason=reason,
        outputs=outputs,
        video=None if reason else Video(width=1280, height=720, fps=30, frames=60, duration_s=2.0, digest="d"),
        cost=None if reason else Cost(seconds=11.0, usd=0.0043, price="cloudrun-l4"),
        ended_at=NOW,
    )


def _jpeg() -> bytes:
    """1280 x 720, with something to see in it."""
    out = io.BytesIO()
    Image.radial_gradient("L").resize((1280, 720)).convert("RGB").save(out, "JPEG", quality=88)
    return out.getvalue()


def _answered(url: str, jobs: int, times: int, rounds: range) -> Iterator[Table]:
    first_s = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        poster = _poster(client)
        pages = PAGES | {"a poster, in small": poster}
        for name, path in pages.items():
            begun = time.perf_counter()
            client.get(path.format(was="0-0", last=1)).raise_for_status()
            first_s[name] = time.perf_counter() - begun
        while "being counted" in client.get(f"/console/batches/{BATCH}").text:
            time.sleep(0.1)
        was = client.get("/console/").text.partition("was=")[2].partition('"')[0]
        known = {name: path.format(was=was, last=max(1, -(-jobs // 60))) for name, path in pages.items()}
        weights = {name: len(client.get(path).content) for name, path in known.items()}
    rows = []
    for name, path in known.items():
        found = {askers: [_ask(url, path, times, askers) for _ in rounds] for askers in ASKERS}
        rows.append(
            (
                name,
                f"{first_s[name] * 1000:.0f} ms",
                f"{median([each.p50_ms for each in found[1]]):.1f} ms",
                f"{median([each.p99_ms for each in found[1]]):.1f} ms",
                f"{median([each.per_s for each in found[8]]):.0f}",
                f"{weights[name] / 1000:.1f} kB",
            )
        )
    note = (
        f"A batch of {jobs:,} jobs, half of them done; {times} times, {count(rounds)}. The first time the process has counted"
        " nothing, and has rendered no template, yet. Weights are of the page alone."
    )
    columns = ("page", "first time", "median", "p99", "answers a second, 8 at a time", "weight")
    yield Table("Pages of the console", columns, tuple(rows), (note,))


def _poster(client: httpx.Client) -> str:
    page = client.get(f"/console/batches/{BATCH}").text
    return page.partition('src="/console/files')[2].partition('"')[0].join(("/console/files", ""))


def _ask(url: str, path: str, times: int, askers: int) -> Answers:
    """Every asker keeps one connection, and asks again as soon as it was answered."""
    clients = threading.local()

    def one(_: int) -> float:
        if not hasattr(clients, "client"):
            clients.client = httpx.Client(base_url=url, timeout=60)
        begun = time.perf_counter()
        clients.client.get(path).raise_for_status()
        return time.perf_counter() - begun

    with ThreadPoolExecutor(askers) as pool:
        list(pool.map(one, range(2 * askers)))  # connections and cookies
        begun = time.perf_counter()
        took = sorted(pool.map(one, range(times)))
        wall_s = time.perf_counter() - begun
    return Answers(times / wall_s, took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000)


def _painted(url: str, rounds: range) -> Iterator[Table]:
    """Nothing without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium on PATH: paints are left out")
        return
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, path in (("tonight", "/console/"), ("the batch", f"/console/batches/{BATCH}")):
            paints, weights, requests = [], [], 0
            for _ in rounds:
                with contextlib.closing(browser.new_context(viewport={"width": 1200, "height": 900})) as context:
                    page = context.new_page()
                    page.goto(f"{url}{path}")
                    page.wait_for_load_state("networkidle")
                    paints.append(page.evaluate("performance.getEntriesByType('paint').at(-1).startTime"))
                    sizes = page.evaluate("performance.getEntriesByType('resource').map(each => each.transferSize)")
                    weights.append(
                        sum(sizes) + page.evaluate("performance.getEntriesByType('navigation')[0].transferSize")
                    )
                    requests = 1 + len(sizes)
            rows.append((name, f"{median(paints):.0f} ms", f"{median(weights) / 1000:.0f} kB", str(requests)))
        browser.close()
    note = (
        f"{count(rounds)}; nothing is in the browser's cache. All that the page loads is counted, thumbnails included."
    )
    yield Table("In Chromium", ("page", "first contentful paint", "weight", "requests"), tuple(rows), (note,))


if __name__ == "__main__":
    main()
