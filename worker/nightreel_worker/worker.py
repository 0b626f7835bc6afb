"""The run: pull, render, commit, ack, and then tell whoever wants to know.

One thread claims deliveries; each delivery then has a thread of its own, which sees it from admission to settlement.
The stages are kept apart by the renderer (keyframes, film) and by a lock (verify and upload): one job in each, and at
most one more in line, so that the GPU never waits and little is claimed that others could do.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from nightreel_pipelines.models import ModelSpec
from nightreel_queue.base import Delivery, Queue
from nightreel_queue.errors import LeaseLost, QueueError, QueueUnavailable
from nightreel_queue.problems import parse_job
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import Receipt, utc_now

from . import wire
from .admission import Admission, Work
from .budget import Budget
from .chronicle import Chronicle
from .claims import Claims, Situation
from .clips import Clips
from .commit import Committer
from .drawing import Drawing, Ears
from .errors import RendererUnavailable
from .events import Advanced, Claimed, Ended, Event, Watch
from .fate import ends_run
from .history import Earlier, cold_start_s
from .idle import Idling
from .inputs import Inputs, Rules
from .last_words import LAST_WORD_S, in_time
from .leases import LeaseKeeper
from .limits import LimitKeeper
from .logs import log_event, name_job, name_run
from .lookout import Lookout
from .meter import Meter, process_age_ns
from .notify import LAST_S, Notifier
from .prices import load_prices, machine_price
from .remotes import Remotes
from .renderer import Film, Limits, Renderer
from .report import RunReport, Tally
from .scratch import Scratch, lacks_room
from .settings import Settings
from .settle import Claim, Settler, try_release
from .under_way import UnderWay
from .web import Web

log = structlog.get_logger()

MAX_CLAIMED = 4  # keyframes, film, commit, and one in line; more when several jobs are drawn elsewhere at once


class Worker:
    """Claims deliveries until there is no more work, and sees each to its end. `run` it once."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        models: Mapping[str, ModelSpec],
        settings: Settings,
        *,
        remotes: Remotes | None = None,
        watch: Watch = lambda event: None,
        wait_for_others: bool = False,
    ) -> None:
        """wait_for_others: stay until deliveries that other workers hold are settled too."""
        self.id = f"{utc_now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self._store, self._settings, self._outside_watch = store, settings, watch
        self._started_at, tally = utc_now(), Tally()
        self._tally = tally
        self._meter = Meter(machine_price(settings.price, settings.prices), age_ns=process_age_ns())
        self._remotes = remotes or Remotes()
        limits = Limits(settings.stall_s, settings.load_timeout_s)
        heard = (self._meter.renderer_is, self._remotes.describe)
        self._renderer = Renderer(limits, settings.weights, settings.x264_preset, *heard)
        web = Web(settings.listed("trusted_hosts"))
        inputs = Inputs(Rules.of(settings), web, store)
        self._admission = Admission(store, models, settings.model, settings.max_attempts, inputs)
        self._earlier, prices = Earlier(store, self.id), load_prices(settings.prices)
        self._limits = LimitKeeper(self._earlier, self._meter.price, prices, lambda: self._tally.taken)
        self.budget = Budget.of(settings, store, self.id, self._meter, self._cold_start_s)
        self._notifier = Notifier.of(settings, web)
        self._attempts, self._keyframes, self._committer = Attempts(store), Keyframes(store), Committer(store)
        self._drawing = Drawing(self._remotes, self._keyframes, Clips(store, self.id, prices), models[settings.model])
        self._settler = Settler(store, self.id, settings, self._watch)
        self._leases = LeaseKeeper(settings.stall_s, self._renderer.quiet_s)
        self._lookout = Lookout(store, settings.cancel_check_s, self._rendering, self._cancel)
        self._leaving = threading.Event()
        now = Situation(self._wait_for_room, self._busy, self._leaving.is_set, self._lookout.hold, tally.passed_on)
        idling = Idling(
            settings.idle_timeout_s,
            settings.max_wait_s,
            start_s=partial(self._cold_start_s, models[settings.model]),
            idled_s=lambda: self._meter.booked_s("idle"),
        )
        self._claims = Claims(queue, now, self._watch, idling=idling, wait_for_others=wait_for_others)
        self._chronicle = Chronicle(self.id, queue, store, settings, self._notifier, self._tally, self._report)
        self._scratch = Scratch(settings.scratch)
        self._changed = threading.Condition()
        self._under_way: set[UnderWay] = set()
        self._commit_stage = threading.Lock()
        self._why = ""
        self._unavailable = False

    def run(self) -> RunReport:
        """Work until the queue has been empty for long enough, or `stop`; returns what was done."""
        name_run(self.id)
        with self._scratch, self._leases, self._lookout, self.budget, self._chronicle:
            self._meter.phase("idle")
            for delivery in self._deliveries():
                self._begin(delivery)
            self._leave()
        report = self._report("ended")
        self._chronicle.end(report, lambda: self.budget.settle(report.machine_usd), in_a_hurry=self._leaving.is_set())
        return report

    def stop(self, why: str) -> None:
        """Leave within the drain's time: claim nothing more, give back what is not committed. Safe in a signal handler.

        Who says so first is the reason.
        """
        self._why = self._why or why
        self._leaving.set()

    # one delivery's life

    def _handle(self, mine: UnderWay) -> None:
        try:
            receipt = self._pursue(mine)
        except Exception as exc:  # noqa: BLE001  # the loop's boundary: whatever happened, the delivery is settled
            self._settle(mine, exc)
        else:
            self._ack(mine, receipt)
        finally:
            self.budget.close(mine)
            self._meter.close(mine, billed=mine.claim.ended)
            self._leases.let_go(mine.lease)
            shutil.rmtree(mine.scratch, ignore_errors=True)
            with self._changed:
                self._under_way.discard(mine)
                self._changed.notify_all()

    def _pursue(self, mine: UnderWay) -> Receipt:
        mine.scratch.mkdir()
        request = mine.claim.request = self._admission.request(mine.delivery)
        name_job(request.job)
        self._notifier.check(request.job)
        if self._committer.find(request):
            with self._committing(mine):
                author = self._settler.author(mine.claim)
                spec = self._admission.spec(request.job)
                return self._committer.adopt(request, spec, mine.scratch, author, tick=mine.lease.progress)
        self._limits.in_time(request.job)
        mine.work = self._admission.work(request, self._renderer, mine.scratch)
        mine.claim.failures, mine.claim.passed = mine.work.failures, mine.work.passed
        self._afford(mine, mine.work)
        film = self._render(mine, mine.work)
        with self._committing(mine):
            author = self._settler.author(mine.claim)
            return self._committer.finish(
                mine.work, film, author, tick=mine.lease.progress, may_commit=mine.lease.check
            )

    def _afford(self, mine: UnderWay, work: Work) -> None:
        """Raises OverLimit and Preempted for a job that takes more than it may, or than this run may."""
        if work.request.job.limits or self.budget.limited:
            estimate = self._limits.estimate(work)
            self._limits.admit(work, estimate)
            self.budget.admit(mine, work, estimate)

    def _render(self, mine: UnderWay, work: Work) -> Film:
        batch, job = work.request.name
        opened = mine.claim.attempt = self._attempts.open(*work.request.of_round, self.id, utc_now(), work.spec.name)
        reused, alone = len(work.have), work.failures > 0
        self._watch(Claimed(batch, job, len(work.plan.recipes), reused, work.plan.frames, alone))
        made = 0

        def heard(line: wire.Line) -> None:
            nonlocal made
            self._tally.hear(line)
            mine.lease.progress()
            match line:
                case wire.Started() | wire.Loaded():
                    self._enter(mine, "rendering")
                case wire.Loading():
                    mine.lease.waiting = True  # while the model loads, the renderer's own limit counts
                    self._watch(Advanced(batch, job, "loading", note=line.words))
                case wire.KeyframeMade():
                    self._keyframes.put(line.fingerprint, Path(line.file), opened.attempt.id)
                    made += 1
                    self._watch(Advanced(batch, job, "keyframes", reused + made))
                case wire.Filming():
                    self._watch(Advanced(batch, job, "film", line.frames))
            self._limits.check(work.request, self._meter.spent_s(mine), self._meter.paid_usd(mine))

        noted = partial(self._meter.hear, mine)
        brought = self._drawing.draw(
            work, Ears(heard, noted, partial(mine.check, self._leaving), partial(self._meter.pay, mine))
        )
        have = {**work.have, **brought.files}
        job_json = work.request.job.model_copy(update={"notify": None}).to_json()  # the child tells nobody
        order = wire.Order(work.key, job_json, str(work.scratch), have, dict(work.inputs), dict(work.given))
        try:
            return brought.told_of(self._renderer.render(work.spec, order, alone=alone, heard=heard, noted=noted))
        finally:
            noted(None)

    @contextlib.contextmanager
    def _committing(self, mine: UnderWay) -> Iterator[None]:
        """The third stage: one job at a time is verified and uploaded."""
        while not self._commit_stage.acquire(timeout=1.0):
            mine.lease.progress()
        try:
            self._enter(mine, "commit")
            self._meter.enter("upload", mine)
            mine.lease.progress()
            if mine.claim.request:
                self._watch(Advanced(*mine.claim.request.name, "commit"))
            yield
        finally:
            self._meter.leave("upload", mine)
            self._commit_stage.release()

    def _ack(self, mine: UnderWay, receipt: Receipt) -> None:
        mine.claim.ended = True
        self._watch(Ended(receipt, earlier=False))
        try:
            mine.delivery.ack()
        except QueueError as exc:  # the job has ended all the same: its next delivery will be acked
            log.warning("not_acked", batch=receipt.batch, job=receipt.job, reason=str(exc))
        self._settler.close_done(mine.claim)
        self._tell(mine, receipt)

    def _tell(self, mine: UnderWay, receipt: Receipt) -> None:
        """The job has ended and its delivery is settled: others may hear of it. Nothing waits for them."""
        self._notifier.tell(receipt, parse_job(mine.delivery.body).notify)

    def _settle(self, mine: UnderWay, error: Exception) -> None:
        if mine.lease.lost:
            error = LeaseLost(f"the lease ran out: {error}")
        elif lacks_room(error):
            error = RendererUnavailable(f"{self._scratch.full} ({error})")
        if ends_run(error):
            self._abort(error)
        try:
            if receipt := self._settler.settle(mine.claim, error):
                self._tell(mine, receipt)
        except (QueueError, StoreError) as exc:
            log.warning("delivery_not_settled", reason=str(exc), error=str(error))
            if ends_run(exc):
                self._abort(exc)
            try_release(mine.delivery)

    # claiming

    def _deliveries(self) -> Iterator[Delivery]:
        """What this run claims; a queue that cannot be had ends the run."""
        try:
            yield from self._claims
        except QueueUnavailable as exc:
            self._abort(exc)
        self._why = self._why or self._claims.why

    def _wait_for_room(self) -> bool:
        """Wait until one more delivery may be claimed; False when this run claims no more."""
        with self._changed:
            while not self._leaving.is_set():
                ended, under_way = self._tally.ended.total(), len(self._under_way)
                if why := self.budget.closed(ended):
                    if not under_way:
                        self._why = why
                        return False
                elif self.budget.takes(ended, under_way) and self._has_room():
                    return True
                self._changed.wait(0.2)  # a signal handler sets the event without a notification
        return False

    def _has_room(self) -> bool:
        in_line = any(other.stage == "waiting" for other in self._under_way)
        return not in_line and len(self._under_way) < MAX_CLAIMED - 1 + self._drawing.lanes

    def _cold_start_s(self, spec: ModelSpec) -> float:
        return cold_start_s(self._meter, self._renderer.restarts, self._earlier, spec)

    def _busy(self) -> bool:
        with self._changed:
            return bool(self._under_way)

    def _begin(self, delivery: Delivery) -> None:
        mine = UnderWay(
            self._leases.hold(delivery, lambda: self._lost(mine)), self._scratch.job_folder(), Claim(delivery)
        )
        mine.claim.bill = lambda: self._meter.bill(mine)
        self._meter.enter("wait", mine)
        mine.thread = threading.Thread(target=self._handle, args=(mine,), name="delivery", daemon=True)
        with self._changed:
            self._under_way.add(mine)
        mine.thread.start()

    def _enter(self, mine: UnderWay, stage: Literal["rendering", "commit"]) -> None:
        mine.lease.waiting = False
        with self._changed:
            mine.stage = stage
            self._changed.notify_all()

    def _lost(self, mine: UnderWay) -> None:
        batch, job = mine.claim.request.name if mine.claim.request else ("", "")
        log.warning("lease_lost", batch=batch, job=job)
        if mine.work:
            self._cancel(mine.work.key)

    def _cancel(self, key: str) -> None:
        """Call a job off, wherever it is."""
        with self._changed:
            for mine in self._under_way:
                mine.call_off(key)
        self._renderer.cancel(key)

    def _rendering(self) -> list[Work]:
        with self._changed:
            return [mine.work for mine in self._under_way if mine.work and mine.stage != "commit"]

    # leaving

    def _abort(self, error: Exception) -> None:
        """No other job would fare better: leave, with an error."""
        if not self._unavailable:
            log.error("unavailable", reason=str(error))
            self._why, self._unavailable = str(error), True
            self._leaving.set()

    def _leave(self) -> None:
        """Give back what is being rendered, let commits finish, and let go of the renderer."""
        self._meter.phase("drain")
        leave_by = time.monotonic() + self._settings.drain_s - 2 * LAST_WORD_S
        self._renderer.stop()
        with self._changed:
            remaining = list(self._under_way)
        for mine in remaining:
            mine.thread.join(max(0.0, leave_by - time.monotonic()))
        unfinished = [mine for mine in remaining if mine.thread.is_alive()]

        def give_back() -> None:
            for mine in unfinished:
                log.warning("left_unfinished", stage=mine.stage)
                try_release(mine.delivery)

        def disown() -> None:
            for mine in unfinished:
                self._settler.close_preempted(mine.claim)

        if unfinished:
            in_time(give_back, disown)
        told_by = time.monotonic() + LAST_S
        self._renderer.close()
        self._remotes.close()
        self._notifier.finish(min(told_by, leave_by) if self._leaving.is_set() else told_by)

    def _watch(self, event: Event) -> None:
        self._tally.see(event)
        log_event(event)
        self._outside_watch(event)

    def _report(self, state: Literal["running", "ended"]) -> RunReport:
        return RunReport(
            run=self.id,
            state=state,
            started_at=self._started_at,
            ended_at=utc_now(),
            why=self._why,
            unavailable=self._unavailable,
            renderer_restarts=self._renderer.restarts,
            notified=self._notifier.notified,
            not_notified=self._notifier.not_notified,
            **self._settings.place,
            machine=self._settings.machine,
            **self._tally.figures(),
            **self._meter.statement().figures(),
        )
