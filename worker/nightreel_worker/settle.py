"""Settling deliveries whose jobs ended without a video: acks come last, and every branch says why."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from nightreel_pipelines.errors import Cancelled
from nightreel_queue.base import Delivery
from nightreel_queue.errors import LeaseLost
from nightreel_storage.attempts import Attempts, End, OpenAttempt
from nightreel_storage.base import Store
from nightreel_storage.errors import Conflict, StoreError
from nightreel_storage.receipts import AlreadyEnded, Cost, Receipt, Receipts, utc_now

from .admission import Request
from .commit import Author, Committer
from .errors import GaveUp
from .events import Ended, Event, Rejected, Returned
from .fate import Fate, fate_of
from .place import Place
from .settings import Settings

log = structlog.get_logger()

MAX_RETRY_DELAY_S = 600.0


@dataclass(slots=True)
class Claim:
    """What is known so far of a delivery that did not end well."""

    delivery: Delivery
    request: Request | None = None
    attempt: OpenAttempt | None = None
    failures: int = 0
    """Earlier attempts that failed."""
    passed: str = ""
    """Which other model has passed the job on, and why."""
    bill: Callable[[], Cost | None] = lambda: None
    """What the delivery has cost until now."""
    ended: bool = False
    """Its round has a receipt that this claim wrote."""


class Settler:
    """Turns the error that ended a delivery's work into its settlement."""

    def __init__(self, store: Store, run: str, settings: Settings, watch: Callable[[Event], None]) -> None:
        self._store = store
        self._receipts = Receipts(store)
        self._attempts = Attempts(store)
        self._committer = Committer(store)
        self._run = run
        self._max_attempts = settings.max_attempts
        self._retry_delay_s = settings.retry_delay_s
        self._watch = watch
        self._place = Place.of(settings)

    def settle(self, claim: Claim, error: Exception) -> Receipt | None:
        """Settle a delivery; returns the receipt of a round that has ended, whoever ended it.

        Raises what makes that impossible: the delivery then comes back when its lease ends.
        """
        if claim.request and claim.request.stands_in:
            error = self._place.seen_by_a_stand_in(error)
        match fate_of(error):
            case Fate.ENDED:
                return self._ended(claim, error)
            case Fate.REJECT:
                self._reject(claim, error)
            case Fate.FAIL if (
                claim.request is None
            ):  # the receipt's name is another job's: what can be left is a record
                self._reject(claim, error)
            case Fate.FAIL:
                return self._fail(claim, str(error), "failed")
            case Fate.RETRY:
                return self._retry(claim, f"{type(error).__name__}: {error}")
            case Fate.POSTPONE:
                self._close(claim, "preempted", str(error))
                self._release(claim, str(error), self._delay_s(claim.delivery.delivery_attempt))
            case Fate.PASS_ON:
                self._pass_on(claim, str(error))
            case Fate.HAND_BACK:
                self._close(claim, "preempted", str(error))
                self._release(claim, str(error), 0.0)
            case Fate.FORGET:
                self._close(claim, "lost", str(error))
                log.warning("lease_lost")
        return None

    def author(self, claim: Claim) -> Author:
        """Who ends the round, for its receipt."""
        attempt = claim.attempt.attempt.id if claim.attempt else ""
        route = self._place.route(claim.request, claim.passed)
        return Author(self._run, attempt, claim.failures + (claim.attempt is not None), claim.bill, route)

    def close_preempted(self, claim: Claim) -> None:
        """Of a commit that did not end before its worker had to: it costs nothing."""
        self._close(claim, "preempted", "its worker had to leave before it ended")

    def close_done(self, claim: Claim) -> None:
        self._close(claim, "done", "")

    def _ended(self, claim: Claim, error: Exception) -> Receipt | None:
        """Somebody has written this round's receipt: ours would be a second one."""
        receipt = error.receipt if isinstance(error, AlreadyEnded) else None
        if receipt is None and claim.request is not None:
            held = self._receipts.read(*claim.request.name)
            receipt = held.receipt if held else None
        self._close(claim, "cancelled" if isinstance(error, Cancelled) else "lost", str(error))
        if receipt is None:  # whoever called it off has taken that back
            self._release(claim, "called off, but without a receipt", 0.0)
            return None
        if receipt.state == "failed" and claim.delivery.delivery_attempt > 1:
            # its worker may have died between the failed receipt and the dead letter
            claim.delivery.dead_letter(receipt.reason)
        else:
            claim.delivery.ack()
        self._watch(Ended(receipt, earlier=True))
        return receipt if receipt.ended else None

    def _fail(self, claim: Claim, reason: str, end: End) -> Receipt | None:
        assert claim.request is not None
        try:
            receipt = self._committer.fail(claim.request, reason, self.author(claim))
        except AlreadyEnded as exc:
            if exc.receipt.fingerprint == claim.request.job.fingerprint:
                return self._ended(claim, exc)
            self._reject(claim, exc)  # the receipt's name is taken as well: all that can be left is a record
            return None
        claim.ended = True
        self._close(claim, end, reason)
        claim.delivery.dead_letter(reason)
        self._watch(Ended(receipt, earlier=False))
        return receipt

    def _retry(self, claim: Claim, reason: str) -> Receipt | None:
        """Another attempt may do better, until the limit; a trouble before the first attempt counts deliveries."""
        tries = claim.failures + 1 if claim.attempt else claim.delivery.delivery_attempt
        if tries < self._max_attempts:
            self._close(claim, "failed", reason)
            self._release(claim, reason, self._delay_s(tries))
        elif claim.request is not None:
            return self._fail(claim, str(GaveUp(f"gave up after {tries} attempts; the last one: {reason}")), "failed")
        else:
            self._reject(claim, GaveUp(reason))
        return None

    def _pass_on(self, claim: Claim, reason: str) -> None:
        """The record tells workers of the same model not to try, and others why the job came to them.

        The delay doubles with each delivery, and the run does not wait for it: a job that nobody can make keeps no GPU awake.
        """
        assert claim.request is not None
        job, model = claim.request.of_round, self._place.model
        known = self._attempts.history(*job)
        if not any(attempt.end == "passed" and attempt.model == model for attempt in known):
            claim.attempt = claim.attempt or self._attempts.open(*job, self._run, utc_now(), model)
            self._close(claim, "passed", reason)
        self._release(claim, reason, self._delay_s(claim.delivery.delivery_attempt), passed=True)

    def _delay_s(self, tries: int) -> float:
        return min(self._retry_delay_s * 2.0 ** min(tries - 1, 20), MAX_RETRY_DELAY_S)

    def _release(self, claim: Claim, reason: str, delay_s: float, *, passed: bool = False) -> None:
        claim.delivery.release(delay_s)
        batch, job = claim.request.name if claim.request else ("", "")
        self._watch(Returned(batch, job, reason, delay_s, passed))

    def _reject(self, claim: Claim, error: Exception) -> None:
        """Leave a record that a publisher can find, then the dead letter: the message must not come back."""
        self._close(claim, "failed", str(error))
        body = claim.delivery.body
        name = f".nightreel/rejected/{hashlib.sha256(body).hexdigest()[:32]}.json"
        record = {
            "reason": str(error),
            "rejected_at": utc_now().isoformat(),
            "published_at": claim.delivery.published_at.isoformat(),
            "attributes": dict(claim.delivery.attributes),
            "body": body[:100_000].decode(errors="replace"),
        }
        with contextlib.suppress(Conflict):  # the same bytes were rejected before: that record will do
            self._store.put(name, json.dumps(record, indent=2).encode(), content_type="application/json")
        claim.delivery.dead_letter(str(error))
        self._watch(Rejected(str(error), name))

    def _close(self, claim: Claim, end: End, reason: str) -> None:
        """Close the attempt. One that cannot be closed counts as its worker's death, which is safe."""
        if claim.attempt is None:
            return
        try:
            self._attempts.close(claim.attempt, end, reason, utc_now())
        except StoreError as exc:
            log.warning("attempt_not_closed", reason=str(exc))


def try_release(delivery: Delivery) -> None:
    """Give a delivery back if that is still possible; if not, it comes back by itself when its lease ends."""
    with contextlib.suppress(LeaseLost, Exception):
        delivery.release()
