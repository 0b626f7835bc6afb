"""What a batch will take before anything of it runs: keyframes, seconds, dollars, storage, by job and in all."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.inputs import input_sha256, is_input
from nightreel_storage.keyframes import Keyframes

from .estimate import Estimate, Rates, pipelined_s
from .history import History
from .limits import over, too_late
from .prices import Price, clip_micro_usd, load_prices
from .remotes import Remotes


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
    """Of this time, and of its clips."""
    clips_usd: float
    over: str
    """Which of its own limits it is over, and by what; empty when it is not."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A whole batch on one worker."""

    jobs: Sequence[JobForecast]
    there: int
    """Videos that the store has already; they are none of `jobs`."""
    around_s: float
    """From the worker's start until it renders, and from its last video to its exit."""
    work_s: float
    price: Price
    runs: int
    """How many earlier runs the estimate is made of; 0: it is a guess."""

    @property
    def seconds(self) -> float:
        return self.around_s + self.work_s

    @property
    def usd(self) -> float:
        return self.price.cost_usd(self.seconds, sum(each.job.duration_s for each in self.jobs)) + self.clips_usd

    @property
    def clips_usd(self) -> float:
        """What services are paid for clips."""
        return sum(each.clips_usd for each in self.jobs)

    @property
    def stored_bytes(self) -> int:
        """Videos and keyframes; what is there already is left out."""
        return sum(each.estimate.video_bytes + each.estimate.kept_bytes for each in self.jobs)

    @property
    def guessed(self) -> bool:
        return any(each.estimate.basis == "guessed" for each in self.jobs)


def forecast(
    jobs: Sequence[Job],
    store: Store,
    models: Mapping[str, ModelSpec],
    price: Price,
    now: dt.datetime,
    remotes: Remotes | None = None,
    prices: Mapping[str, Price] | None = None,
) -> Forecast:
    """What resolved jobs take, in their order, on one worker that has to start first.

    Keyframes that the store has are told by what each model was when it rendered last, and by what a source over the
    network says of itself. Jobs whose videos are there are left out. `prices` has those of services; Nightreel's own when
    None. Raises StoreUnavailable, and SourceUnavailable, also for a model whose clips have no price.
    """
    prices = load_prices() if prices is None else prices
    history = History.read(store)
    stored = set(Keyframes(store).fingerprints())
    videos = {entry.name for batch in {job.batch for job in jobs} for entry in store.list(f"{batch}/")}
    missing = [job for job in jobs if f"{job.batch}/{job.id}.mp4" not in videos]
    used = {name: models[name] for name in dict.fromkeys(job.render.model or "" for job in missing)}
    elsewhere = remotes or Remotes()
    kinds = {name: _Kind.of(spec, history, elsewhere.describe(spec)) for name, spec in used.items()}
    rows = [kinds[job.render.model or ""].estimate(job, stored) for job in missing]
    # A worker changes its model with the jobs as they come, which is not to be foreseen: each model is started once.
    work_s = sum(pipelined_s([estimate for job, estimate, _ in rows if job.render.model == name]) for name in used)
    around_s = sum(history.start_s(spec) + history.end_s(spec) for spec in used.values())
    alone_s = sum(estimate.seconds for _, estimate, _ in rows)
    share = (around_s + work_s) / alone_s if alone_s else 0.0
    found = []
    for job, estimate, there in rows:
        seconds = estimate.seconds * share
        spec = models[job.render.model or ""]
        clips_usd = clip_micro_usd(spec, estimate.clip_s, prices) / 1e6 if estimate.clip_s else 0.0
        usd = price.cost_usd(seconds, job.duration_s) + clips_usd
        found.append(
            JobForecast(job, estimate, there, seconds, usd, clips_usd, _over(job, estimate, price, clips_usd, now))
        )
    runs = len({run.run for name in used for run in history.of(name).runs})
    return Forecast(found, len(jobs) - len(found), around_s, work_s, price, runs)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A model, as it was where it rendered last."""

    spec: ModelSpec
    description: Description
    rates: Rates

    @classmethod
    def of(cls, spec: ModelSpec, history: History, known: Description | None) -> _Kind:
        description = known or history.description(spec.name)
        return cls(spec, description, Rates(history.taken, spec, description))

    def estimate(self, job: Job, stored: set[str]) -> tuple[Job, Estimate, int]:
        """Adds the job's keyframes to those that are stored."""
        inputs = {address: content(address) for address in job.inputs}
        layout = plan(job, self.spec, self.description, inputs)
        wanted = {recipe.fingerprint for recipe in layout.recipes}
        have = frozenset(wanted & stored)
        stored |= wanted
        return job, self.rates.estimate(layout, have), len(have)


def content(address: str) -> str:
    """Of what lies elsewhere nobody knows the content yet: its address stands for it."""
    return input_sha256(address) if is_input(address) else hashlib.sha256(address.encode()).hexdigest()


def _over(job: Job, estimate: Estimate, price: Price, clips_usd: float, now: dt.datetime) -> str:
    if late := too_late(job, now):
        return late
    broken = over(job, estimate.seconds, price, clips_usd)
    clips = f", and {clips_usd:.2f} USD for clips" if clips_usd else ""
    return f"{broken}; it would take about {estimate.seconds:.1f} s{clips}" if broken else ""
