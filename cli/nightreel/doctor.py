"""doctor: is this machine, and all that it leads to, as it must be? Each line says so, or what to do."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from nightreel_pipelines.encode import ffmpeg
from nightreel_pipelines.errors import PipelineError
from nightreel_pipelines.models import load_models, no_model
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import QueueError, QueueUnavailable
from nightreel_queue.topics import open_topic
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError
from nightreel_worker.errors import BadPrice
from nightreel_worker.prices import machine_price
from nightreel_worker.settings import Settings

from .common import EXIT_UNAVAILABLE, JsonFlag, QueueFlag, StoreFlag, remotes, settings_with

MAX_SKEW_S = 5.0  # between our clock and the store's; leases and retry times are wall-clock times
ROOM_BYTES = 2_000_000_000  # below this a word of warning; what a batch needs hangs on its videos
PRICES_MAX_DAYS = 180
PROGRAM_S = 120.0  # importing torch from a cold disk takes most of a minute
_PROBE = ".nightreel/doctor.json"
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
found = torch.cuda.get_device_properties(0) if cuda else None
print(json.dumps({"version": torch.__version__, "gpu": found.name if found else "",
                  "bytes": found.total_memory if found else 0}))
"""

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    check: str
    state: State
    message: str


Check = Callable[[Settings], Iterator[tuple[State, str]]]


