"""work: drain a queue; and what `render` shares with it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nightreel_pipelines.models import ModelSpec, load_models, no_model
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.connect import open_store
from nightreel_worker.events import Event
from nightreel_worker.logs import configure
from nightreel_worker.report import RunReport
from nightreel_worker.settings import Settings

from .common import (
    EXIT_UNAVAILABLE,
    ModelFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    remotes,
    settings_with,
)

if TYPE_CHECKING:
    from nightreel_worker.worker import Worker

LOOK_S = 0.2  # between two looks whether the budget is spent
_PARTS = ("numpy", "cv2", "PIL", "imageio_ffmpeg")  # of the [cpu] and [gpu] extras; torch is looked for by the renderer


def work(
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds to wait for more work before leaving an empty queue; without it, the idle rule decides."
        ),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Most US dollars that this run may cost, at NIGHTREEL_PRICE.")
    ] = None,
    max_runtime: Annotated[float | None, typer.Option(help="Seconds that this run may last.")] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs that this run may end, made or failed.")] = None,
    wait_for_others: Annotated[
        bool,
        typer.Option("--wait-for-others", help="Stay until jobs that other workers hold, or held, have ended too."),
    ] = False,
) -> None:
    """Render what waits in a queue, then exit. Exit code 3: queue, store or renderer could not be had."""
    settings = settings_with(
        queue=queue,
        store=store,
        model=model,
        idle_timeout_s=idle_timeout,
        max_cost_usd=max_cost,
        max_runtime_s=max_runtime,
        max_jobs=max_jobs,
    )
    configure(settings)
    with errors_in_one_line():
        report = drain(settings, lambda event: None, wait_for_others=wait_for_others)
    if report.unavailable:
        complain(report.why)
        raise typer.Exit(EXIT_UNAVAILABLE)


def drain(settings: Settings, watch: Callable[[Event], None], *, wait_for_others: bool) -> RunReport:
    """Run one worker until the queue is empty or a signal asks it to leave."""
    check_installed()
    models, elsewhere = check_model(settings), remotes()
    elsewhere.of(models[settings.model])  # a workflow that cannot be used is told before anything is claimed
    from nightreel_worker.worker import Worker  # numpy and friends: not for those who only publish

    store = open_store(settings.store)
    with contextlib.closing(open_queue(settings.queue_url)) as jobs:
        worker = Worker(jobs, store, models, settings, remotes=elsewhere, watch=watch, wait_for_others=wait_for_others)
        with _stopped_in_time(worker, settings.drain_s):
            return worker.run()


def check_installed() -> None:
    """Exit with the mend when this is the light client."""
    from importlib.util import find_spec

    if missing := [name for name in _PARTS if find_spec(name) is None]:
        complain(f"rendering needs {', '.join(missing)}: pip install 'nightreel[cpu]' (or [gpu])")
        raise typer.Exit(EXIT_UNAVAILABLE)


def check_model(settings: Settings) -> dict[str, ModelSpec]:
    """The models there are. A worker that cannot serve its own one does not start: raises InvalidJob."""
    models = {name: spec.tuned(**settings.tuning) for name, spec in load_models(settings.models).items()}
    if settings.model not in models:
        raise InvalidJob([Problem(no_model(settings.model, models), "NIGHTREEL_MODEL")])
    return models


@contextlib.contextmanager
def _stopped_in_time(worker: Worker, drain_s: float) -> Iterator[None]:
    """SIGTERM, SIGINT and an end of its budget ask the worker to leave; what signals did before is restored afterwards.

    The process is gone `drain_s` later, whatever keeps it, be it its last words to a queue that does not answer.
    """
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whose `put` is safe in a signal handler
    threading.Thread(target=_see_it_off, args=(asked, worker, drain_s), name="last call", daemon=True).start()

    def leave(number: int, _: FrameType | None) -> None:
        worker.stop(f"{signal.Signals(number).name} asked it to leave")
        asked.put(True)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        asked.put(False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _see_it_off(asked: queue.SimpleQueue[bool], worker: Worker, drain_s: float) -> None:
    if _has_to_leave(asked, worker):
        time.sleep(drain_s)
        complain("queue or store did not answer in time: what was not given back comes back when its lease ends")
        os._exit(EXIT_UNAVAILABLE)


def _has_to_leave(asked: queue.SimpleQueue[bool], worker: Worker) -> bool:
    """Wait until the run has to leave (True), or has left."""
    while True:
        with contextlib.suppress(queue.Empty):
            return asked.get(timeout=LOOK_S)
        if why := worker.budget.spent():
            worker.stop(why)
            return True
