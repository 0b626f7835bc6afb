"""The page of a run as text, for a terminal or a letter."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .highlights import JOBS_A_GROUP, Finished
from .report import RunReport
from .summary import (
    Place,
    advice,
    again,
    by_reason,
    counted,
    dollars,
    duration,
    named,
    spent,
    state,
    state_word,
    total,
    verdict,
    when,
)

WIDTH = 88
BAR = 24  # characters of a stage that took all of the run


def run_text(report: RunReport, place: Place) -> str:
    """Lines of at most WIDTH characters where names and commands allow it."""
    sections = (_head(report), _advice(report, place), _endings(report), _money(report), _slowest(report))
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"


def _head(report: RunReport) -> Iterator[str]:
    yield f"Nightreel, run {report.run}"
    yield f"{when(report)}, {duration(report.seconds)}"
    yield from _wrapped(verdict(report))
    if report.why or report.state == "running":
        yield from _wrapped(f"Why it ended: {state(report)}")
    if report.done:
        yield f"{dollars(report.usd / report.done)} and {report.seconds / report.done:.1f} s a video, all shared out;"
        yield f"{report.keyframes:,} keyframes rendered, {report.reused:,} from the store"
    for each in report.batches:
        yield f"  {each.batch}: {each.done:,} made, {each.failed:,} failed, {each.cancelled:,} called off"


def _advice(report: RunReport, place: Place) -> Iterator[str]:
    found = list(advice(report))
    if not found:
        return
    yield from _titled("What to do next")
    for number, each in enumerate(found, 1):
        yield from _wrapped(each.text, f"{number}. ", "   ")
        yield from (f"     {command}" for command in each.commands)
    if any(each.commands for each in found):
        yield f"   Commands go with: {place.exports}"


def _endings(report: RunReport) -> Iterator[str]:
    if not report.endings:
        return
    yield from _titled("What was not made")
    for group in by_reason(report):
        yield from _wrapped(f"{total(group):,} {state_word(group[0])}: {group[0].reason}", "", "  ")
        for each in group:
            yield from _wrapped(named(each), "  ", "  ")
            yield from (f"     {command}" for command in again(each))


def _money(report: RunReport) -> Iterator[str]:
    rows = list(spent(report))
    if not rows:
        return
    yield from _titled(f"Where {dollars(report.usd)} went, at the price {report.price}")
    for row in rows:
        bar = "#" * round(BAR * row.share)
        yield f"{row.stage:>7} {row.seconds:9.1f} s {row.share:6.1%} {dollars(row.usd):>9}  {bar:{BAR}} {row.what}".rstrip()
    yield f"{dollars(report.jobs_usd)} on receipts, {dollars(report.shared_usd)} shared by all"


def _slowest(report: RunReport) -> Iterator[str]:
    if not report.slowest:
        return
    yield from _titled("What took longest")
    for each in report.slowest[:JOBS_A_GROUP]:
        yield f"{each.seconds:9.1f} s {dollars(each.usd):>9}  {_what(each)}"


def _what(each: Finished) -> str:
    return f"{each.batch}/{each.job}: {each.duration_s:g} s of video, {counted(each.keyframes, 'keyframe')}"


def _titled(title: str) -> Iterator[str]:
    yield title
    yield "-" * len(title)


def _wrapped(text: str, first: str = "", then: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
