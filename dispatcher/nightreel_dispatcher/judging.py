"""What became of the workers that were started at a backend, and what that says of it: pure, but for the reports it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nightreel_worker.report import RunReport

from .backends import Backend
from .board import BackendState, Begun, Health
from .breaker import Breaker
from .launchers.base import Execution
from .starts import APPEAR_S

MAX_WORDS = 200  # letters of what a launcher or a worker said

ReportsOf = Callable[[Begun], Sequence[RunReport]]
"""The reports of a start's runs, at any backend."""


def judged(
    state: BackendState,
    backend: Backend,
    executions: Sequence[Execution] | None,
    health: Health,
    reports_of: ReportsOf,
    now_s: float,
) -> BackendState:
    """The state as of now. executions: None when the launcher did not answer: then nothing is known to have ended."""
    breaker = state.breaker
    if health.missed >= backend.borne > state.health.missed:
        breaker = breaker.tripped(health.told(backend.name), now_s, backend.pause_s)
    if executions is None:
        return state.model_copy(update={"health": health, "breaker": breaker})
    begun: list[Begun] = []
    for start in state.begun:
        after, kept = _judge(breaker, start, backend, executions, reports_of, now_s)
        if not (breaker.opened and start.at < breaker.open_until):  # one from before it opened tells nothing new
            breaker = after
        begun += [kept] if kept else []
    update = {"health": health, "breaker": breaker, "begun": tuple(begun), "running": running(executions, begun, now_s)}
    return state.model_copy(update=update)


def running(executions: Sequence[Execution], begun: Sequence[Begun], now_s: float) -> int:
    """Workers that are up, or on their way."""
    up = sum(each.is_up for each in executions)
    coming = [start for start in begun if now_s - start.at < APPEAR_S]
    return up + sum(max(0, start.count - len(own(start, executions))) for start in coming)


def own(start: Begun, executions: Sequence[Execution]) -> list[Execution]:
    return [each for each in executions if each.wake == start.wake or each.id in start.ids]


def overdue(start: Begun, backend: Backend, now_s: float) -> bool:
    """Should its worker have shown itself by now?"""
    return now_s - start.at > backend.timeout_s


def shortened(words: str) -> str:
    """What others said, as it is told on."""
    return words if len(words) <= MAX_WORDS else f"{words[: MAX_WORDS - 1]}…"


def _judge(
    breaker: Breaker,
    start: Begun,
    backend: Backend,
    executions: Sequence[Execution],
    reports_of: ReportsOf,
    now_s: float,
) -> tuple[Breaker, Begun | None]:
    """The breaker after what is known of a start, and the start while there is more to come of it."""
    mine = own(start, executions)
    if any(each.is_up for each in mine):
        return _judge_running(breaker, start, backend, reports_of, now_s)
    if len(mine) < start.count and now_s - start.at < APPEAR_S:
        return breaker, start
    reports = reports_of(start)
    if trouble := _trouble(mine, [report for report in reports if report.backend == backend.name]):
        return breaker.failed(trouble, now_s, backend.borne, backend.pause_s), None
    if any(report.ended_jobs for report in reports):
        return breaker.worked(), None
    # somebody must have taken what it was started for; if nobody did, the next one would find nothing either
    return breaker.failed("its worker found nothing to do", now_s, backend.borne, backend.pause_s), None


def _judge_running(
    breaker: Breaker, start: Begun, backend: Backend, reports_of: ReportsOf, now_s: float
) -> tuple[Breaker, Begun | None]:
    if start.worked:
        return breaker, start
    reports = [report for report in reports_of(start) if report.backend == backend.name]
    if any(report.ended_jobs for report in reports):
        return breaker.worked(), start.model_copy(update={"worked": True})
    if not reports and overdue(start, backend, now_s):
        words = f"its worker left no report within {backend.timeout_s:.0f} s"
        return breaker.failed(words, now_s, backend.borne, backend.pause_s), None
    return breaker, start


def _trouble(ended: Sequence[Execution], reports: Sequence[RunReport]) -> str:
    """What went wrong with workers that have ended; empty when nothing did."""
    if failed := [each for each in ended if each.state == "failed"]:
        return f"its worker failed: {shortened(failed[0].words or failed[0].id)}"
    if not reports:
        said = next((each.words for each in ended if each.words), "nothing is known of it")
        return f"its worker ended without a report: {shortened(said)}"
    if bad := next((report for report in reports if report.unavailable), None):
        return shortened(bad.why)
    if any(report.ended_jobs for report in reports):
        return ""
    if killed := next((report for report in reports if report.state == "running"), None):
        return f"its worker was killed (run {killed.run})"
    passed = next((report.passed for report in reports if report.passed), ())
    return f"its worker left all that it got to others, such as {passed[0]}" if passed else ""
