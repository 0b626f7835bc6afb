"""What an operator does about it: hold and resume, cancel, retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from nightreel_storage.batches import Asked
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import AlreadyEnded, utc_now

from ..again import ask_again
from ..jobs import Id
from ..looking import asked_for, call_off, known_batch, open_jobs
from .catalogue import check_member
from .door import ROOT
from .forms import Form, text
from .shelf import Shelf, ShelfOf

PATIENCE_S = 20.0  # of one request; what is left, the next one does
AT_A_TIME = 100  # jobs asked for again before their messages are published
MAX_REASON = 500

T = TypeVar("T")

router = APIRouter()


@router.post("/hold")
def hold(shelf: ShelfOf, form: Form) -> Response:
    Holds(shelf.desk.store).put(text(form, "reason")[:MAX_REASON] or "held by hand", utc_now())
    return _back(f"{ROOT}/", "held")


@router.post("/resume")
def resume(shelf: ShelfOf, form: Form) -> Response:
    Holds(shelf.desk.store).lift(utc_now())
    shelf.desk.wake("the hold was lifted")
    return _back(f"{ROOT}/", "resumed")


@router.post("/batches/{batch}/cancel")
def cancel_batch(shelf: ShelfOf, form: Form, batch: Id) -> Response:
    """Everything of a batch that has not ended."""
    return _cancelled(shelf, batch, list(open_jobs(shelf.desk.store, batch)), f"{ROOT}/batches/{batch}")


@router.post("/batches/{batch}/retry")
def retry_batch(shelf: ShelfOf, form: Form, batch: Id) -> Response:
    """What failed for a reason; without one, everything that failed or was cancelled."""
    listed, key = shelf.catalogue.find(batch), text(form, "reason")
    shelf.census.forget(batch)
    count = shelf.census.count(listed, patient=True)
    assert count is not None  # we were patient
    jobs = [job for job, at in count.standings.items() if at.ended and at.state != "done"]
    if key:
        jobs = [job for group in count.failures if group.key == key for job in group.jobs]
    return _retried(shelf, batch, jobs, bool(text(form, "without_limits")), f"{ROOT}/batches/{batch}")


@router.post("/batches/{batch}/{job}/cancel")
def cancel_job(shelf: ShelfOf, form: Form, batch: Id, job: Id) -> Response:
    back = f"{ROOT}/batches/{batch}/{job}"
    return _cancelled(shelf, batch, [asked_for(shelf.desk.store, batch, job)], back)


@router.post("/batches/{batch}/{job}/retry")
def retry_job(shelf: ShelfOf, form: Form, batch: Id, job: Id) -> Response:
    check_member(shelf.catalogue.find(batch), job)
    return _retried(shelf, batch, [job], bool(text(form, "without_limits")), f"{ROOT}/batches/{batch}/{job}")


def _cancelled(shelf: Shelf, batch: str, jobs: Sequence[Asked], back: str) -> Response:
    store = shelf.desk.store

    def cancel(some: Sequence[Asked]) -> int:
        for asked in some:
            try:
                call_off(store, batch, asked)
            except AlreadyEnded:
                return 0  # a worker was faster
        return len(some)

    done, left = _while_patient(jobs, 1, cancel)
    shelf.census.forget(batch)
    return _back(back, "cancelled", done, left)


def _retried(shelf: Shelf, batch: str, jobs: Sequence[str], without_limits: bool, back: str) -> Response:
    desk = shelf.desk
    known = known_batch(desk.store, batch)

    def retry(some: Sequence[str]) -> int:
        messages = ask_again(desk.store, known, some, without_limits=without_limits)
        desk.queue.publish(messages)
        return len(messages)

    done, left = _while_patient(jobs, AT_A_TIME, retry)
    shelf.census.forget(batch)
    if done:
        desk.wake(f"{done} jobs of {batch} again")
    return _back(back, "retried", done, left)


def _while_patient(jobs: Sequence[T], at_a_time: int, do: Callable[[Sequence[T]], int]) -> tuple[int, int]:
    """Do it for some jobs after the others, until the time is over; returns for how many, and how many are left."""
    deadline, done = time.monotonic() + PATIENCE_S, 0
    for begin in range(0, len(jobs), at_a_time):
        if time.monotonic() > deadline:
            return done, len(jobs) - begin
        done += do(jobs[begin : begin + at_a_time])
    return done, 0


def _back(to: str, what: str, done: int = 0, left: int = 0) -> Response:
    """To the page, which says what was done: a reload repeats nothing."""
    return RedirectResponse(f"{to}?did={what}-{done}-{left}", 303)
