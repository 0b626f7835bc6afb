"""What the cloud half costs, on Google's Pub/Sub emulator and a fake-gcs-server, which this script starts itself.

    python bench/cloud.py [--quick] [--rounds N] [--only NAME]

An emulator is not the cloud: it answers within a millisecond or two, on the cores that the workers need. What is
measured is what Nightreel adds to it, beside a baseline on the same emulators or beside SQLite and a folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import bare_queue
from common import Table, arguments, count, median, publish, spread
from emulators import CLOUD, LOCAL, Place, Worker, emulators, in_the_cloud, on_this_machine, when
from handover import claim, sigterm
from resources import gpu, memory
from soak import tiny_job

from nightreel_queue.base import Message

IDLE_S = 3  # that a worker waits at the end of a queue


def main() -> None:
    parser = arguments("The cloud half, on emulators.")
    parser.add_argument("--only", choices=tuple(MEASURES), help="one of the measurements (default: all)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulators(Path(folder)):
        for name in [asked.only] if asked.only else MEASURES:
            home = Path(folder).resolve() / name
            home.mkdir()
            publish(f"cloud-{name}", MEASURES[name](home, asked), asked)


def _rounds(asked: argparse.Namespace, default: int = 3) -> int:
    return int(asked.rounds or (1 if asked.quick else default))


# jobs a second


def jobs(folder: Path, asked: argparse.Namespace) -> tuple[Table, ...]:
    """Tiny jobs through whole workers, and messages through the queue alone."""
    many, messages, sizes = (12, 24, (1,)) if asked.quick else (300, 800, (1, 4))
    rounds = _rounds(asked)
    return _whole_jobs(folder, many, sizes, rounds), _bare_messages(messages, sizes, rounds)


def _whole_jobs(folder: Path, many: int, sizes: Sequence[int], rounds: int) -> Table:
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for workers in sizes:
            for name, place in ((CLOUD, in_the_cloud()), (LOCAL, on_this_machine(folder))):
                rates.setdefault((name, workers), []).append(_rate(place, folder, workers, many))
    rows = [
        (f"{workers} on {name}", spread(each, 1), spread(_each(each, rates[LOCAL, workers])))
        for (name, workers), each in rates.items()
    ]
    return Table(
        f"{many} tiny jobs through `nightreel work`",
        ("workers", "jobs a second", f"against {LOCAL}"),
        tuple(rows),
        (
            (
                "Test cards of 64x64, half a second each: keyframe, film, verification, poster, receipt and attempt are "
                "made and stored for every job, so that Python, ffmpeg, both emulators and all workers share the cores. "
                "Counted from when the last of the workers has ended its first job, to the end of the last job. Medians "
                f"of {count(range(rounds))}, least and greatest in brackets; ratios within each round."
            ),
        ),
    )


def _rate(place: Place, folder: Path, workers: int, many: int) -> float:
    """Jobs a second while all workers work."""
    place.publish([tiny_job(number) for number in range(many)])
    running = [Worker.start(place, folder, model="testcard", idle_timeout_s=IDLE_S) for _ in range(workers)]
    for worker in running:
        worker.finish()
    ends = [[when(line) for line in worker.read("job_ended")] for worker in running]
    assert sum(map(len, ends)) == many, f"{sum(map(len, ends))} jobs ended, of {many}"
    began = max(min(each, default=0.0) for each in ends)
    last = max(max(each, default=0.0) for each in ends)
    counted = sum(end > began for each in ends for end in each)
    return counted / (last - began) if counted else 0.0


def _bare_messages(messages: int, sizes: Sequence[int], rounds: int) -> Table:
    hows = {
        "PubSubQueue: pull, extend, ack": bare_queue.ours,
        "Google's client: pull(1), acknowledge": bare_queue.google_two_calls,
        "Google's client: the same five calls as PubSubQueue": bare_queue.google_five_calls,
    }
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for processes in sizes:
            for name, how in hows.items():
                place = in_the_cloud()
                bare_queue.publish_ours(place.queue_url, bare_queue.messages(messages + processes))
                rate = bare_queue.rate(how, place.queue_url, processes, messages)
                rates.setdefault((name, processes), []).append(rate)
    first = next(iter(hows))
    rows = [
        (name, str(processes), spread(each, 0), spread(_each(rates[first, processes], each)))
        for (name, processes), each in rates.items()
    ]
    return Table(
        f"{messages} messages through the queue alone",
        ("how", "processes", "messages a second", "PubSubQueue against it"),
        tuple(rows),
        (
            (
                "Nothing is done with a message. PubSubQueue looks for an urgent message before every pull, and begins a "
                "lease of its own after it: with `extend` that makes five calls where the shortest way has two. Above 1 "
                f"PubSubQueue is faster. Medians of {count(range(rounds))}, least and greatest in brackets."
            ),
        ),
    )


def _each(ours: list[float], others: list[float]) -> list[float]:
    return [own / other for own, other in zip(ours, others, strict=True) if other] or [0.0]


# publish


def publishing(folder: Path, asked: argparse.Namespace) -> tuple[Table, ...]:
    """The same bytes by our queue and by Google's batching publisher, in turn."""
    many, rounds = (50 if asked.quick else 10_000), _rounds(asked, 5)
    hows: dict[str, Callable[[str, list[Message]], float]] = {
        "PubSubQueue.publish": bare_queue.publish_ours,
        "Google's PublisherClient, default BatchSettings (100 a call)": lambda url, waiting: bare_queue.publish_google(
            url, waiting, 100
        ),
        "Google's PublisherClient, 1,000 a call": lambda url, waiting: bare_queue.publish_google(url, waiting, 1000),
    }
    waiting = bare_queue.messages(many)
    times: dict[str, list[float]] = {name: [] for name in hows}
    for measured in range(rounds + 1):
        for name, how in hows.items():
            seconds = how(in_the_cloud().queue_url, waiting)
            if measured:  # the first round warms the emulator up
                times[name].append(seconds)
    ours = times["PubSubQueue.publish"]
    rows = [
        (name, spread(each, 3), f"{many / median(each):,.0f}", spread(_each(each, ours)))
        for name, each in times.items()
    ]
    return (
        Table(
            f"Publishing {many:,} jobs",
            ("how", "s", "messages a second", "PubSubQueue's advantage"),
            tuple(rows),
            (
                "Above 1 PubSubQueue is faster. Each publishes the same bytes and attributes to a new topic and waits "
                f"until all is accepted. Medians of {count(range(rounds))} after one that does not count, least and "
                "greatest in brackets; ratios within each round: "
                + "; ".join(
                    ", ".join(f"{ratio:.2f}" for ratio in _each(each, ours)) for each in list(times.values())[1:]
                )
                + ".",
            ),
        ),
    )


MEASURES: dict[str, Callable[[Path, argparse.Namespace], tuple[Table, ...]]] = {
    "jobs": jobs,
    "publish": publishing,
    "claim": lambda folder, asked: claim(folder, 2 if asked.quick else 7, _rounds(asked)),
    "sigterm": lambda folder, asked: sigterm(folder, _rounds(asked, 7)),
    "memory": lambda folder, asked: memory(folder, (5, 10) if asked.quick else (100, 500, 1000, 1500, 2000)),
    "gpu": lambda folder, asked: gpu(folder, ((0.2, 4),) if asked.quick else ((1.0, 30), (5.0, 8)), _rounds(asked)),
}


if __name__ == "__main__":
    main()
