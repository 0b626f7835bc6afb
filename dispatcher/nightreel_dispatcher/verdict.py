"""What is done about a backlog: the wake rule's answer, unless a hold or earlier starts that came to nothing say otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .backlog import Backlog
from .starts import Ledger
from .wake import Policy, decide


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many workers to start now, and what is told."""

    start: int
    words: str
    again_s: float = math.inf
    """In how many seconds the answer changes although nothing happens."""
    trouble: bool = False
    """Is it a person's turn?"""


def judge(backlog: Backlog, ledger: Ledger, running: int, policy: Policy, stop: str | None, now_s: float) -> Verdict:
    """stop: why nothing is to be started whatever waits, or None."""
    decision = decide(backlog.waiting, running, policy, now_s)
    again_s = min(decision.look_again_s, math.inf if backlog.next_ready_s is None else backlog.next_ready_s)
    words = f"{decision.reason}; {backlog.remark}" if backlog.remark else decision.reason
    trouble = bool(backlog.remark)
    if not decision.start:
        return Verdict(0, words, again_s, trouble)
    if stop is not None:
        return Verdict(0, stop, again_s)
    if wait_s := ledger.waits_s(now_s):
        return Verdict(0, f"{words}; but {restraint(ledger)}", min(again_s, wait_s), True)
    return Verdict(decision.start, words, again_s, trouble)


def restraint(ledger: Ledger) -> str:
    """Why nothing is started, and until when."""
    assert ledger.not_before is not None
    what = "the last start" if ledger.vain == 1 else f"the last {ledger.vain} starts"
    said = f" ({ledger.problem})" if ledger.problem else ""
    return (
        f"{what} came to nothing{said}: the next one is not before {ledger.not_before:%Y-%m-%d %H:%M:%S} UTC;"
        " when that is mended: nightreel wake --again"
    )
