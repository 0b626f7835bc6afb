"""The backends as people see them: how each is, what it costs, and why it would get the next worker or not."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, Field

from nightreel_storage.base import Store

from .answers import BackendAnswer
from .board import BackendState, Board, Boards
from .fleet import Fleet, Member, trouble

Light = Literal["green", "yellow", "red"]


class Line(BaseModel):
    """One backend."""

    name: str
    launcher: str
    model: str
    light: Light = Field(
        description="green: work goes there; yellow: it failed, or nobody has asked it; red: nothing does"
    )
    state: str = Field(description="the same in words")
    latency_s: float | None = Field(description="that it took to answer when it was last asked; null before")
    running: int = Field(description="workers that are up, or on their way")
    max_workers: int
    price: str
    video_usd: float = Field(description="what a video costs there")
    video_s: float = Field(description="what a worker needs for it")
    measured: bool = Field(description="by its last runs; false: guessed")
    next: bool = Field(description="would it get the next worker?")
    reason: str = Field(description="why, or why not")


def lines(fleet: Fleet, board: Board) -> list[Line]:
    """In the order that counts. Raises StoreError, QueueUnavailable."""
    members = {member.name: member for member in fleet.members}
    now_s = time.time()
    return [
        _line(fleet, members[choice.name], board.state(choice.name), bool(choice.start), choice.reason, now_s)
        for choice in fleet.choices(board)
    ]


def _line(fleet: Fleet, member: Member, state: BackendState, takes: bool, reason: str, now_s: float) -> Line:
    backend, expense = member.backend, fleet.expense(member)
    light, words = light_of(member.name, state, now_s)
    return Line(
        name=member.name,
        launcher=backend.launcher,
        model=backend.model,
        light=light,
        state=words,
        latency_s=state.health.latency_s,
        running=state.running,
        max_workers=backend.max_workers,
        price=backend.price,
        video_usd=round(expense.usd, 6),
        video_s=round(expense.job_s, 3),
        measured=expense.measured,
        next=takes,
        reason=reason,
    )


def last_seen(store: Store) -> list[BackendAnswer]:
    """As somebody last saw them, for whoever has only the store. Raises StoreError."""
    found, now_s = [], time.time()
    for name, state in Boards(lambda: store).read().backends.items():
        light, words = light_of(name, state, now_s)
        found.append(BackendAnswer(name=name, light=light, state=words, running=state.running))
    return found


def light_of(name: str, state: BackendState, now_s: float) -> tuple[Light, str]:
    """How a backend is, and why."""
    if away := state.health.told(name):
        return "red", away
    said = trouble(state.breaker, now_s)
    match state.breaker.state(now_s):
        case "open":
            return "red", said
        case "half-open" | "trying":
            return "yellow", said
    if said:
        return "yellow", said
    return ("green", "well") if state.health.at else ("yellow", "nobody has asked it")
