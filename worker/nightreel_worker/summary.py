"""What a run's page says, before it is HTML or text: the verdict, the money, and what to do next."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .highlights import Ending, alike
from .report import RunReport
from .settings import Settings

RETRY_ONE_BY_ONE = 3  # jobs of a group that get a command each; of more, the whole batch gets one
STAGES = {
    "start": "the process starts",
    "import": "libraries load",
    "load": "the model loads",
    "wait": "jobs are fetched and checked",
    "render": "keyframes are drawn",
    "film": "films are made and encoded",
    "upload": "videos are checked and stored",
    "idle": "nothing to do",
    "drain": "the worker leaves",
}
"""Of a run, in order, in words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's commands find its work."""

    store: str
    queue: str = ""
    """Empty: inside the store."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A folder by its whole path: a page is read elsewhere than it was made."""
        return cls(settings.store if "://" in settings.store else str(Path(settings.store).absolute()), settings.queue)

    @property
    def exports(self) -> str:
        """A line for a shell."""
        named = {"NIGHTREEL_STORE": self.store} | ({"NIGHTREEL_QUEUE": self.queue} if self.queue else {})
        return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in named.items())


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do, and the commands for it."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """What one stage took."""

    stage: str
    what: str
    seconds: float
    share: float
    """Of the run, 0 to 1."""
    usd: float


def verdict(report: RunReport) -> str:
    """The run in one sentence."""
    if report.unavailable:
        return f"It could not work: {report.why}"
    counts = [(report.done, "made"), (report.failed, "failed"), (report.cancelled, "called off")]
    told = ", ".join(f"{count:,} {word}" for count, word in counts if count)
    if not told:
        return "It made nothing: all that came had ended before, or went back." if report.had_work else "No work came."
    return f"{told}, for {dollars(report.usd)}."


def state(report: RunReport) -> str:
    """How it ended."""
    if report.state == "running":
        return f"running, or killed after {report.ended_at:%H:%M:%S}; these are the figures of then"
    return report.why


def when(report: RunReport) -> str:
    """In words; the end without its day when it is the same."""
    began, ended = report.started_at, report.ended_at
    last = f"{ended:%H:%M}" if ended.date() == began.date() else f"{ended:%d %B %H:%M}"
    return f"{began:%d %B %Y, %H:%M} to {last} UTC".lstrip("0")


def spent(report: RunReport) -> Iterator[Spent]:
    """In the order of a run; what it adds up to are the run's seconds and dollars."""
    for stage, what in STAGES.items():
        if (seconds := report.stages_s.get(stage)) and report.seconds:
            share = seconds / report.seconds
            yield Spent(stage, what, seconds, share, report.usd * share)


def by_reason(report: RunReport) -> list[list[Ending]]:
    """What ended without a video, a list for each reason and in it one entry a batch; the most frequent first."""
    groups: dict[tuple[str, str], list[Ending]] = {}
    for each in report.endings:
        groups.setdefault((each.state, alike(each.reason)), []).append(each)
    return sorted(groups.values(), key=lambda group: -total(group))


def total(group: list[Ending]) -> int:
    return sum(each.count for each in group)


def again(ending: Ending) -> tuple[str, ...]:
    """The commands that run these jobs again; a batch's own takes all of it that failed or was called off."""
    batch = shlex.quote(ending.batch)
    if ending.count <= min(RETRY_ONE_BY_ONE, len(ending.jobs)):
        return tuple(f"nightreel retry {batch} {shlex.quote(job)}" for job in ending.jobs)
    return (f"nightreel retry {batch}",)


def state_word(ending: Ending) -> str:
    return "failed" if ending.state == "failed" else "called off"


def named(ending: Ending) -> str:
    """Which jobs, and of which batch."""
    more = f" and {ending.count - len(ending.jobs):,} more" if ending.count > len(ending.jobs) else ""
    return f"{', '.join(ending.jobs)}{more}, of {ending.batch}"


def advice(report: RunReport) -> Iterator[Advice]:
    """What to do next, the most urgent first."""
    if report.unavailable:
        yield Advice("Queue, store or model could not be had. See what is wrong, and mend it:", ("nightreel doctor",))
    if report.state == "running":
        yield Advice("It works still, or was killed; then its jobs come back by themselves.", ("nightreel status",))
    if failed := [each for each in report.endings if each.state == "failed"]:
        batches = dict.fromkeys(shlex.quote(each.batch) for each in failed)
        yield Advice(
            "Read why jobs failed, mend that, and ask for another round. Finished keyframes are not rendered again.",
            tuple(f"nightreel retry {batch}" for batch in batches),
        )
    if report.rejected:
        yield Advice(
            f"{counted(report.rejected, 'message')} could not be read as a job. What came, and what is wrong with it, lies in"
            " the store under .nightreel/rejected/."
        )
    if report.returned:
        yield Advice(f"{counted(report.returned, 'time')} a job went back to the queue, to come again later.")
    if report.not_notified:
        yield Advice(f"{counted(report.not_notified, 'notice')} reached nobody; lines not_notified of the log say why.")
    if made := [each.batch for each in report.batches if each.done]:
        yield Advice("Fetch the videos:", tuple(f"nightreel download {shlex.quote(batch)}" for batch in made[:5]))


def dollars(usd: float) -> str:
    """Cents for sums that have any, more digits for smaller ones."""
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def duration(seconds: float) -> str:
    whole = dt.timedelta(seconds=round(seconds))
    return f"{seconds:.1f} s" if seconds < 60 else str(whole)


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
