"""The crash table of docs/explanation/commit.md, row by row: a worker is killed, the next one finds the truth.

Each row kills a real worker (SIGKILL, by its own hand) right before or after one step of the commit protocol.
"""

from __future__ import annotations

import hashlib
import re
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import House, job

PAGE = Path(__file__).parent.parent / "docs/explanation/commit.md"


@dataclass(frozen=True)
class Crash:
    """Where a worker is killed, and what its successor has to do for the job again."""

    row: str
    """As in the page's table."""
    place: str
    """module:Class.method, or module:function."""
    after: bool
    """Right after the step instead of right before it."""
    call: int = 1
    """Which call of it."""
    renders: tuple[str, ...] = ()
    """Keyframes that the next worker renders."""
    films: bool = True
    """The next worker films the job again."""


CRASHES = [
    Crash("claimed", "nightreel_worker.admission:Admission.request", after=False, renders=("one", "two")),
    Crash("attempt written", "nightreel_storage.attempts:Attempts.open", after=True, renders=("one", "two")),
    Crash("keyframe made", "nightreel_storage.keyframes:Keyframes.put", after=False, renders=("one", "two")),
    Crash("keyframe stored", "nightreel_storage.keyframes:Keyframes.put", after=True, renders=("two",)),
    Crash("filmed", "nightreel_worker.commit:check", after=False),
    Crash("verified", "nightreel_worker.commit:check", after=True),
    Crash("video put", "nightreel_worker.commit:Committer._put", after=True, films=False),
    Crash("poster put", "nightreel_worker.commit:Committer._put", after=True, call=2, films=False),
    Crash("receipt written", "nightreel_storage.receipts:Receipts.commit", after=True, films=False),
    Crash("before the ack", "nightreel_queue.sqlite:SqliteDelivery.ack", after=False, films=False),
    Crash("after the ack", "nightreel_queue.sqlite:SqliteDelivery.ack", after=True, films=False),
]


def killed_at(crash: Crash) -> tuple[str, ...]:
    """A worker that kills itself at the crash's step."""
    module, _, path = crash.place.partition(":")
    program = f"""
import importlib, os, signal, sys
owner = importlib.import_module({module!r})
*owners, name = {path!r}.split(".")
for each in owners:
    owner = getattr(owner, each)
original, calls = getattr(owner, name), []

def step(*args, **options):
    calls.append(1)
    if len(calls) == {crash.call} and not {crash.after}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **options)
    if len(calls) == {crash.call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, step)
sys.argv = ["nightreel", "work"]
from nightreel.main import main
main()
"""
    return sys.executable, "-c", program


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.row.replace(" ", "-"))
def test_whatever_step_a_worker_dies_at_the_job_ends_once(house: House, crash: Crash) -> None:
    # Given a worker that dies at this step; the second keyframe comes late, so that the first is on its way by then
    house.enqueue(job("film", "one", "half a second two"))
    died = house.work(*killed_at(crash))
    assert died.code == -signal.SIGKILL
    rendered_before = Counter(house.rendered())

    # When another worker runs
    run = house.work_all()

    # Then the job is done, once, and its receipt tells the truth
    assert run.code == 0
    receipt = house.receipt("film")
    assert receipt.state == "done"
    for output in receipt.outputs:
        content, entry = house.store.get(output.name)
        assert hashlib.sha256(content).hexdigest() == output.sha256 == entry.sha256
    # And only what was not finished is made again
    again = Counter(house.rendered()) - rendered_before
    assert sorted(again) == sorted(prompt if prompt == "one" else "half a second two" for prompt in crash.renders)
    assert bool(run.events("renderer_started")) == crash.films
    # And nothing is left behind
    assert house.queue.backlog().total == 0
    assert house.processes() == []
    assert house.leftovers() == []


def test_the_page_has_a_row_for_each_of_these_crashes() -> None:
    rows = re.findall(
        r"^\| ([a-z ]+) \| .* \|$", PAGE.read_text(encoding="utf-8").partition("## Crash")[2], re.MULTILINE
    )

    assert [row for row in rows if row != "killed when"] == [crash.row for crash in CRASHES]
