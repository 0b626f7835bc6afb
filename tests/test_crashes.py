"""The table of docs/explanation/commit.md, row by row: at each step of the commit protocol something is killed.

Each row strikes real workers (SIGKILL or SIGTERM, by their own hand) right before or after one step; its faults happen
at the same time, each in a house of its own.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from house import CALM_LEASE_S, House, Run, at_once, finish, job, until, verdict

from nightreel_queue.job import Job

PAGE = Path(__file__).parent.parent / "docs/explanation/commit.md"
GIVEN_BACK_S = 30.0  # that an emulator on a busy machine may take to show it
LONG_S = "150"  # that a worker waits for work which ends before that, by the fault


@dataclass(frozen=True)
class Step:
    """A step of the protocol, and what follows from a fault there."""

    row: str
    """As in the page's table."""
    place: str
    """module:Class.method, or module:function."""
    after: bool
    """Right after the step instead of right before it."""
    phase: Literal["claimed", "renderer ready", "rendering", "committing"]
    """What the worker does with the job. A second job is being rendered while it commits."""
    call: int = 1
    """Which call of it."""
    renders: tuple[str, ...] = ()
    """Keyframes that the next worker renders when this one was killed."""
    films: bool = True
    """The next worker then films the job again."""
    comes_back: bool = True
    """The message then comes back."""

    @property
    def has_renderer(self) -> bool:
        return self.phase != "claimed"

    @property
    def has_ffmpeg(self) -> bool:
        return self.phase in ("rendering", "committing")


ONE, TWO = "one", "two after the fault"
STEPS = [
    Step("claimed", "nightreel_worker.admission:Admission.request", False, "claimed", renders=(ONE, TWO)),
    Step("attempt written", "nightreel_storage.attempts:Attempts.open", True, "renderer ready", renders=(ONE, TWO)),
    Step("keyframe made", "nightreel_storage.keyframes:Keyframes.put", False, "rendering", renders=(ONE, TWO)),
    Step("keyframe stored", "nightreel_storage.keyframes:Keyframes.put", True, "rendering", renders=(TWO,)),
    Step("filmed", "nightreel_worker.commit:check", False, "committing"),
    Step("verified", "nightreel_worker.commit:check", True, "committing"),
    Step("video put", "nightreel_worker.commit:Committer._put", True, "committing", films=False),
    Step("poster put", "nightreel_worker.commit:Committer._put", True, "committing", call=2, films=False),
    Step("receipt written", "nightreel_storage.receipts:Receipts.commit", True, "committing", films=False),
    Step("before the ack", "Delivery.ack", False, "committing", films=False),
    Step("after the ack", "Delivery.ack", True, "committing", films=False, comes_back=False),
]

Build = Callable[..., House]


