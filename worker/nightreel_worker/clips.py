"""Clips from a service, each paid for once.

For each clip that a job lacks, in this order: its price is reserved from the month's money, its order is written down
(`.nightreel/clips/`), the service is asked, its answer is written down; the operation is then asked for by its name until the
clip is there, by whoever needs the clip; the clip is stored, the money is settled, the order's record goes. Whoever
finds a record goes on from it, so a worker that dies at any point costs no second clip. What died inside the call itself
is in doubt: the job fails, and a person says whether to order anew (`nightreel retry --resubmit`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from nightreel_pipelines.base import Tick
from nightreel_pipelines.clips import description
from nightreel_pipelines.decode import check
from nightreel_pipelines.errors import (
    BadVideo,
    DrawingFailed,
    InDoubt,
    SourceAway,
    SourceUnavailable,
    Unrenderable,
)
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.remote import ClipService, Drawn
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.errors import Conflict, StoreError
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.purchases import Held, Purchase, Purchases

from .ledger import CLOCKS_APART, Ledger, Share, month_of
from .prices import Price, clip_micro_usd

log = structlog.get_logger()

AWAY_S = 60.0  # that a service may not answer while clips are being made, before the job goes back to the queue
DOWNLOADS = 3  # of one clip, before the attempt fails
LATE = 2.0  # how much longer than an answer may take its writer is waited for
NOTE_AGAIN_S = (1.0, 2.0, 4.0)
TICK_S = 0.25  # between two ticks
LOOK_S = 1.0  # between two looks whether another worker's order was answered

Paid = Callable[[int], None]
"""Told what a clip cost that has come, in millionths of a dollar."""


@dataclass(frozen=True, slots=True)
class Errand:
    """For which job clips are bought."""

    spec: ModelSpec
    job: tuple[str, str]
    """Batch and id."""
    scratch: Path
    tick: Tick
    paid: Paid


class Clips:
    """Of one run. Safe to use from several threads."""

    def __init__(self, store: Store, run: str, prices: Mapping[str, Price]) -> None:
        self._store, self._run, self._prices = store, run, prices

    def made(self, service: ClipService, errand: Errand, recipes: Sequence[Recipe]) -> Iterator[Drawn]:
        """Have clips made, or go on with what somebody has ordered; each as soon as it is there.

        A clip is settled when the next one is asked for: by then it must be in the store. Raises Unrenderable (InDoubt among
        them), DrawingFailed, SourceAway, SourceUnavailable (also when the month's money does not reach), StoreError, and what
        the errand's `tick` does.
        """
        return _Buyer(self._store, self._run, self._prices, service, errand).clips(recipes)


@dataclass(slots=True)
class _Waiting:
    """A clip that is not there yet."""

    held: Held | None
    since: float = field(default_factory=time.monotonic)
    """When this worker began to wait for it."""


class _Buyer:
    """Of the clips of one job."""

    def __init__(
        self, store: Store, run: str, prices: Mapping[str, Price], service: ClipService, errand: Errand
    ) -> None:
        self._purchases, self._keyframes = Purchases(store), Keyframes(store)
        self._ledger = Ledger(store, service=errand.spec.source)
        self._run, self._prices, self._service, self._terms = run, prices, service, service.terms
        self._spec, self._scratch, self._tick, self._paid = errand.spec, errand.scratch, errand.tick, errand.paid
        self._job = "/".join(errand.job)
        self._away_since: float | None = None

    def clips(self, recipes: Sequence[Recipe]) -> Iterator[Drawn]:
        waiting = {recipe: _Waiting(self._purchases.read(recipe.fingerprint)) for recipe in recipes}
        self._buy({recipe: each for recipe, each in waiting.items() if each.held is None})
        while waiting:
            for recipe, each in tuple(waiting.items()):
                content = self._look(recipe, each)
                if content is not None:
                    del waiting[recipe]
                    yield Drawn(recipe, content, recipe.revision)
                    if each.held:
                        self._settle(each.held, each.held.purchase.micro_usd)
            if waiting:
                answered = all(each.held and each.held.purchase.operation for each in waiting.values())
                self._pause(self._terms.poll_s if answered else min(LOOK_S, self._terms.poll_s))

    # ordering

    def _buy(self, lacking: Mapping[Recipe, _Waiting]) -> None:
        """Reserve for all, then order one after the other. What was reserved and not ordered is given back."""
        reserved: dict[Recipe, Purchase] = {}
        try:
            for recipe in lacking:
                purchase = self._purchase(recipe)
                reserved[recipe] = purchase
                self._reserve(purchase)
            for recipe, each in lacking.items():
                self._tick()
                each.held = self._order(recipe, reserved.pop(recipe))
        finally:
            for purchase in reserved.values():
                self._give_back(purchase)

    def _purchase(self, recipe: Recipe) -> Purchase:
        now = self._ledger.now()
        return Purchase(
            id=uuid.uuid4().hex[:12],
            fingerprint=recipe.fingerprint,
            run=self._run,
            job=self._job,
            model=self._spec.name,
            micro_usd=clip_micro_usd(self._spec, recipe.clip_s or 0, self._prices),
            month=month_of(now),
            asked_at=now,
        )

    def _reserve(self, purchase: Purchase) -> None:
        """Raises SourceUnavailable when the month's money does not reach."""
        limit, price = round(self._terms.monthly_usd * 1e6), purchase.micro_usd
        until = purchase.asked_at + dt.timedelta(seconds=self._terms.timeout_s)
        share = Share(run=self._run, what=purchase.id, micro_usd=price, since=purchase.asked_at, until=until)
        month = self._ledger.reserve(share, limit, price)
        mine = month.share(self._run, purchase.id)
        if mine is None or mine.micro_usd < price:
            raise SourceUnavailable(
                f"{self._spec.source}: {month.micro_usd / 1e6:.2f} of {limit / 1e6:.2f} USD of {month.month} are spent or"
                f" reserved, and a clip for {self._job} costs {price / 1e6:.2f}: raise"
                f" NIGHTREEL_{self._spec.source.upper()}_MONTHLY_USD, or wait for the next month"
            )

    def _order(self, recipe: Recipe, purchase: Purchase) -> Held | None:
        """None when somebody else was faster: it is waited for, or is in the store."""
        try:
            held = self._purchases.open(purchase)
        except Conflict:
            self._give_back(purchase)
            return self._purchases.read(recipe.fingerprint)
        if (
            self._stored(recipe) is not None
        ):  # somebody ordered it, got it and settled it, all since the job was admitted
            self._free(held)
            return None
        try:
            operation = self._service.order(recipe, self._tick)
        except InDoubt as exc:
            raise InDoubt(self._doubtful(held, str(exc))) from exc
        except Exception:  # by its contract it was not taken
            self._free(held)
            raise
        log.info("clip_ordered", job=self._job, fingerprint=recipe.fingerprint, operation=operation)
        return self._note(held, operation)

    # waiting

    def _look(self, recipe: Recipe, each: _Waiting) -> bytes | None:
        """The clip, if it is there now."""
        self._tick()
        if each.held is None or not each.held.purchase.operation:
            each.held = self._purchases.read(recipe.fingerprint)
        if each.held is None:
            if (content := self._stored(recipe)) is None:
                raise DrawingFailed("the worker that had ordered this clip has given it up: it is ordered anew")
            return content
        if not each.held.purchase.operation:
            self._check_doubt(each.held, each.since)
            return None
        return self._finished(recipe, each.held)

    def _finished(self, recipe: Recipe, held: Held) -> bytes | None:
        try:
            address = self._ask(held)
            self._away_since = None
            return None if address is None else self._download(recipe, address)
        except InDoubt as exc:
            raise InDoubt(self._doubtful(held, str(exc))) from exc
        except SourceAway:
            self._away_since = self._away_since or time.monotonic()
            if time.monotonic() - self._away_since > AWAY_S:
                raise
            return None

    def _ask(self, held: Held) -> str | None:
        """Where the clip can be had. One that will never be costs nothing."""
        try:
            address = self._service.finished(held.purchase.operation)
        except InDoubt:
            raise
        except (Unrenderable, DrawingFailed):
            self._free(held)
            raise
        late_s = (self._ledger.now() - held.purchase.asked_at).total_seconds()
        if address is None and late_s > self._terms.timeout_s:
            raise InDoubt(f"operation {held.purchase.operation} has not ended in {late_s:.0f} s")
        return address

    def _download(self, recipe: Recipe, address: str) -> bytes:
        """The clip, once it decodes. To download is free, so a bad one is downloaded again."""
        path = self._scratch / f"{recipe.file}.part"
        for left in reversed(range(DOWNLOADS)):
            try:
                self._service.download(address, path, self._tick)
                check(path, recipe.clip_s or 0, self._tick)
                return path.read_bytes()
            except (SourceAway, BadVideo) as exc:
                log.warning("clip_not_downloaded", job=self._job, address=address, reason=str(exc))
                if not left:
                    raise DrawingFailed(f"the clip was made, but does not come whole: {exc}") from exc
                self._pause(self._terms.poll_s)
        raise AssertionError

    def _check_doubt(self, held: Held, since: float) -> None:
        """Raises InDoubt when whoever ordered the clip cannot get an answer any more."""
        answer_s = self._terms.answer_s * LATE
        age = self._ledger.now() - held.purchase.asked_at
        if time.monotonic() - since > answer_s or age > CLOCKS_APART + dt.timedelta(seconds=answer_s):
            raise InDoubt(self._doubtful(held, f"run {held.purchase.run} ended while it ordered it"))

    def _doubtful(self, held: Held, why: str) -> str:
        usd = held.purchase.micro_usd / 1e6
        return (
            f"a clip is in doubt: {why}. It may have been made, and {usd:.2f} USD paid for it, so nobody orders it again by"
            f" himself. If it shall be ordered anew: nightreel retry {self._job.replace('/', ' ')} --resubmit"
        )

    # the end of an order

    def _settle(self, held: Held, micro_usd: int) -> None:
        """Money first, so that no order is without its money. Only who closes the record has it on a receipt."""
        self._ledger.settle(held.purchase.month, held.purchase.run, micro_usd, held.purchase.id)
        if self._purchases.close(held) and micro_usd:
            self._paid(micro_usd)

    def _free(self, held: Held) -> None:
        self._settle(held, 0)

    def _give_back(self, purchase: Purchase) -> None:
        """What was reserved for nothing. If that fails it counts as spent: rather too much than too little."""
        with contextlib.suppress(StoreError):
            self._ledger.settle(purchase.month, purchase.run, 0, purchase.id)

    def _note(self, held: Held, operation: str) -> Held:
        """Write down what the service calls the order. Nothing is worse to lose, so a store in trouble is asked again."""
        for pause_s in (*NOTE_AGAIN_S, None):
            try:
                return self._purchases.answered(held, operation)
            except Conflict:
                raise InDoubt(
                    self._doubtful(held, f"its order was given up before operation {operation} began")
                ) from None
            except StoreError:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError

    def _stored(self, recipe: Recipe) -> bytes | None:
        path = self._scratch / recipe.file
        return path.read_bytes() if self._keyframes.fetch(recipe.fingerprint, path) else None

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._tick()
            time.sleep(min(TICK_S, left))


def give_up_orders(store: Store, job: Job, models: Mapping[str, ModelSpec]) -> int:
    """Forget what was ordered for a job and has not come, so that its next round orders anew; returns how many clips.

    The money stays in the ledger, where it counts as spent: it may have been. Raises StoreError.
    """
    purchases = Purchases(store)
    makers = [each for each in models.values() if each.clips and job.render.model in (each.name, *each.stands_in_for)]
    plans = [plan(job, spec, description(spec), dict.fromkeys(job.inputs, "")) for spec in makers]
    orders = [purchases.read(recipe.fingerprint) for layout in plans for recipe in layout.recipes]
    return sum(purchases.close(held) for held in orders if held)
