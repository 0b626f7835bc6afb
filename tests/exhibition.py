"""A store with something in it of everything that the console shows."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

from finished import end
from house import House, job
from PIL import Image
from visitor import Visitor

from nightreel_dispatcher.board import BackendState, Boards, Health
from nightreel_dispatcher.breaker import Breaker
from nightreel_queue.job import Job
from nightreel_storage.attempts import Attempts
from nightreel_storage.receipts import Cost, OutputFile, Receipt, Receipts, Video, utc_now
from nightreel_worker.report import RunReport, run_name

SCRIPT = "<script>alert('a boat')</script>"
BACKENDS = """
[studio]
launcher = "process"
model = "testcard"
health = "http://127.0.0.1:9/"
retries = 2

[cloud]
launcher = "process"
model = "faulty"
price = "cloudrun-l4"
max_workers = 3
health = "none"

[spare]
launcher = "none"
model = "flux-schnell"
price = "36.0"
health = "none"
"""
FILM = b"0123456789" * 100


def fill(house: House) -> dict[str, Job]:
    """A batch `b`: done, failed for two reasons, cancelled, started and waiting jobs; a run at work, one that has ended."""
    names = ["made", "made-too", "dear", "dearer", "lost", "off", "under-way", "waits"]
    jobs = {name: job(name, SCRIPT if name == "made" else f"a picture of {name}") for name in names}
    house.enqueue(*jobs.values())
    run = new_run(house, "running")
    ended = new_run(house, "ended", done=2, failed=3)
    for name, hue in (("made", "teal"), ("made-too", "orange")):
        finish(house, jobs[name], hue, ended)
    end(house.store, jobs["dear"], "failed", "b/dear: would take 12.5 s; 10 s are allowed")
    end(house.store, jobs["dearer"], "failed", "b/dearer: would take 99 s; 10 s are allowed")
    end(house.store, jobs["lost"], "failed", f"there is no {SCRIPT}")
    end(house.store, jobs["off"], "cancelled", "cancelled by hand")
    Attempts(house.store).open("b", "under-way", 1, run, utc_now())
    return jobs


def name_backends(house: House) -> Path:
    """A file of three: `studio`, which does not answer and is left alone; `cloud`, preferred and measured; `spare`."""
    now = utc_now()
    path = house.folder / "backends.toml"
    path.write_text(BACKENDS)
    away = Health(
        ok=False, words="http://127.0.0.1:9/: Connection refused", latency_s=0.002, at=now, since=now, missed=3
    )
    failed = "its worker failed: no weights"
    until_s = now.timestamp() + 600
    states = {
        "studio": BackendState(
            health=away, breaker=Breaker(failures=3, opened=1, open_until=until_s, words="no answer")
        ),
        "cloud": BackendState(health=Health(latency_s=0.082, at=now, since=now), running=1),
        "spare": BackendState(
            health=Health(latency_s=0.011, at=now, since=now), breaker=Breaker(failures=1, words=failed)
        ),
    }
    boards = Boards(lambda: house.store)
    boards.change(lambda board: board.model_copy(update={"backends": states}), now)
    boards.prefer("cloud", "mary", now)
    told = {
        "run": f"{now:%Y%m%dT%H%M%S}-cloud",
        "backend": "cloud",
        "model": "faulty",
        "started_at": now,
        "ended_at": now,
    }
    report = RunReport.model_validate(
        {**told, "why": "the queue is empty", "unavailable": False, "done": 4, "seconds": 60.0, "usd": 0.48}
    )
    house.store.put(run_name(report.run), report.to_bytes())
    return path


def new_run(house: House, state: str, *, age_s: float = 5.0, done: int = 0, failed: int = 0) -> str:
    """A run's report; returns its id."""
    now = utc_now() - dt.timedelta(seconds=age_s)
    started = now - dt.timedelta(seconds=100)
    name = f"{started:%Y%m%dT%H%M%S}-{state}"
    report = RunReport.model_validate(
        {
            "run": name, "state": state, "started_at": started, "ended_at": now, "why": "the queue is empty",
            "unavailable": False, "done": done, "failed": failed, "keyframes": 3, "seconds": 100.0, "price": "cloudrun-l4",
            "stages_s": {"start": 2.0, "load": 18.0, "render": 70.0, "idle": 10.0},
            "usd": 0.04, "jobs_usd": 0.03, "shared_usd": 0.01,
        }
    )  # fmt: skip
    house.store.put(run_name(name), report.to_bytes())
    return name


def finish(house: House, made: Job, hue: str, run: str = "") -> None:
    """Video, a real poster, and the receipt."""
    picture = io.BytesIO()
    Image.new("RGB", (1280, 720), hue).save(picture, "JPEG")
    name = f"{made.batch}/{made.id}"
    files = [
        house.store.put(f"{name}.mp4", FILM, content_type="video/mp4"),
        house.store.put(f"{name}.jpg", picture.getvalue(), content_type="image/jpeg"),
    ]
    receipt = Receipt(
        state="done",
        batch=str(made.batch),
        job=str(made.id),
        fingerprint=made.fingerprint,
        run=run,
        outputs=tuple(
            OutputFile(name=f.name, sha256=f.sha256, size_bytes=f.size_bytes, content_type=f.content_type)
            for f in files
        ),
        video=Video(width=64, height=64, fps=8, frames=4, duration_s=0.5, digest="d"),
        cost=Cost(seconds=3.0, usd=0.0012, price="cloudrun-l4"),
        ended_at=utc_now(),
    )
    Receipts(house.store).commit(receipt, None)


def visit(house: House, **settings: Any) -> Visitor:
    """Somebody who looks at what a house holds."""
    known: dict[str, Any] = {"models": house.folder / "models.toml", "model": "faulty"}
    return Visitor(house.places.store_url, queue=house.places.queue_url, **(known | settings))