def at_each(steps: Sequence[Step]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", steps, ids=lambda step: step.row.replace(" ", "-"))


@at_each(STEPS)
def test_whenever_a_worker_is_killed_or_asked_to_leave_each_job_ends_once(build: Build, step: Step) -> None:
    at_once(
        {
            "kill -9 of the worker": lambda: kill_the_worker(build("worker"), step),
            "SIGTERM": lambda: ask_to_leave(build("sigterm", CALM_LEASE_S), step),
        }
    )


@at_each([step for step in STEPS if step.has_renderer])
def test_whenever_a_renderer_or_an_ffmpeg_is_killed_each_job_ends_once(make_named: Build, step: Step) -> None:
    """On one machine alone: neither of them knows of queues and stores."""
    scenes = {"kill -9 of the renderer": lambda: kill_the_renderer(make_named("renderer", CALM_LEASE_S), step)}
    if step.has_ffmpeg:
        scenes["kill -9 of ffmpeg"] = lambda: kill_ffmpeg(make_named("ffmpeg", CALM_LEASE_S), step)

    at_once(scenes)


def kill_the_worker(house: House, step: Step) -> None:
    """The next worker finds the truth, and makes only what was not finished."""
    # Given a job whose second keyframe comes only when the worker is dead, if that dies before it
    house.enqueue(job("film", ONE, TWO))
    if step.phase == "committing":
        house.end_the_fault()

    died = house.work(*struck(house, step, "kill_worker"), idle_timeout_s=LONG_S)

    assert died.code == -signal.SIGKILL
    until(lambda: not house.processes(), "renderer and ffmpeg to go with it")
    house.end_the_fault()
    rendered_before = Counter(house.rendered())
    receipt = house.receipt("film") if house.has_ended("film") else None
    if step.comes_back:
        house.message_back()

    run = house.work_calmly()

    assert run.code == 0
    assert Counter(house.rendered()) - rendered_before == Counter(step.renders)
    assert bool(run.events("renderer_started")) == step.films
    assert receipt in (None, house.receipt("film"))
    verdict(house, "film", again={ONE: 1} if step.row == "keyframe made" else {})


def kill_the_renderer(house: House, step: Step) -> None:
    """The same worker goes on. Who was being rendered pays an attempt, and no keyframe that was told of."""
    fault = "kill_busy_renderer" if step.has_ffmpeg else "kill_renderer"

    run = struck_run(house, step, fault, idle_timeout_s="2")
    house.work_off(*names(step))

    assert run.code == 0
    assert run.report["renderer_restarts"] == 1
    if paying := in_the_renderer(step):
        assert ends(house, paying.id) == ["failed", "done"]
        assert "SIGKILL" in house.attempts(str(paying.id))[0].reason
    assert step.phase == "rendering" or ends(house, "film") == ["done"]
    verdict(house, *names(step))


def kill_ffmpeg(house: House, step: Step) -> None:
    """The same worker and the same renderer go on; the job that was being filmed pays an attempt, and no keyframe."""
    run = struck_run(house, step, "kill_ffmpeg", idle_timeout_s="2")
    house.work_off(*names(step))

    assert run.code == 0
    assert run.report["renderer_restarts"] == 0
    paying = in_the_renderer(step)
    assert paying is not None
    assert ends(house, paying.id) == ["failed", "done"]
    assert "ffmpeg" in house.attempts(str(paying.id))[0].reason
    assert step.phase == "rendering" or ends(house, "film") == ["done"]
    verdict(house, *names(step))


def ask_to_leave(house: House, step: Step) -> None:
    """What is in the commit stage ends; the rest is at once anybody's, and no attempt was used up."""
    fault = "leave_when_busy" if step.has_ffmpeg else "leave"

    run = struck_run(house, step, fault, idle_timeout_s=LONG_S, drain_s="60")

    assert run.code == 0
    assert run.report["why"] == "SIGTERM asked it to leave"
    assert run.events("left_unfinished") == run.events("not_acked") == []
    assert house.processes() == []
    assert house.leftovers() == []
    left = in_the_renderer(step) or job("film", ONE, TWO)
    assert [name for name in names(step) if not house.has_ended(name)] == [left.id]
    assert set(ends(house, left.id)) <= {"preempted"}
    delivery = house.queue.pull(GIVEN_BACK_S)
    assert delivery is not None
    assert json.loads(delivery.body)["id"] == left.id
    delivery.release()

    house.end_the_fault()
    assert house.work_calmly(max_attempts="1").code == 0
    verdict(house, *names(step), again={} if step.has_ffmpeg else {ONE: 1})


def struck(house: House, step: Step, fault: str) -> tuple[str, ...]:
    return house.struck(step.place, fault, after=step.after, call=step.call)


def struck_run(house: House, step: Step, fault: str, **settings: str) -> Run:
    """Let a worker be struck, and run to its end. While the job is committed, another one is in the renderer."""
    committing = step.phase == "committing"
    house.enqueue(job("film", ONE, "two") if committing else job("film", ONE, TWO))
    process = house.start(*struck(house, step, fault), **settings)
    if committing:
        until(lambda: house.attempts("film"), "the first job to begin", process)
        house.enqueue(job("next", "three", "four after the fault"))
    run = finish(process)
    assert house.was_struck
    return run


def names(step: Step) -> list[str]:
    return ["film", "next"] if step.phase == "committing" else ["film"]


def in_the_renderer(step: Step) -> Job | None:
    """The job that loses what is killed there."""
    match step.phase:
        case "rendering":
            return job("film", ONE, TWO)
        case "committing":
            return job("next", "three", "four after the fault")
    return None


def ends(house: House, name: str | None) -> list[str]:
    return [attempt.end for attempt in house.attempts(str(name))]


def rows() -> list[list[str]]:
    """The page's table: cells of each row, the head's first."""
    table = PAGE.read_text(encoding="utf-8").partition("## Crash")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_the_page_has_a_row_for_each_step_and_a_column_for_each_fault() -> None:
    head, *body = rows()

    assert head == [
        "at this step", "worker killed: the next delivery", "renderer killed", "ffmpeg killed", "SIGTERM",
    ]  # fmt: skip
    assert [row[0] for row in body] == [step.row for step in STEPS]


def test_the_page_says_what_the_tests_prove() -> None:
    by_phase = {
        "claimed": ["-", "-", "handed back"],
        "renderer ready": ["replaced", "-", "handed back"],
        "rendering": ["tried again", "tried again", "handed back"],
        "committing": ["the neighbour", "the neighbour", "ends"],
    }
    for (_, after_kill, *others), step in zip(rows()[1:], STEPS, strict=True):
        assert others == by_phase[step.phase], step.row
        assert ("starts no renderer" in after_kill) == (not step.films and step.comes_back), step.row
