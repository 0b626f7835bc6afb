"""All backends as one launcher: who asks it for workers gets them from where routes.py says.

So the waker decides how many, and this where. It judges starts itself, by breakers: one bad backend must not make the others wait.
Everything is done when somebody looks: who looks seldom hears late of a backend that is away, and nothing else goes wrong.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from .backends import Backend
from .board import BackendState, Begun, Board, Boards, Health
from .breaker import Breaker
from .expenses import Expense, Expenses
from .health import Answer, Ask
from .judging import judged, overdue, own, shortened
from .launchers.base import Execution, Launcher, LauncherError, LauncherUnavailable, NoneMay, NotAllowed, QuotaExceeded
from .routes import Choice, Seen, Wish, choose

log = structlog.get_logger()

ASK_EVERY_S = 30.0
ASK_AGAIN_S = 5.0  # while a backend has missed an answer, and not as many as it may, or has workers that shall leave
KEEP_S = 300.0  # that the last listing of a launcher counts which does not answer
LEAST_RETRY_S = 2.0
TEND_S = 1.0  # between two glances at whether somebody is to be asked


@dataclass(frozen=True, slots=True)
class Member:
    """A backend, and what starts its workers."""

    backend: Backend
    launcher: Launcher | None
    ask: Ask | None = None
    """Asks its source; None: only the launcher is asked."""

    @property
    def name(self) -> str:
        return self.backend.name


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a backend said at one look."""

    executions: Sequence[Execution] | None
    """None when its launcher did not answer."""
    answer: Answer | None
    """None when it was not asked."""


