"""What a batch will take before anything of it runs: keyframes, seconds, dollars, storage, by job and in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.keyframes import Keyframes

from .estimate import Estimate, Rates, pipelined_s
from .history import History
from .prices import Price

UNKNOWN = Description("", "", "", "")


@dataclass(frozen=True, slots=True)
class JobForecast:
    """One job of a batch, made after those before it."""

    job: Job
    estimate: Estimate
    there: int
    """Keyframes that the store has, or an earlier job of the batch makes."""
    seconds: float
    """Its share of the worker's time."""
    usd: float
    over: str
    """Which of its own limits it is over, and by what; empty when it is not."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A whole batch on one worker."""

    jobs: Sequence[JobForecast]
    there: int
    """Videos that the store has already; they are none of `jobs`."""
    start_s: float
    """From the worker's start until it renders."""
    work_s: float
    price: Price
    runs: int
    """How many earlier runs the estimate is made of; 0: it is a guess."""

    @property
    def seconds(self) -> float:
        return self.start_s + self.work_s if self.jobs else 0.0

    @property
    def usd(self) -> float:
        return self.seconds * self.price.machine_usd_per_s

    @property
    def stored_bytes(self) -> int:
        """Videos, posters and keyframes; what is there already is left out."""
        return sum(each.estimate.video_bytes + each.estimate.kept_bytes for each in self.jobs)

    @property
    def guessed(self) -> bool:
        return any(each.estimate.basis == "guessed" for each in self.jobs)


def forecast(
    jobs: Sequence[Job],
    store: Store,
    models: Mapping[str, ModelSpec],
    price: Price,
    describe: Callable[[ModelSpec], Description],
) -> Forecast:
    """What resolved jobs take, in their order, on one worker that has to start first.

    `describe` says what a model is on this machine, so that keyframes that the store has can be told; `UNKNOWN` will do.
    Jobs whose videos are there are left out. Raises StoreUnavailable.
    """
    history = History.read(store)
    stored = set(Keyframes(store).fingerprints())
    videos = {entry.name for batch in {job.batch for job in jobs} for entry in store.list(f"{batch}/")}
    by_model: dict[str, list[tuple[Job, Estimate, int]]] = {}
    for name, own in _by_model([job for job in jobs if f"{job.batch}/{job.id}.mp4" not in videos]).items():
        spec = models[name]
        description = describe(spec) if stored else UNKNOWN
        rates = _rates(history, spec)
        by_model[name] = [_estimate(job, spec, description, rates, stored) for job in own]
    work_s = sum(pipelined_s([estimate for _, estimate, _ in rows]) for rows in by_model.values())
    start_s = sum(history.start_s(models[name]) for name in by_model)
    alone_s = sum(estimate.seconds for rows in by_model.values() for _, estimate, _ in rows)
    share = (start_s + work_s) / alone_s if alone_s else 0.0
    found = [
        JobForecast(job, estimate, there, estimate.seconds * share,
                    estimate.seconds * share * price.machine_usd_per_s, _over(job, estimate, price))
        for rows in by_model.values() for job, estimate, there in rows
    ]  # fmt: skip
    runs = len({run.run for name in by_model for run in history.of(name).runs})
    return Forecast(found, len(jobs) - len(found), start_s, work_s, price, runs)


def _by_model(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """A worker changes its model between jobs as they come; grouped, every model is started once."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.render.model or "", []).append(job)
    return found


def _rates(history: History, spec: ModelSpec) -> Rates:
    """On the kind of machine that rendered with this model last."""
    rows = [row for run in history.of(spec.name).runs for row in run.taken if row.model == spec.name]
    last = rows[-1] if rows else None
    return Rates(rows, spec, last.device if last else "", last.precision if last else "")


def _estimate(
    job: Job, spec: ModelSpec, description: Description, rates: Rates, stored: set[str]
) -> tuple[Job, Estimate, int]:
    layout = plan(job, spec, description, dict.fromkeys(job.inputs, ""))
    wanted = {recipe.fingerprint for recipe in layout.recipes}
    have = frozenset(wanted & stored)
    stored |= wanted
    return job, rates.estimate(layout, have), len(have)


def _over(job: Job, estimate: Estimate, price: Price) -> str:
    limits = job.limits
    if limits is None:
        return ""
    usd = estimate.seconds * price.machine_usd_per_s
    if limits.max_seconds is not None and estimate.seconds > limits.max_seconds:
        return f"limits.max_seconds: about {estimate.seconds:.0f} s, and it may take {limits.max_seconds:g}"
    if limits.max_cost_usd is not None and usd > limits.max_cost_usd:
        return f"limits.max_cost_usd: about {usd:.4f} USD, and it may cost {limits.max_cost_usd:g}"
    return ""
