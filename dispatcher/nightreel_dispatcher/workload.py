"""How long a start and a job take, as the last runs took, or as the model's entry guesses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec, load_models, no_model
from nightreel_pipelines.plan import plan
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job, Shot
from nightreel_storage.base import Store
from nightreel_worker.estimate import Rates
from nightreel_worker.history import History
from nightreel_worker.settings import Settings

WORK = ("render", "film", "upload")  # stages of a run that are a job's; start, load, waiting and idling are not
GUESSED_SHOTS = 4  # of a job of which nothing is known
READ_EVERY_S = 300.0  # a run's report changes an average of twenty


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast work is done."""

    start_s: float
    """From a worker's start until it renders."""
    job_s: float
    """What a worker that is ready needs for a job."""
    measured: bool
    """Do runs say what a job takes?"""


class Workload:
    """The pace of one model's workers; read again every few minutes. Safe to use from several threads."""

    def __init__(self, settings: Settings, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidJob for a model that there is not."""
        models = load_models(settings.models)
        if settings.model not in models:
            raise InvalidJob([Problem(no_model(settings.model, models), "NIGHTREEL_MODEL")])
        self._spec, self._store, self._clock = models[settings.model], store, clock
        self._lock = threading.Lock()
        self._read_at = -READ_EVERY_S
        self._pace = Pace(0.0, 0.0, False)

    def pace(self) -> Pace:
        """Raises StoreUnavailable."""
        with self._lock:
            now = self._clock()
            if now - self._read_at >= READ_EVERY_S:
                self._pace, self._read_at = pace_of(History.read(self._store), self._spec), now
            return self._pace


def pace_of(history: History, spec: ModelSpec) -> Pace:
    """The mean over all jobs of the last runs of this model. The stages of a run hold each second once."""
    runs = [run for run in history.of(spec.name).runs if run.done]
    jobs = sum(run.done for run in runs)
    spent_s = sum(run.stages_s.get(stage, 0.0) for run in runs for stage in WORK)
    start_s = history.start_s(spec)
    return Pace(start_s, spent_s / jobs, True) if spent_s else Pace(start_s, guessed_job_s(spec), False)


def guessed_job_s(spec: ModelSpec) -> float:
    """Of a job with the default output and GUESSED_SHOTS shots."""
    job = Job(shots=tuple(Shot(prompt=f"shot {number}") for number in range(GUESSED_SHOTS)))
    unknown = Description("", "", "", "")
    return Rates((), spec, unknown).estimate(plan(job, spec, unknown, {})).seconds
