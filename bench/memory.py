"""Memory: the worker's parent process against an import of torch, and films that are twelve times as long.

python bench/memory.py [--quick] [--rounds N] [--model MODEL]
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import Table, arguments, count, median, publish, seconds, spread
from workload import NIGHTREEL, Shape, Workload, clean_environment, make

from nightreel_queue.sqlite import SqliteQueue

SAMPLE_S = 0.02  # between two looks at a process; peaks are the kernel's own (VmHWM), so none is missed
PATIENCE_S = 900.0
LENGTHS_S = (10, 120)
FILM = Shape(videos=1, shots=0, shot_s=2.5, width=640, height=360)
IMPORTS = ("import torch", "from diffusers import FluxPipeline")
LAST_WORDS = "; print(open('/proc/self/status').read(), open('/proc/self/smaps_rollup').read())"


@dataclass(slots=True)
class Peak:
    """The most that one process ever held, in MiB."""

    rss: float = 0.0
    pss: float = 0.0
    """Its share of pages that several processes use; only as often as it was looked at."""

    def see(self, status: str, rollup: str) -> None:
        self.rss = max(self.rss, _mib(status, "VmHWM:"))
        self.pss = max(self.pss, _mib(rollup, "Pss:"))


@dataclass(slots=True)
class Watched:
    """One worker's life: the peaks of its processes by name, and when its first lease was seen."""

    peaks: dict[str, Peak] = field(default_factory=lambda: defaultdict(Peak))
    first_claim_s: float = 0.0
    """Since exec."""


def main() -> None:
    parser = arguments("Memory of the worker's processes.")
    parser.add_argument("--model", default="pocket", help="that the parent's worker serves (default: pocket)")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    imports = ("import numpy",) if asked.quick else IMPORTS
    lengths_s = (1, 3) if asked.quick else LENGTHS_S
    with tempfile.TemporaryDirectory() as name:
        tables = (parent(Path(name), asked.model, imports, rounds), films(Path(name), lengths_s, rounds))
    publish("memory", tables, asked)


# the parent against torch


def parent(folder: Path, model: str, imports: tuple[str, ...], rounds: int) -> Table:
    """A worker with one small job, and what it would cost at least if it imported torch."""
    work = make(folder / "parent", Shape(1, 1, 0.5, 320, 180), model)
    workers, others = [], defaultdict[str, list[tuple[float, Peak]]](list)
    for _ in range(rounds):
        workers.append(watch_worker(work, folder / "made"))
        for statement in imports:
            others[statement].append(_imported(statement))
    ours = [(each.first_claim_s, each.peaks["parent"]) for each in workers]
    return Table(
        title="The worker's parent process",
        columns=("process", "ready after", "largest RSS", "largest PSS", "RSS against nightreel"),
        rows=(
            _parent_row("`nightreel work`: from exec to its first claim", ours, ours),
            *(_parent_row(f"`python -c '{statement}'`: to its end", others[statement], ours) for statement in imports),
        ),
        notes=(_how_parent_is_read(model, [each.peaks["renderer"].rss for each in workers]),),
    )


def _how_parent_is_read(model: str, renderer_mib: list[float]) -> str:
    return (
        f"Medians of {count(renderer_mib)}, least and greatest in brackets. The parent's memory is that of its whole "
        f"life, one video with {model} included; its renderer, a process of its own, peaked at {median(renderer_mib):.0f} "
        "MiB. A claim is a lease in the queue, seen from outside."
    )


def _parent_row(how: str, runs: list[tuple[float, Peak]], ours: list[tuple[float, Peak]]) -> tuple[str, ...]:
    ratios = [peak.rss / own.rss for (_, peak), (_, own) in zip(runs, ours, strict=True)]
    rss, pss = [peak.rss for _, peak in runs], [peak.pss for _, peak in runs]
    return how, seconds([time_s for time_s, _ in runs]), _size(rss), _size(pss), spread(ratios)


