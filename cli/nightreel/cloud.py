"""pubsub setup, gcs setup: make what a queue or a store needs on Google Cloud; doctor: is everything there?"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from nightreel_queue.connect import open_queue
from nightreel_queue.errors import QueueError, QueueUnavailable
from nightreel_queue.topics import open_topic
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError, StoreUnavailable
from nightreel_worker.settings import Settings

from .common import EXIT_UNAVAILABLE, QueueFlag, StoreFlag, errors_in_one_line, settings_with

MAX_SKEW_S = 5.0  # between our clock and the store's; leases and retry times are wall-clock times
SMI_S = 20.0  # that nvidia-smi may take; the first time it starts the driver
_PROBE = ".nightreel/doctor.json"

pubsub = typer.Typer(help="A queue on Google Pub/Sub.", no_args_is_help=True)
gcs = typer.Typer(help="A store on Google Cloud Storage.", no_args_is_help=True)


@pubsub.command("setup")
def pubsub_setup(
    address: Annotated[str, typer.Argument(help="pubsub://PROJECT/SUBSCRIPTION", show_default=False)],
    results: Annotated[
        str | None, typer.Option("--results", help="Make a topic for results too, and a subscription, of this name.")
    ] = None,
) -> None:
    """Make a queue's topics and subscriptions, and mend their settings; twice does nothing."""
    with errors_in_one_line():
        try:
            from nightreel_queue.pubsub_setup import setup, setup_results
        except ImportError as exc:
            raise QueueUnavailable("Pub/Sub needs Google's client: pip install 'nightreel[gcp]'") from exc
        done = setup(address) + (setup_results(address, results) if results else [])
    print("\n".join(done) or f"{address}: nothing to do")


@gcs.command("setup")
def gcs_setup(
    address: Annotated[str, typer.Argument(help="gs://BUCKET/PREFIX", show_default=False)],
    location: Annotated[
        str, typer.Option("--location", help="Where a bucket that is missing is made.")
    ] = "us-central1",
    project: Annotated[str | None, typer.Option("--project", help="Whose a bucket that is missing becomes.")] = None,
) -> None:
    """Make a store's bucket with its lifecycle rules, or add these to a bucket that is there; twice does nothing."""
    with errors_in_one_line():
        try:
            from nightreel_storage.gcs_setup import setup_bucket
        except ImportError as exc:
            raise StoreUnavailable("Cloud Storage needs Google's client: pip install 'nightreel[gcp]'") from exc
        setup_bucket(address, location, project=project)
    print(f"{address}: ready")


def doctor(queue: QueueFlag = None, store: StoreFlag = None) -> None:
    """Look whether queue, store, clock and topics are as they must be, and say what to do about what is not."""
    settings = settings_with(queue=queue, store=store)
    checks: dict[str, Callable[[Settings], Iterator[str]]] = {
        "Python": _python,
        "queue": _queue,
        "store": _store,
    } | ({"topics": _topics} if settings.results_topic or settings.notify_topics else {})
    for gpu in _gpus():
        print(f"GPU: {gpu}")
    sick = False
    for name, check in checks.items():
        try:
            complaints = list(check(settings))
        except (QueueError, StoreError) as exc:
            complaints = [str(exc)]
        sick = sick or bool(complaints)
        for complaint in complaints or ["fine"]:
            print(f"{name}: {complaint}")
    if sick:
        raise typer.Exit(EXIT_UNAVAILABLE)


def _python(_: Settings) -> Iterator[str]:
    if not (3, 11) <= sys.version_info < (3, 14):
        yield f"{sys.version.split()[0]}; Nightreel is tested with 3.11 to 3.13"


def _gpus() -> list[str]:
    """Name, driver and memory of each NVIDIA GPU that this machine shows; none without the driver's own program."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if result.returncode != 0:
        return [f"there is none that can be used: {result.stdout.strip() or result.stderr.strip()}"]
    rows = [line.split(", ") for line in result.stdout.splitlines()]
    return [f"{name}, driver {driver}, {memory}" for name, driver, memory in rows]


def _queue(settings: Settings) -> Iterator[str]:
    if settings.queue_url.startswith("pubsub://"):
        from nightreel_queue.pubsub_setup import check

        yield from check(settings.queue_url)
    with contextlib.closing(open_queue(settings.queue_url)) as queue:
        queue.backlog()


def _topics(settings: Settings) -> Iterator[str]:
    for url in dict.fromkeys([*settings.listed("results_topic"), *settings.listed("notify_topics")]):
        try:
            with contextlib.closing(open_topic(url)) as topic:
                topic.check()
        except QueueUnavailable as exc:
            yield str(exc)


def _store(settings: Settings) -> Iterator[str]:
    """Write, and read what was written; a bucket's generations are its clock, in microseconds."""
    store = open_store(settings.store)
    found = store.head(_PROBE)
    asked_at = time.time()
    entry = store.put(_PROBE, b"{}\n", generation=found.generation if found else 0, content_type="application/json")
    if store.get(_PROBE)[0] != b"{}\n":
        yield f"{store.url(_PROBE)} does not give back what was written"
    if settings.store.startswith("gs://") and abs(skew_s := entry.generation / 1e6 - asked_at) > MAX_SKEW_S:
        yield f"its clock is {skew_s:+.0f} s from this machine's: set the time (NTP)"
