"""Where traces come from: four that are made up, a file, or what a store's receipts say.

The made-up ones begin on Monday, 5 January 2026, 00:00 UTC, and are the same for the same seed. Their jobs take 20 to 60
seconds each, any length as likely as another: a guess at short videos on an L4 (eight to twenty keyframes of 1360x768 at two
to three seconds), not a measurement.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from nightreel_storage.base import Store
from nightreel_storage.receipts import Receipt

from .simulation import Arrival, Jobs

MONDAY_S = dt.datetime(2026, 1, 5, tzinfo=dt.UTC).timestamp()
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SHORTEST_S, LONGEST_S = 20.0, 60.0
MAX_MISTAKES = 20  # told of one file; more would help nobody
COLUMNS = ("arrived_s", "work_s", "urgent")
_YES_NO = {"": False, "0": False, "no": False, "false": False, "1": True, "yes": True, "true": True}


class BadTrace(ValueError):
    """Raised when a trace cannot be read; a line for each mistake, with the mend."""


def nightly_bursts(seed: int = 1) -> Jobs:
    """A week; each evening a manifest of 100 to 300 jobs at once, and a few single jobs at any time of the day."""
    rnd = random.Random(seed)
    times = []
    for day in range(7):
        times += [MONDAY_S + day * DAY_S + rnd.uniform(20, 23) * HOUR_S] * rnd.randint(100, 300)
        times += [MONDAY_S + (day + rnd.random()) * DAY_S for _ in range(rnd.randint(5, 15))]
    return _with_work(times, rnd)


def office_hours(seed: int = 1) -> Jobs:
    """A week; 9:00 to 17:00 on five days a job every three minutes on average, half as often from 12:00 to 13:00."""
    rnd = random.Random(seed)
    times = []
    for day in range(5):
        for hour in range(9, 17):
            mean_s = 360.0 if hour == 12 else 180.0
            times += list(_poisson(MONDAY_S + day * DAY_S + hour * HOUR_S, HOUR_S, mean_s, rnd))
    return _with_work(times, rnd)


def poisson(seed: int = 1) -> Jobs:
    """A week; a job every five minutes on average, day and night."""
    rnd = random.Random(seed)
    return _with_work(list(_poisson(MONDAY_S, 7 * DAY_S, 300.0, rnd)), rnd)


def launch_day(seed: int = 1) -> Jobs:
    """100,000 jobs in a day: half of them evenly, half from 10:00 on, a third less with every hour that passes."""
    rnd = random.Random(seed)
    times = [MONDAY_S + rnd.random() * DAY_S for _ in range(50_000)]
    fading_s, left_s = HOUR_S / math.log(1.5), 14 * HOUR_S
    whole = 1 - math.exp(-left_s / fading_s)
    times += [MONDAY_S + 10 * HOUR_S - fading_s * math.log(1 - rnd.random() * whole) for _ in range(50_000)]
    return _with_work(times, rnd)


BUILT_IN: dict[str, Callable[[], Jobs]] = {
    "nightly": nightly_bursts,
    "office": office_hours,
    "poisson": poisson,
    "launch": launch_day,
}


def read_trace(path: Path) -> Jobs:
    """A CSV file with the columns arrived_s, work_s and perhaps urgent, in any order of lines. Raises BadTrace."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            head = [name.strip() for name in next(rows, [])]
            if head not in (list(COLUMNS), list(COLUMNS[:2])):
                raise BadTrace(f"{path}:1: is {','.join(head)!r}; the first line must be {','.join(COLUMNS)}, or {','.join(COLUMNS[:2])}")  # fmt: skip
            mistakes: list[str] = []
            jobs = [_arrival(row, head, f"{path}:{rows.line_num}", mistakes) for row in rows if row]
    except OSError as exc:
        raise BadTrace(f"{path}: cannot be read: {exc.strerror}; built-in traces are {', '.join(BUILT_IN)}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise BadTrace(f"{path}: is no CSV in UTF-8 ({exc}): export it again") from exc
    if mistakes:
        more = [f"{path}: has {len(mistakes) - MAX_MISTAKES:,} more mistakes"] if len(mistakes) > MAX_MISTAKES else []
        raise BadTrace("\n".join(mistakes[:MAX_MISTAKES] + more))
    if not jobs:
        raise BadTrace(f"{path}: has no jobs: write a line for each below the first")
    return sorted(jobs)


def receipts_trace(store: Store) -> Jobs:
    """What a store's receipts say: when each job was published, and what its rendering took. Raises BadTrace for none."""
    jobs = []
    for entry in store.list():
        if entry.name.startswith(".") or not entry.name.endswith(".json"):
            continue
        receipt = Receipt.from_bytes(store.get(entry.name)[0], entry.name)
        work_s = _work_s(receipt)
        if receipt.published_at is not None and work_s is not None:
            jobs.append(Arrival(receipt.published_at.timestamp(), work_s))
    if not jobs:
        raise BadTrace(
            "the store has no receipt that says when its job was published and how long it took: name a trace"
        )
    return sorted(jobs)


def _work_s(receipt: Receipt) -> float | None:
    """Seconds of a worker that a job took; None for one that was not rendered."""
    return receipt.cost.seconds if receipt.made and receipt.cost else None


def _with_work(times: list[float], rnd: random.Random) -> Jobs:
    return [Arrival(at_s, rnd.uniform(SHORTEST_S, LONGEST_S)) for at_s in sorted(times)]


def _poisson(begin_s: float, length_s: float, mean_s: float, rnd: random.Random) -> Iterator[float]:
    at_s = begin_s + rnd.expovariate(1 / mean_s)
    while at_s < begin_s + length_s:
        yield at_s
        at_s += rnd.expovariate(1 / mean_s)


def _arrival(row: list[str], head: list[str], place: str, mistakes: list[str]) -> Arrival:
    """One line of a file; what is wrong with it is added to the mistakes."""
    if len(row) != len(head):
        mistakes.append(f"{place}: has {len(row)} fields; must have {len(head)}: {','.join(head)}")
        return Arrival(0.0, 0.0)
    at_s, work_s = (_seconds(text, f"{place}: {name}", mistakes) for name, text in zip(head[:2], row[:2], strict=True))
    urgent = row[2].strip().lower() if len(row) > 2 else ""
    if urgent not in _YES_NO:
        mistakes.append(f"{place}: urgent: is {urgent!r}; must be yes, no or empty")
    return Arrival(at_s, work_s, _YES_NO.get(urgent, False))


def _seconds(text: str, place: str, mistakes: list[str]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e11:
        mistakes.append(f"{place}: is {text.strip()!r}; must be a number of seconds, 0 or more")
        return 0.0
    return value