def _imported(statement: str) -> tuple[float, Peak]:
    began = time.monotonic()
    run = subprocess.run(
        (sys.executable, "-c", statement + LAST_WORDS),
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    peak = Peak()
    peak.see(run.stdout, run.stdout)
    return time.monotonic() - began, peak


# long films


def films(folder: Path, lengths_s: tuple[int, ...], rounds: int) -> Table:
    """Films of different lengths through the same child and encoder."""
    runs: dict[int, list[Watched]] = {length_s: [] for length_s in lengths_s}
    for _ in range(rounds):
        for length_s in lengths_s:
            runs[length_s].append(watch_worker(_film(folder / f"{length_s}", length_s), folder / "made"))
    short, long = lengths_s
    names = ("renderer", "encoder", "parent", "decoder")
    return Table(
        title=f"Films of {short} s and of {long} s at {FILM.width}x{FILM.height}, test card",
        columns=("process", f"{short} s", f"{long} s", "ratio"),
        rows=tuple(_film_row(name, runs[short], runs[long]) for name in names),
        notes=(_how_films_are_read(rounds, long / short),),
    )


def _how_films_are_read(rounds: int, ratio: float) -> str:
    return (
        f"Largest RSS of each process; medians of {count(range(rounds))}, least and greatest in brackets. The longer film has "
        f"{ratio:g} times the frames, and as many times the keyframes. encoder: the ffmpeg that writes the film; "
        "decoder: the one that checks it."
    )


def _film(folder: Path, length_s: int) -> Workload:
    shots = max(1, round(length_s / FILM.shot_s))
    shape = Shape(1, shots, length_s / shots, FILM.width, FILM.height)
    return make(folder, shape, "card", "testcard")


def _film_row(name: str, short: list[Watched], long: list[Watched]) -> tuple[str, ...]:
    """Rounds in which a process was too quick to be seen do not count."""
    pairs = [(a.peaks[name].rss, b.peaks[name].rss) for a, b in zip(short, long, strict=True)]
    seen = [(a, b) for a, b in pairs if a and b]
    if not seen:
        return name, *3 * ("not seen",)
    return name, _size([a for a, _ in seen]), _size([b for _, b in seen]), spread([b / a for a, b in seen])


# watching


def watch_worker(work: Workload, folder: Path) -> Watched:
    """Publish the jobs, then watch one `nightreel work` from its exec to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = clean_environment(
        NIGHTREEL_STORE=str(folder), NIGHTREEL_MODELS=str(work.models), NIGHTREEL_MODEL=work.model
    )
    subprocess.run((*NIGHTREEL, "enqueue", str(work.manifest)), env=environment, check=True, capture_output=True)
    watched = Watched()
    with contextlib.closing(SqliteQueue(folder / ".nightreel" / "queue.db")) as queue:
        began = time.monotonic()
        worker = subprocess.Popen(
            (*NIGHTREEL, "work"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _follow(worker, watched, lambda: queue.backlog().leased > 0, began)
    if worker.returncode != 0:
        raise SystemExit(f"nightreel work ended with exit code {worker.returncode}")
    return watched


def _follow(worker: subprocess.Popen[bytes], watched: Watched, has_claimed: Callable[[], bool], began: float) -> None:
    while worker.poll() is None:
        if not watched.first_claim_s and has_claimed():
            watched.first_claim_s = time.monotonic() - began
        for name, pid in _family(worker.pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                folder = Path(f"/proc/{pid}")
                watched.peaks[name].see((folder / "status").read_text(), (folder / "smaps_rollup").read_text())
        time.sleep(SAMPLE_S)
        if time.monotonic() - began > PATIENCE_S:
            worker.kill()


def _family(worker: int) -> Iterator[tuple[str, int]]:
    """The worker and its descendants: parent, renderer, the encoder below that, the decoder below the parent."""
    yield "parent", worker
    for pid in _children(worker):
        line = _command(pid)
        if "nightreel_worker.child" in line:
            yield "renderer", pid
            yield from (("encoder", encoder) for encoder in _children(pid) if "rawvideo" in _command(encoder))
        elif "framehash" in line:
            yield "decoder", pid


def _children(pid: int) -> list[int]:
    """Of all threads; between fork and exec a child still looks like its parent, and its command says so."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _mib(text: str, name: str) -> float:
    """A figure of /proc, which are in KiB."""
    line = next((line for line in text.splitlines() if line.strip().startswith(name)), f"{name} 0 kB")
    return int(line.split()[1]) / 1024


def _size(values: list[float]) -> str:
    return f"{median(values):.0f} MiB"


if __name__ == "__main__":
    main()
