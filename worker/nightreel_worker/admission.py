"""Delivery -> work: what must be rendered, and whether it may be."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nightreel_pipelines import abilities
from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec, own_steps
from nightreel_pipelines.plan import Plan, plan
from nightreel_queue.base import Delivery
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_queue.problems import parse_job
from nightreel_storage.attempts import Attempts, failures
from nightreel_storage.base import Store
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import AlreadyEnded, Held, Receipts

from .errors import GaveUp, NameTaken, RendererUnavailable
from .inputs import Inputs
from .renderer import Renderer


@dataclass(frozen=True, slots=True)
class Request:
    """One round of one job, as a delivery asks for it."""

    job: Job
    round: int
    delivery: Delivery
    over: Held | None
    """The receipt that ending this round replaces: none, or the `queued` one."""

    @property
    def name(self) -> tuple[str, str]:
        """Batch and id."""
        assert self.job.batch is not None
        assert self.job.id is not None
        return self.job.batch, self.job.id


@dataclass(frozen=True, slots=True)
class Work:
    """A request with all that its rendering needs."""

    key: str
    """Unique to this delivery."""
    request: Request
    spec: ModelSpec
    description: Description
    plan: Plan
    scratch: Path
    have: Mapping[str, str]
    """Files of the keyframes that the store had, by fingerprint."""
    inputs: Mapping[str, str]
    """sha256 of each file that the job names, by address."""
    given: Mapping[str, str]
    """These files, by sha256."""
    failures: int
    """Attempts that failed before; after one, the job is rendered alone."""


class Admission:
    """Decides what a delivery is, from the receipts, attempts and keyframes that the store has."""

    def __init__(
        self, store: Store, models: Mapping[str, ModelSpec], model: str, max_attempts: int, inputs: Inputs
    ) -> None:
        self._receipts = Receipts(store)
        self._attempts = Attempts(store)
        self._keyframes = Keyframes(store)
        self._models = models
        self._model = model
        self._max_attempts = max_attempts
        self._inputs = inputs

    def request(self, delivery: Delivery) -> Request:
        """Read a delivery. Raises InvalidJob, AlreadyEnded, NameTaken."""
        round_ = _round(delivery)
        day = delivery.published_at.strftime("%Y-%m-%d")
        job = parse_job(delivery.body).resolved(model=self._model, batch=day, steps=own_steps(self._models))
        request = Request(job, round_, delivery, None)
        held = self._receipts.read(*request.name)
        if held is None:
            return request
        if held.receipt.fingerprint != job.fingerprint:
            raise NameTaken(f"batch {job.batch} already has another job {job.id}: choose another id or batch")
        if held.receipt.round > round_ or (held.receipt.round == round_ and held.receipt.ended):
            raise AlreadyEnded(held.receipt)
        if held.receipt.round < round_:
            raise InvalidJob([Problem(f"round {round_} was never asked for; the receipt is at {held.receipt.round}")])
        return Request(job, round_, delivery, held)

    def spec(self, job: Job) -> ModelSpec:
        """The model that the job names. Raises Unrenderable."""
        name = job.render.model or self._model
        if name not in self._models:
            raise Unrenderable(f"render.model: no model {name} here; there are {', '.join(sorted(self._models))}")
        return self._models[name]

    def work(self, request: Request, renderer: Renderer, scratch: Path) -> Work:
        """Collect what the store has for a request, and what the job names.

        Raises GaveUp, Unrenderable, RendererUnavailable, Preempted, and what `Inputs.fetch` raises.
        """
        spec = self.spec(request.job)
        self._inputs.check(request.job)
        description = self._describe(spec, renderer)
        abilities.check(request.job, spec, description)
        inputs = self._inputs.fetch(request.job, scratch)
        sums = {address: found.sha256 for address, found in inputs.items()}
        layout = plan(request.job, spec, description, sums)
        have, makers = self._fetch(layout, scratch)
        failed = failures(self._attempts.history(*request.name, request.round), makers)
        if len(failed) >= self._max_attempts:
            why = next((attempt.reason for attempt in reversed(failed) if attempt.reason), "its worker was killed")
            raise GaveUp(f"gave up after {len(failed)} attempts; the last one: {why}")
        key = f"{'/'.join(request.name)}#{uuid.uuid4().hex[:8]}"
        given = {found.sha256: str(found.path) for found in inputs.values()}
        return Work(key, request, spec, description, layout, scratch, have, sums, given, len(failed))

    def _describe(self, spec: ModelSpec, renderer: Renderer) -> Description:
        try:
            return renderer.describe(spec)
        except SourceUnavailable as exc:
            if spec.name == self._model:  # the model that this worker is there for: no job could be rendered
                raise RendererUnavailable(str(exc)) from exc
            raise Unrenderable(str(exc)) from exc

    def _fetch(self, layout: Plan, scratch: Path) -> tuple[dict[str, str], set[str]]:
        have, makers = {}, set()
        for recipe in layout.recipes:
            if found := self._keyframes.fetch(recipe.fingerprint, scratch / recipe.file):
                have[recipe.fingerprint] = str(found.path)
                makers.add(found.attempt)
        return have, makers


def _round(delivery: Delivery) -> int:
    text = delivery.attributes.get("round", "1")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 10_000):
        raise InvalidJob([Problem(f"attribute round is {text[:40]!r}; it counts from 1")])
    return int(text)
