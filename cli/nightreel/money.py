"""budget, costs: what is left of the month's money, and what runs cost by day, machine and model."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import utc_now
from nightreel_worker.costs import Costs, read_reports
from nightreel_worker.costs import costs as by_day
from nightreel_worker.ledger import Ledger, Month, Share, micro, month_of

from .common import JsonFlag, StoreFlag, complain, errors_in_one_line, settings_with

WIDE = 10_000  # a line's width where there is no terminal: names stay whole


def budget(
    month: Annotated[str | None, typer.Option("--month", help="YYYY-MM (UTC); this month when left out.")] = None,
    service: Annotated[
        str, typer.Option("--service", help="The clips of a service, such as gemini, instead of the machines.")
    ] = "",
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is spent, reserved and left of a month's money, by day and by run."""
    settings = settings_with(store=store)
    now = utc_now()
    with errors_in_one_line():
        if month is not None and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
            raise InvalidJob([Problem(f"--month {month}: give a year and a month, such as {month_of(now)}")])
        if service and not re.fullmatch(r"[a-z]{1,40}", service):
            raise InvalidJob([Problem(f"--service {service}: give the source of a model, such as gemini")])
        found = Ledger(open_store(settings.store, make=False), service=service).read(month or month_of(now))
    limit = (0 if service else micro(settings.monthly_usd)) or found.limit_micro_usd
    if as_json:
        print(json.dumps(_as_json(found, limit, now), indent=2))
    else:
        _show_budget(found, limit, now)


def costs(
    since: Annotated[
        dt.datetime | None,
        typer.Option("--since", formats=["%Y-%m-%d"], help="First day, UTC; the month's first when left out."),
    ] = None,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what runs cost, by day, price and model."""
    settings = settings_with(store=store)
    first = since.date() if since else utc_now().date().replace(day=1)
    with errors_in_one_line():
        reports, unread = read_reports(open_store(settings.store, make=False), first)
    if unread:
        complain(f"{unread} reports could not be read, and are left out")
    rows = by_day(reports)
    if as_json:
        print(json.dumps([_cost(row) for row in rows], indent=2))
    elif not rows:
        print(f"no run has left a report since {first}")
    else:
        _show_costs(rows, len(reports))


def _fate(share: Share, now: dt.datetime) -> str:
    """What has become of a reservation; `unsettled` when its run is gone and no other has seen to it yet."""
    return "unsettled" if share.is_of_the_dead(now) else share.state


def _sums(month: Month, limit: int, now: dt.datetime) -> dict[str, float | None]:
    of = dict.fromkeys(("spent", "lost", "reserved", "unsettled"), 0)
    for share in month.shares:
        of[_fate(share, now)] += share.micro_usd
    return {
        "limit_usd": limit / 1e6 if limit else None,
        "spent_usd": (of["spent"] + of["lost"]) / 1e6,
        "reserved_usd": of["reserved"] / 1e6,
        "unsettled_usd": of["unsettled"] / 1e6,
        "left_usd": (limit - month.micro_usd) / 1e6 if limit else None,
    }


def _days(month: Month) -> list[dict[str, Any]]:
    """Each run counts for the day on which it reserved first in this month."""
    days: dict[str, dict[str, Any]] = {}
    for share in sorted(month.shares, key=lambda share: share.since):
        day = days.setdefault(f"{share.since:%Y-%m-%d}", {"runs": set(), "micro_usd": 0})
        day["runs"].add(share.run)
        day["micro_usd"] += share.micro_usd
    return [
        {"day": day, "runs": len(each["runs"]), "usd": each["micro_usd"] / 1e6} for day, each in sorted(days.items())
    ]


def _as_json(month: Month, limit: int, now: dt.datetime) -> dict[str, Any]:
    runs = [
        {
            "run": share.run,
            "what": share.what,
            "since": share.since.isoformat(timespec="seconds"),
            "until": share.until.isoformat(timespec="seconds"),
            "state": _fate(share, now),
            "usd": share.micro_usd / 1e6,
        }
        for share in month.shares
    ]
    return {"month": month.month} | _sums(month, limit, now) | {"days": _days(month), "runs": runs}


def _show_budget(month: Month, limit: int, now: dt.datetime) -> None:
    sums = _sums(month, limit, now)
    told = {"spent_usd": "spent", "reserved_usd": "reserved", "unsettled_usd": "of runs that are gone, not settled yet"}
    parts = [f"{sums[name]:.2f} {words}" for name, words in told.items() if sums[name] or name == "spent_usd"]
    if limit:
        parts.append(f"{sums['left_usd']:.2f} left of {sums['limit_usd']:.2f}")
    console = _console()
    console.print(f"{month.month}, USD: {', '.join(parts)}" + ("" if limit else "; NIGHTREEL_MONTHLY_USD is not set"))
    if not month.shares:
        return
    days = Table("day", Column("runs", justify="right"), Column("USD", justify="right"), box=None)
    for day in _days(month):
        days.add_row(day["day"], str(day["runs"]), f"{day['usd']:.4f}")
    runs = Table("run", "began", Column("USD", justify="right"), "is", box=None)
    for share in month.shares:
        runs.add_row(
            share.run + (f" {share.what}" if share.what else ""),
            f"{share.since:%m-%d %H:%M}",
            f"{share.micro_usd / 1e6:.4f}",
            _in_words(share, now),
        )
    console.print()
    console.print(days)
    console.print()
    console.print(runs)


def _in_words(share: Share, now: dt.datetime) -> str:
    match _fate(share, now):
        case "reserved":
            return f"reserved, for until {share.until:%m-%d %H:%M}"
        case "unsettled":
            return "gone, not settled yet: the next run that reserves does it"
        case "lost":
            return "spent, as far as anybody knows: it was killed, and this is what it had reserved"
    return "spent"


def _cost(row: Costs) -> dict[str, Any]:
    return {
        "day": row.day.isoformat(),
        "price": row.price,
        "model": row.model,
        "runs": row.runs,
        "jobs": row.jobs,
        "videos": row.videos,
        "direct_usd": row.direct_micro_usd / 1e6,
        "shared_usd": row.shared_micro_usd / 1e6,
        "usd": row.usd,
        "usd_per_video": None if row.usd_per_video is None else round(row.usd_per_video, 6),
    }


def _show_costs(rows: list[Costs], runs: int) -> None:
    right = [Column(name, justify="right") for name in ("runs", "jobs", "videos", "direct", "shared", "USD", "a video")]
    table = Table("day", Column("price", no_wrap=True), Column("model", no_wrap=True), *right, box=None)
    whole = Costs(rows[0].day, "", "", runs)
    for row in rows:
        table.add_row(row.day.isoformat(), row.price, row.model, *_figures(row))
        whole.jobs += row.jobs
        whole.videos += row.videos
        whole.direct_micro_usd += row.direct_micro_usd
        whole.shared_micro_usd += row.shared_micro_usd
    table.add_row("in all", "", "", *_figures(whole))
    _console().print(table)


def _figures(row: Costs) -> list[str]:
    dollars = (row.direct_micro_usd / 1e6, row.shared_micro_usd / 1e6, row.usd, row.usd_per_video)
    return [str(row.runs), str(row.jobs), str(row.videos)] + ["-" if usd is None else f"{usd:.4f}" for usd in dollars]


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