def doctor(queue: QueueFlag = None, store: StoreFlag = None, as_json: JsonFlag = False) -> None:
    """Look whether this machine, queue, store and clock are as they must be, and say what to do about what is not."""
    settings = settings_with(queue=queue, store=store)
    findings = list(_examine(settings))
    sick = any(finding.state == "fail" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not sick, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print(f"{finding.state:4}  {finding.check}: {finding.message}")
    if sick:
        raise typer.Exit(EXIT_UNAVAILABLE)


def _examine(settings: Settings) -> Iterator[Finding]:
    """A machine without torch only publishes: what rendering needs is then worth a word, and no fault."""
    publishes_only = find_spec("torch") is None
    rendering: dict[str, Check] = {
        "torch": _torch, "ffmpeg": _ffmpeg, "fonts": _fonts, "weights": _weights, "scratch": _scratch,
        "prices": _prices, "servers": _elsewhere,
    }  # fmt: skip
    others: dict[str, Check] = {"queue": _queue, "store": _store}
    if settings.results_topic or settings.notify_topics:
        others["topics"] = _topics
    for name, check in ({"python": _python} | rendering | others).items():
        for state, message in _findings(check, settings):
            lenient = publishes_only and name in rendering and state == "fail"
            yield Finding(name, "warn" if lenient else state, message)


def _findings(check: Check, settings: Settings) -> list[tuple[State, str]]:
    try:
        return list(check(settings))
    except (QueueError, StoreError, PipelineError, BadPrice, OSError) as exc:
        return [("fail", str(exc))]


def _python(_: Settings) -> Iterator[tuple[State, str]]:
    version = sys.version.split()[0]
    if (3, 11) <= sys.version_info < (3, 14):
        yield "ok", version
    else:
        yield "fail", f"{version}; Nightreel is tested with 3.11 to 3.13: make its environment with one of these"


def _torch(_: Settings) -> Iterator[tuple[State, str]]:
    """In a process of its own: this one never imports torch."""
    if find_spec("torch") is None:
        yield "warn", "not installed, so this machine publishes and does not render: pip install 'nightreel[cpu]'"
        return
    said = _run(sys.executable, "-c", _TORCH)
    if said.returncode != 0:
        last = (said.stderr.strip().splitlines() or [f"exit code {said.returncode}"])[-1]
        yield "fail", f"cannot be imported ({last}): run scripts/install, or install requirements.txt anew"
        return
    found = json.loads(said.stdout.splitlines()[-1])
    driver = _driver()
    if found["gpu"]:
        size = f"{found['bytes'] / 2**30:.1f} GiB"
        yield "ok", f"{found['version']} on {found['gpu']}, {size}{f', driver {driver}' if driver else ''}"
    elif driver:
        yield (
            "warn",
            (
                f"{found['version']} sees no GPU, though there is one (driver {driver}): install requirements.txt, whose "
                "torch is built for CUDA"
            ),
        )
    else:
        yield "ok", f"{found['version']} on the CPU: enough for pocket"


def _driver() -> str:
    """Version of the NVIDIA driver; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return ""
    said = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.stdout.strip().splitlines()[0] if said.returncode == 0 and said.stdout.strip() else ""


def _ffmpeg(_: Settings) -> Iterator[tuple[State, str]]:
    program = ffmpeg()
    said = _run(program, "-hide_banner", "-encoders")
    names = {line.split()[1] for line in said.stdout.splitlines() if len(line.split()) > 1}
    if missing := [name for name in ("libx264", "aac") if name not in names]:
        yield (
            "fail",
            f"{program} lacks {' and '.join(missing)}: unset IMAGEIO_FFMPEG_EXE, or name an ffmpeg that has it",
        )
    else:
        yield "ok", f"{program} with libx264 and aac"


def _fonts(_: Settings) -> Iterator[tuple[State, str]]:
    try:
        from nightreel_pipelines.fonts import FOLDERS, SUFFIXES
    except ImportError:
        yield "warn", "previews need Pillow: pip install 'nightreel[cpu]'"
        return
    found = (path for folder in FOLDERS if folder.is_dir() for path in folder.rglob("*"))
    if first := next((path for path in found if path.suffix.lower() in SUFFIXES), None):
        yield "ok", f"there are some in {first.parent}"
    else:
        yield (
            "warn",
            (
                "none but Pillow's own, which has the letters of English: for previews in other languages install one, such "
                "as fonts-dejavu or fonts-noto"
            ),
        )


def _weights(settings: Settings) -> Iterator[tuple[State, str]]:
    models = load_models(settings.models)
    if settings.model not in models:
        yield "fail", f"NIGHTREEL_MODEL: {no_model(settings.model, models)}"
    elif models[settings.model].source == "flux":
        yield "ok", f"of {settings.model} in {models[settings.model].folder(settings.weights)}"
    else:
        yield "ok", f"{settings.model} needs none that are known here"


def _elsewhere(settings: Settings) -> Iterator[tuple[State, str]]:
    """Ask the servers of the worker's own model, when it has some."""
    spec = load_models(settings.models).get(settings.model)
    source = remotes().of(spec) if spec else None
    yield from source.health() if source else ()


def _scratch(settings: Settings) -> Iterator[tuple[State, str]]:
    folder = settings.scratch or Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
    except OSError as exc:
        yield "fail", f"{folder} cannot be written to ({exc.strerror}): set NIGHTREEL_SCRATCH to a folder that can"
        return
    free_bytes = shutil.disk_usage(folder).free
    room = f"{folder} has {free_bytes / 1e9:.1f} GB free"
    if free_bytes < ROOM_BYTES:
        yield "warn", f"{room}: make room, or set NIGHTREEL_SCRATCH to a folder with {ROOM_BYTES / 1e9:g} GB"
    else:
        yield "ok", room


def _prices(settings: Settings) -> Iterator[tuple[State, str]]:
    price = machine_price(settings.price, settings.prices)
    rate = f"{price.name}, {price.machine_usd_per_hour:.2f} USD an hour"
    if price.dated and (days := (dt.datetime.now(dt.UTC).date() - price.dated).days) > PRICES_MAX_DAYS:
        yield "warn", f"{rate}, by a list that is {days} days old: look it up, and put your own into NIGHTREEL_PRICES"
    else:
        yield "ok", rate


def _queue(settings: Settings) -> Iterator[tuple[State, str]]:
    if settings.queue_url.startswith("pubsub://"):
        from nightreel_queue.pubsub_setup import check

        if complaints := check(settings.queue_url):
            yield from (("fail", complaint) for complaint in complaints)
            return
    with contextlib.closing(open_queue(settings.queue_url)) as queue:
        backlog = queue.backlog()
    yield "ok", f"{settings.queue_url}, {backlog.ready} ready"


def _store(settings: Settings) -> Iterator[tuple[State, str]]:
    """Write, and read what was written; tells the store's clock by when it says that it was."""
    store = open_store(settings.store)
    found = store.head(_PROBE)
    asked_at = time.time()
    entry = store.put(_PROBE, b"{}\n", generation=found.generation if found else 0, content_type="application/json")
    if store.get(_PROBE)[0] != b"{}\n":
        yield "fail", f"{store.url(_PROBE)} does not give back what was written: look at what lies between"
    skew_s = entry.put_at.timestamp() - asked_at if entry.put_at else 0.0
    if abs(skew_s) > MAX_SKEW_S:
        yield "fail", f"its clock is {skew_s:+.0f} s from this machine's: set the time (NTP)"
    else:
        yield "ok", f"{settings.store} can be written and read, its clock is this machine's"


def _topics(settings: Settings) -> Iterator[tuple[State, str]]:
    for url in dict.fromkeys([*settings.listed("results_topic"), *settings.listed("notify_topics")]):
        try:
            with contextlib.closing(open_topic(url)) as topic:
                topic.check()
        except QueueUnavailable as exc:
            yield "fail", str(exc)
        else:
            yield "ok", url


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAM_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {PROGRAM_S:.0f} s")