class Fleet:
    """The backends of one store, as a launcher. Safe to use from several threads, and beside others of the same store."""

    name = "backends"

    def __init__(
        self,
        members: Sequence[Member],
        boards: Boards,
        expenses: Expenses,
        waiting: Callable[[], int],
        wish: Wish,
        *,
        ask_every_s: float = ASK_EVERY_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """waiting: messages in the queue. wish: without the preferred backend, which the board says."""
        self.members = tuple(members)
        self._boards, self._expenses, self._waiting, self._wish = boards, expenses, waiting, wish
        self._ask_every_s, self._now = ask_every_s, now
        self._lock = threading.Lock()
        self._listed: dict[str, tuple[float, Sequence[Execution]]] = {}
        self._due: dict[str, float] = {}

    # the launcher

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """As in the protocol. For what a backend refuses the next one is asked, in the same start; each is asked once."""
        with self._lock:
            ids: list[str] = []
            asked: set[str] = set()
            while len(ids) < count:
                choices = self._choices(self._boards.read(), count - len(ids), asked)
                wanted = [choice for choice in choices if choice.start]
                if not wanted:
                    break
                for choice in wanted:
                    asked.add(choice.name)
                    ids += self._start(choice, wake)
            if not ids:
                raise NoneMay(*self._why_none())
            return ids

    def start_at(self, name: str, wake: str) -> Sequence[str]:
        """Start one worker at this backend and at no other, because somebody asks for it. Raises NoneMay with the reason."""
        with self._lock:
            choice = self._asked_for(name)
            if not choice.start:
                raise NoneMay(choice.reason, LEAST_RETRY_S)
            ids = self._start(choice, wake)
            if not ids:
                raise NoneMay(trouble(self._boards.read().state(name).breaker, self._now()), LEAST_RETRY_S)
            return ids

    def executions(self) -> Sequence[Execution]:
        """As in the protocol, each id after its backend's name. Asks how the backends are, and judges what was started."""
        with self._lock:
            heard = self._look(at_once=False)
        found = {name: said.executions for name, said in heard.items()}
        return [replace(each, id=f"{name}:{each.id}") for name, listed in found.items() for each in listed or ()]

    def cancel(self, id: str) -> None:
        """As in the protocol."""
        name, _, inner = id.partition(":")
        launcher = next((member.launcher for member in self.members if member.name == name), None)
        if launcher is None or not inner:
            raise NotAllowed(f"there is no worker {id}; see: nightreel workers")
        launcher.cancel(inner)

    # what people see and say

    def choices(self, board: Board) -> list[Choice]:
        """Where the next worker would be started, and why."""
        return self._choices(board, 1, set())

    def against(self, name: str) -> str:
        """Why `start_at` would start nothing there now; empty when it would."""
        choice = self._asked_for(name)
        return "" if choice.start else choice.reason

    def expense(self, member: Member) -> Expense:
        """What a video takes and costs there. Raises StoreUnavailable."""
        return self._expenses.of(member.backend)

    def prefer(self, name: str, by: str) -> Board:
        """Let a backend come first from now on; none when `name` is empty. Raises StoreError, NotAllowed."""
        names = [member.name for member in self.members]
        if name and name not in names:
            raise NotAllowed(f"no backend {name[:40]}; there are {', '.join(names)}")
        return self._boards.prefer(name, by, _utc(self._now()))

    def board(self) -> Board:
        """As of the last look that anybody took. Raises StoreError."""
        return self._boards.read()

    def check(self) -> Board:
        """Ask all backends now."""
        with self._lock:
            self._look(at_once=True)
        return self._boards.read()

    def glance(self) -> Board:
        """Ask all backends now; nothing is written, judged or ended. For those whose starts somebody else judges."""
        board, now_s = Board(), self._now()
        for member in self.members:
            heard = self._hear(member, asked=True)
            up = sum(each.is_up for each in heard.executions or ())
            state = BackendState(health=_health(Health(), heard.answer, now_s), running=up)
            board = board.with_state(member.name, state)
        return board

    def tend(self, stop: threading.Event, changed: Callable[[str], None]) -> None:
        """Look after the backends until `stop`; `changed` hears, in words, of what may call for another worker."""
        while not stop.wait(TEND_S):
            if time.monotonic() < min(self._due.values(), default=0.0):
                continue
            try:
                before = self.board()  # as of now: a worker may have been started since the last look
                self.executions()
                after = self.board()
            except Exception as exc:  # noqa: BLE001  # the boundary: the store may be back at the next look
                log.warning("backends_not_seen", reason=str(exc))
                stop.wait(self._ask_every_s)
                continue
            if news := _news(before, after):
                changed(news)

    # looking

    def _look(self, *, at_once: bool) -> dict[str, _Heard]:
        now_s = self._now()
        asked = [member for member in self.members if at_once or time.monotonic() >= self._due.get(member.name, 0.0)]
        with ThreadPoolExecutor(len(self.members)) as pool:
            heard = dict(
                zip(
                    [member.name for member in self.members],
                    pool.map(lambda member: self._hear(member, member in asked), self.members),
                    strict=True,
                )
            )
        before: dict[str, BackendState] = {}

        def seen(board: Board) -> Board:
            for member in self.members:
                before[member.name] = board.state(member.name)
                board = board.with_state(
                    member.name, self._judged(member, before[member.name], heard[member.name], now_s)
                )
            return board

        board = self._boards.change(seen, _utc(now_s))
        for member in self.members:
            self._follow_up(member, before[member.name], board.state(member.name), heard[member.name], now_s)
        return heard

    def _hear(self, member: Member, asked: bool) -> _Heard:
        if member.launcher is None and member.ask is None:
            return _Heard((), None)  # there is nobody to ask
        begin = time.monotonic()
        executions: Sequence[Execution] | None = ()
        words = ""
        if member.launcher is not None:
            try:
                executions = member.launcher.executions()
                self._listed[member.name] = (begin, executions)
            except LauncherError as exc:
                executions, words = None, str(exc)
                at, last = self._listed.get(member.name, (begin, ()))
                if last and begin - at < KEEP_S:
                    executions = last
        answer = Answer(not words, shortened(words), time.monotonic() - begin)
        if asked and answer.ok and member.ask is not None:
            answer = member.ask()
        return _Heard(executions, answer if asked or not answer.ok else None)

    def _judged(self, member: Member, state: BackendState, heard: _Heard, now_s: float) -> BackendState:
        health = _health(state.health, heard.answer, now_s)
        return judged(state, member.backend, heard.executions, health, self._expenses.reports, now_s)

    def _follow_up(
        self, member: Member, before: BackendState, after: BackendState, heard: _Heard, now_s: float
    ) -> None:
        """When to ask again; and workers that cannot work are told to leave, so that others may have their jobs."""
        away = heard.answer is not None and not heard.answer.ok and after.health.missed >= member.backend.borne
        late = [start for start in before.begun if not start.worked and overdue(start, member.backend, now_s)]
        dropped = [start for start in late if start not in after.begun]
        leaving = [
            each
            for each in heard.executions or ()
            if each.is_up and (away or any(own(start, [each]) for start in dropped))
        ]
        for each in leaving:
            self._end(member, each)
        if heard.answer is not None:
            soon = leaving or 0 < after.health.missed < member.backend.borne
            every_s = min(self._ask_every_s, ASK_AGAIN_S) if soon else self._ask_every_s
            self._due[member.name] = time.monotonic() + every_s
        if before.breaker.opened != after.breaker.opened or before.health.ok != after.health.ok:
            log.warning("backend_changed", backend=member.name, **_told_of(after, now_s))

    def _end(self, member: Member, execution: Execution) -> None:
        assert member.launcher is not None
        try:
            member.launcher.cancel(execution.id)
        except LauncherError as exc:
            log.warning("worker_not_ended", backend=member.name, worker=execution.id, reason=str(exc))

    # starting

    def _asked_for(self, name: str) -> Choice:
        """As if it were preferred and nobody were in a hurry: what holds it back then no wish overrides."""
        found = self._choices(self._boards.read(), 1, set(), replace(self._wish, prefer=name, finish_within_s=math.inf))
        return replace(next(choice for choice in found if choice.name == name), route="asked for by hand")

    def _choices(self, board: Board, count: int, asked: set[str], wish: Wish | None = None) -> list[Choice]:
        now_s = self._now()
        seen = [self._seen(member, board.state(member.name), member.name in asked, now_s) for member in self.members]
        prefer = board.prefer.name if board.prefer else ""
        return choose(self._waiting(), count, seen, wish or replace(self._wish, prefer=prefer))

    def _seen(self, member: Member, state: BackendState, asked: bool, now_s: float) -> Seen:
        backend, expense = member.backend, self._expenses.of(member.backend)
        return Seen(
            member.name,
            backend.model,
            starts=member.launcher is not None,
            healthy=state.health.ok,
            health=state.health.told(member.name),
            breaker="open" if asked else state.breaker.state(now_s),
            trouble=trouble(state.breaker, now_s) or "it was asked for all that it has",
            running=state.running,
            max_workers=backend.max_workers,
            start_s=expense.start_s,
            job_s=expense.job_s,
            job_usd=expense.usd,
            passed=len(self._expenses.passed(backend)),
        )

    def _start(self, choice: Choice, wake: str) -> list[str]:
        """Ids of what was started; none when it was refused, or it is not known."""
        member = next(each for each in self.members if each.name == choice.name)
        backend, now_s = member.backend, self._now()
        assert member.launcher is not None
        begun = Begun(wake=wake, at=now_s, count=choice.start)
        self._note(backend, lambda state: state.begins(begun, now_s + backend.timeout_s))
        try:
            ids = tuple(member.launcher.start(choice.start, wake, choice.route))
        except LauncherError as exc:
            trouble_there = exc
            self._note(backend, lambda state: _refused(state, begun, trouble_there, backend, now_s))
            log.warning("backend_refused", backend=member.name, wake=wake, reason=str(exc))
            return []
        self._note(backend, lambda state: state.answers(wake, ids))
        log.info("backend_started", backend=member.name, count=len(ids), wake=wake, route=choice.route)
        return [f"{member.name}:{id_}" for id_ in ids]

    def _note(self, backend: Backend, how: Callable[[BackendState], BackendState]) -> None:
        self._boards.change(
            lambda board: board.with_state(backend.name, how(board.state(backend.name))), _utc(self._now())
        )

    def _why_none(self) -> tuple[str, float]:
        """Each backend's reason, and in how many seconds the first of them may have changed."""
        board, now_s = self._boards.read(), self._now()
        reasons = "; ".join(f"{choice.name}: {choice.reason}" for choice in self._choices(board, 1, set()))
        rests = [board.state(member.name).breaker.rests_s(now_s) for member in self.members if member.launcher]
        soonest_s = min([self._ask_every_s, *filter(None, rests)])
        return f"no backend may be started ({reasons})", max(LEAST_RETRY_S, soonest_s)


def _news(before: Board, after: Board) -> str:
    """Which backend is better or worse than before, or has lost a worker; empty when none is."""
    for name, state in after.backends.items():
        was = before.state(name)
        if was.health.ok != state.health.ok:
            return f"backend {name} {'answers again' if state.health.ok else 'does not answer'}"
        if was.breaker.opened != state.breaker.opened or state.running < was.running:
            return f"backend {name} has {state.running} workers, failures in a row: {state.breaker.failures}"
    return ""


def trouble(breaker: Breaker, now_s: float) -> str:
    """What a breaker says of its backend; empty when it is closed and nothing went wrong."""
    if not breaker.failures:
        return ""
    times = "once" if breaker.failures == 1 else f"{breaker.failures} times in a row"
    said = f"it failed {times}: {breaker.words}"
    match breaker.state(now_s):
        case "closed":
            return said
        case "open":
            return f"{said}; left alone until {_utc(breaker.open_until):%H:%M:%S} UTC"
        case "trying":
            return f"{said}; one worker tries it"
        case "half-open":
            return f"{said}; one worker may try it"


def _health(health: Health, answer: Answer | None, now_s: float) -> Health:
    return health if answer is None else health.heard(answer.ok, answer.words, answer.latency_s, _utc(now_s))


def _refused(state: BackendState, begun: Begun, error: LauncherError, backend: Backend, now_s: float) -> BackendState:
    """After a start that did not succeed. What got no answer may have begun: it counts as on its way until that is clear."""
    breaker = state.breaker
    if isinstance(error, QuotaExceeded | NotAllowed):  # the next moment would bring the same
        breaker = breaker.tripped(shortened(str(error)), now_s, backend.pause_s, error.retry_s)
    else:
        breaker = breaker.failed(shortened(str(error)), now_s, backend.borne, backend.pause_s)
    state = state.model_copy(update={"breaker": breaker})
    return state if isinstance(error, LauncherUnavailable) else state.without(begun)


def _told_of(state: BackendState, now_s: float) -> dict[str, object]:
    return {
        "healthy": state.health.ok,
        "said": state.health.words,
        "breaker": state.breaker.state(now_s),
        "trouble": trouble(state.breaker, now_s),
    }


def _utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
