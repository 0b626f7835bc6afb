"""A picture of what strategies make of a trace: arrivals, workers over time, cost and waiting. One SVG file, no library."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from .simulation import Jobs, Outcome

WIDTH, LEFT, RIGHT = 1040, 186, 294  # px: of all, of the rows' names, of the figures
PLOT = WIDTH - LEFT - RIGHT
HEAD, BARS, ROW, GAP, FOOT = 64, 96, 46, 12, 58  # px: heights
COLUMNS = 280  # steps of time in a row: two pixels each
MOST_BARS = 170
LATER_S = 1e8  # from here on a time is one since the epoch, not since a trace's beginning
STEPS_S = tuple(float(step) for step in (
    1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000,
))  # fmt: skip
INK, SOFT, GRID, BAR = "#1f2933", "#52606d", "#e4e7eb", "#7b8794"
COLOURS = {"clairvoyant": "#0f766e", "nightreel": "#2456c9"}
OTHERS = "#b0653a"
SVG = "http://www.w3.org/2000/svg"
STYLE = """role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="12\""""


def chart(title: str, jobs: Jobs, outcomes: Sequence[Outcome], usd_per_hour: float) -> str:
    """The picture as SVG. `outcomes` become rows in their order; the first one's cost is what the others are held against.

    The height of a row is the mean number of workers that were up, on one scale for all rows: ink is money.
    """
    begin_s, end_s = _time(jobs, outcomes)
    top = HEAD + BARS + 34
    height = top + len(outcomes) * (ROW + GAP) + FOOT
    parts = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {STYLE}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(24, 32, title, size=17, weight="bold"),
        *_grid(begin_s, end_s, HEAD, top + len(outcomes) * (ROW + GAP)),
        *_arrivals(jobs, begin_s, end_s),
        *_rows(outcomes, begin_s, end_s, usd_per_hour, top),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def lasting(seconds: float) -> str:
    """A length of time for people: 75 s, 12 min, 3.4 h, 45 d."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            value = seconds / unit_s
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _time(jobs: Jobs, outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """What the axis shows: until the last job has come, and all but the first strategy are done."""
    begin_s = jobs[0].at_s if jobs else 0.0
    ends = [exit_s for outcome in outcomes[1:] or outcomes for _, exit_s in outcome.spans]
    end_s = max([*ends, jobs[-1].at_s if jobs else 0.0])
    step_s = 3600.0 if end_s - begin_s > 36_000 else 60.0
    begin_s = math.floor(begin_s / step_s) * step_s
    return begin_s, max(end_s, begin_s + 60.0)


def _grid(begin_s: float, end_s: float, top: int, bottom: int) -> Iterator[str]:
    step_s = next((step for step in STEPS_S if (end_s - begin_s) / step <= 9), STEPS_S[-1])
    at_s = math.ceil(begin_s / step_s) * step_s
    while at_s <= end_s:
        x = _x(at_s, begin_s, end_s)
        yield f'<path d="M{x:.1f} {top}V{bottom + 4}" stroke="{GRID}"/>'
        yield _text(x, bottom + 20, _moment(at_s, step_s), anchor="middle", colour=SOFT)
        at_s += step_s
    yield _text(LEFT + PLOT / 2, bottom + 42, "time, UTC" if begin_s >= LATER_S else "time", "middle", colour=SOFT)


def _moment(at_s: float, step_s: float) -> str:
    if at_s < LATER_S:
        return lasting(at_s)
    moment = dt.datetime.fromtimestamp(at_s, dt.UTC)
    day = f"{moment:%a} {moment.day} {moment:%b}"
    return day if step_s >= 86_400 else f"{moment:%H:%M}" if step_s >= 60 else f"{moment:%H:%M:%S}"


def _arrivals(jobs: Jobs, begin_s: float, end_s: float) -> Iterator[str]:
    step_s = next((step for step in STEPS_S if (end_s - begin_s) / step <= MOST_BARS), STEPS_S[-1])
    counts = [0] * (math.floor((end_s - begin_s) / step_s) + 1)
    for job in jobs:
        counts[math.floor((job.at_s - begin_s) / step_s)] += 1
    most, bottom = max(counts), HEAD + BARS
    width = max(1.0, PLOT * step_s / (end_s - begin_s) - 1)
    for index, count in enumerate(counts):
        if count:
            x, high = _x(begin_s + index * step_s, begin_s, end_s), BARS * count / most
            width_here = min(width, LEFT + PLOT - x)
            yield f'<path d="M{x:.1f} {bottom}v{-high:.1f}h{width_here:.1f}v{high:.1f}z" fill="{BAR}"/>'
    yield f'<path d="M{LEFT} {bottom}h{PLOT}" stroke="{SOFT}"/>'
    yield _text(LEFT - 12, HEAD + 10, f"{most:,}", "end", colour=SOFT)
    yield _text(LEFT - 12, bottom, "0", "end", colour=SOFT)
    yield _text(24, HEAD + BARS / 2, "arrivals", weight="bold")
    yield _text(24, HEAD + BARS / 2 + 16, f"jobs per {_per(step_s)}", colour=SOFT)


def _per(step_s: float) -> str:
    named = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86_400.0: "day"}
    size_s, unit = (86_400, "days") if step_s > 86_400 else (3600, "h") if step_s > 3600 else (60, "min")
    return named.get(step_s) or (f"{step_s / size_s:g} {unit}" if step_s > 60 else f"{step_s:g} s")


def _rows(outcomes: Sequence[Outcome], begin_s: float, end_s: float, usd_per_hour: float, top: int) -> Iterator[str]:
    levels = [_levels(outcome.spans, begin_s, end_s) for outcome in outcomes]
    usual = [each for each, outcome in zip(levels, outcomes, strict=True) if outcome.starts < outcome.jobs] or levels
    scale = max(1, math.ceil(max(map(max, usual), default=1.0) - 1e-6))
    costs = [outcome.worker_s / 3600 * usd_per_hour / max(1, outcome.jobs) for outcome in outcomes]
    first = costs[0] or math.inf
    x = LEFT + PLOT + 20
    yield _text(24, top - 12, f"workers up, 0 to {scale:,}", colour=SOFT)
    yield _text(x, top - 12, "cost per video", colour=SOFT)
    yield _text(WIDTH - 24, top - 12, "waiting, p95", "end", colour=SOFT)
    for index, (outcome, level, cost) in enumerate(zip(outcomes, levels, costs, strict=True)):
        y, colour = top + index * (ROW + GAP) + ROW, COLOURS.get(outcome.name, OTHERS)
        middle = y - ROW / 2 + 4
        yield _area(level, scale, y, colour)
        yield f'<path d="M{LEFT} {y}h{PLOT}" stroke="{BAR}" stroke-width="0.5"/>'
        yield _text(24, middle - 7, outcome.name, weight="bold", colour=colour)
        yield _text(24, middle + 9, f"{outcome.starts:,} start{'s' * (outcome.starts != 1)}", colour=SOFT)
        bar = 110 * cost / (max(costs) or math.inf)
        yield f'<rect x="{x}" y="{middle + 2:.1f}" width="{bar:.1f}" height="8" fill="{colour}"/>'
        yield _text(x, middle - 6, f"${cost:.4f}", weight="bold")
        yield _text(x + 64, middle - 6, f"{cost / first:.2f} times", colour=SOFT)
        yield _text(WIDTH - 24, middle, lasting(outcome.wait_s(0.95)), "end")


def _levels(spans: Iterable[tuple[float, float]], begin_s: float, end_s: float) -> list[float]:
    """The mean number of workers in each step of time; what lies beyond the end is cut off."""
    step_s = (end_s - begin_s) / COLUMNS
    busy_s, whole = [0.0] * (COLUMNS + 1), [0] * (COLUMNS + 2)
    for start_s, exit_s in spans:
        first = math.floor((start_s - begin_s) / step_s)
        last = min(COLUMNS, math.floor((exit_s - begin_s) / step_s))
        if first == last:
            busy_s[first] += exit_s - start_s
            continue
        busy_s[first] += begin_s + (first + 1) * step_s - start_s
        busy_s[last] += min(exit_s - begin_s - last * step_s, step_s)
        whole[first + 1] += 1
        whole[last] -= 1
    levels, running = [], 0
    for index in range(COLUMNS):
        running += whole[index]
        levels.append(running + busy_s[index] / step_s)
    return levels


def _area(levels: Sequence[float], scale: float, bottom: int, colour: str) -> str:
    """One filled path; what is higher than the scale is cut off and marked at the top, what is very low can be seen."""
    width, heights = PLOT / COLUMNS, [max(1.5 * (level > 0), ROW * min(1.0, level / scale)) for level in levels]
    path, before = f"M{LEFT} {bottom}", 0.0
    for index, high in enumerate([*heights, 0.0]):
        if round(high, 1) != round(before, 1):
            path += f"H{LEFT + index * width:.4g}V{bottom - high:.4g}"
            before = high
    cut = "".join(
        f"M{LEFT + index * width:.4g} {bottom - ROW - 3}h{width:.2g}"
        for index, level in enumerate(levels)
        if level > scale * 1.001
    )
    mark = f'<path d="{cut}" stroke="{colour}" stroke-width="2"/>' if cut else ""
    return f'<path d="{path}z" fill="{colour}"/>{mark}'


def _x(at_s: float, begin_s: float, end_s: float) -> float:
    return LEFT + PLOT * (at_s - begin_s) / (end_s - begin_s)


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, weight: str = "", colour: str = INK
) -> str:
    more = f' font-weight="{weight}"' * bool(weight) + f' font-size="{size}"' * (size != 12)
    more += f' text-anchor="{anchor}"' * (anchor != "start")
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{more}>{escape(text)}</text>'
