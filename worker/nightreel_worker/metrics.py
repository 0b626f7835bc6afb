"""The metrics of a run: each is read from the run's own figures when somebody asks, so that work pays nothing for them.

Names follow OpenTelemetry's semantic conventions; `hw.gpu.*` are theirs. No attribute grows with the number of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nightreel_queue.base import Backlog

from .gpus import Gpu
from .report import RunReport

Point = tuple[float, Mapping[str, str]]
"""A value and its attributes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What metrics are made of, as of one moment."""

    report: RunReport
    drawn: int
    """Keyframes that were rendered, those of jobs under way included."""
    backlog: Backlog
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, and how to read it."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    """As UCUM has it; what is counted in braces."""
    meaning: str
    points: Callable[[Reading], Iterator[Point]]


def _jobs(now: Reading) -> Iterator[Point]:
    for state in ("done", "failed", "cancelled"):
        yield getattr(now.report, state), {"state": state}


def _deliveries(now: Reading) -> Iterator[Point]:
    for fate in ("earlier", "rejected", "returned"):
        yield getattr(now.report, fate), {"fate": fate}


def _keyframes(now: Reading) -> Iterator[Point]:
    yield now.drawn, {"origin": "rendered"}
    yield now.report.reused, {"origin": "store"}


def _queue(now: Reading) -> Iterator[Point]:
    for state in ("ready", "delayed", "leased", "dead"):
        yield getattr(now.backlog, state), {"state": state}


def _notices(now: Reading) -> Iterator[Point]:
    yield now.report.notified, {"fate": "taken"}
    yield now.report.not_notified, {"fate": "given_up"}


def _stages(now: Reading) -> Iterator[Point]:
    for stage, seconds in now.report.stages_s.items():
        yield seconds, {"stage": stage}


def _cold_start(now: Reading) -> Iterator[Point]:
    """As `history.cold_start_s` reckons it; nothing before the first keyframe is begun."""
    spent = now.report.stages_s
    if "render" in spent:
        renderers = 1 + now.report.renderer_restarts
        yield spent.get("start", 0.0) + (spent.get("import", 0.0) + spent.get("load", 0.0)) / renderers, {}


def _gpu(value: Callable[[Gpu], float | None]) -> Callable[[Reading], Iterator[Point]]:
    def points(now: Reading) -> Iterator[Point]:
        for gpu in now.gpus:
            if (found := value(gpu)) is not None:
                yield found, {"hw.id": gpu.id, "hw.name": gpu.name}

    return points


METRICS = (
    Metric("nightreel.jobs", "counter", "{job}", "jobs that this run ended, by state", _jobs),
    Metric("nightreel.deliveries", "counter", "{message}", "deliveries that made no video, by what became of them", _deliveries),
    Metric("nightreel.keyframes", "counter", "{keyframe}", "pictures, by where they came from", _keyframes),
    Metric("nightreel.queue.messages", "gauge", "{message}", "messages, by state; on Pub/Sub those of this worker alone", _queue),
    Metric("nightreel.run.cost", "counter", "{USD}", "US dollars that the run has cost so far", lambda now: iter([(now.report.usd, {})])),
    Metric("nightreel.run.time", "counter", "s", "seconds of the run, by stage; each second once", _stages),
    Metric("nightreel.run.cold_start", "gauge", "s", "seconds from the start until it could render", _cold_start),
    Metric(
        "nightreel.renderer.restarts",
        "counter",
        "{restart}",
        "renderers that died and were replaced",
        lambda now: iter([(now.report.renderer_restarts, {})]),
    ),
    Metric("nightreel.notices", "counter", "{notice}", "notices of ended jobs, by what became of them", _notices),
    Metric("hw.gpu.utilization", "gauge", "1", "share of time in which something ran on the GPU", _gpu(lambda gpu: gpu.busy)),
    Metric("hw.gpu.memory.usage", "gauge", "By", "GPU memory in use", _gpu(lambda gpu: gpu.used_bytes)),
    Metric("hw.gpu.memory.limit", "gauge", "By", "GPU memory that there is", _gpu(lambda gpu: gpu.total_bytes)),
)  # fmt: skip
