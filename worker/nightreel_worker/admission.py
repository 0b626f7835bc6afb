"""Delivery -> work: what must be rendered, and whether it may be."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

from .errors import GaveUp, NameTaken, PassedOn, RendererUnavailable
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
    stands_in: bool = False
    """The model that makes it here is not the job's own: what it cannot make is left to others."""

    @property
    def name(self) -> tuple[str, str]:
        """Batch and id."""
        assert self.job.batch is not None
        assert self.job.id is not None
        return self.job.batch, self.job.id

    @property
    def of_round(self) -> tuple[str, str, int]:
        """The same with the round: what attempts are kept under."""
        return *self.name, self.round


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
    passed: str = ""
    """Which other model has passed the job on, and why."""


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
        request = Request(job, round_, delivery, None, self._stands_in(job))
        held = self._receipts.read(*request.name)
        if held is None:
            return request
        if held.receipt.fingerprint != job.fingerprint:
            raise NameTaken(f"batch {job.batch} already has another job {job.id}: choose another id or batch")
        if held.receipt.round > round_ or (held.receipt.round == round_ and held.receipt.ended):
            raise AlreadyEnded(held.receipt)
        if held.receipt.round < round_:
            raise InvalidJob([Problem(f"round {round_} was never asked for; the receipt is at {held.receipt.round}")])
        return replace(request, over=held)

    def spec(self, job: Job) -> ModelSpec:
        """The model that makes the job here: the one that it names, or the worker's own. Raises Unrenderable."""
        name = self._model if self._stands_in(job) else job.render.model or self._model
        if name not in self._models:
            raise Unrenderable(f"render.model: no model {name} here; there are {', '.join(sorted(self._models))}")
        return self._models[name]

    def work(self, request: Request, renderer: Renderer, scratch: Path) -> Work:
        """Collect what the store has for a request, and what the job names.

        Raises GaveUp, PassedOn, Unrenderable, RendererUnavailable, Preempted, and what `Inputs.fetch` raises.
        """
        spec = self.spec(request.job)
        history = self._attempts.history(*request.of_round)
        passed = [attempt for attempt in history if attempt.end == "passed"]
        if request.stands_in and (before := [attempt for attempt in passed if attempt.model == spec.name]):
            raise PassedOn(before[-1].reason)
        self._inputs.check(request.job)
        description = self._describe(spec, renderer)
        abilities.check(request.job, spec, description)
        inputs = self._inputs.fetch(request.job, scratch)
        sums = {address: found.sha256 for address, found in inputs.items()}
        layout = plan(request.job, spec, description, sums)
        have, makers = self._fetch(layout, scratch)
        failed = failures(history, makers)
        if len(failed) >= self._max_attempts:
            why = next((attempt.reason for attempt in reversed(failed) if attempt.reason), "its worker was killed")
            raise GaveUp(f"gave up after {len(failed)} attempts; the last one: {why}")
        key = f"{'/'.join(request.name)}#{uuid.uuid4().hex[:8]}"
        given = {found.sha256: str(found.path) for found in inputs.values()}
        said = f"{passed[-1].model} passed it on: {passed[-1].reason}" if passed else ""
        return Work(key, request, spec, description, layout, scratch, have, sums, given, len(failed), said)

    def _stands_in(self, job: Job) -> bool:
        return job.render.model in self._models[self._model].stands_in_for

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
