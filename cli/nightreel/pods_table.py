"""Pods as a table, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_dispatcher.launchers.runpod_order import is_spot
from nightreel_dispatcher.pods import Seen

WIDE = 10_000  # a line's width where there is no terminal: reasons stay whole


def row(seen: Seen, now: float) -> dict[str, Any]:
    pod, run = seen.pod, seen.run
    gpus = pod.runtime.gpus if pod.runtime else ()
    return {
        "pod": pod.id,
        "name": pod.name,
        "gpu": pod.gpu.id if pod.gpu else "",
        "spot": is_spot(pod),
        "status": pod.status,
        "words": seen.words,
        "since": (pod.started_at or pod.created_at).isoformat(timespec="seconds"),
        "usd_per_hour": pod.cost,
        "usd": round(pod.paid_usd(now), 4) if pod.is_up else None,
        "gpu_percent": gpus[0].util if gpus else None,
        "run": run.run if run else None,
        "done": run.done if run else None,
        "failed": run.failed if run else None,
        "keyframes": run.keyframes if run else None,
        "run_usd": run.usd if run else None,
    }


def show(found: Sequence[Seen], now: float) -> None:
    if not found:
        print("there are no pods of this store")
        return
    right = [Column(name, justify="right", no_wrap=True) for name in ("USD/h", "USD", "GPU %", "made", "failed")]
    columns = [Column(name, no_wrap=True) for name in ("pod", "GPU", "paid as", "since")]
    table = Table(*columns, *right, Column("state", overflow="fold"), box=None)
    for each in [row(seen, now) for seen in found]:
        formats = {"usd_per_hour": ".2f", "usd": ".4f", "gpu_percent": "d", "done": "d", "failed": "d"}
        figures = ["-" if each[name] is None else format(each[name], how) for name, how in formats.items()]
        paid_as = "spot" if each["spot"] else "on demand"
        since = str(each["since"])[:16].replace("T", " ")
        table.add_row(each["pod"], each["gpu"].removeprefix("NVIDIA "), paid_as, since, *figures, escape(each["words"]))
    Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE).print(table)
