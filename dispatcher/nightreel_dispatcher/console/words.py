"""Figures and moments as the pages write them."""

from __future__ import annotations

import datetime as dt
import re

from markupsafe import Markup


def usd(value: float) -> str:
    """Dollars: cents when there are enough of them to matter."""
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def lasting(seconds: float) -> str:
    """A length of time: 0.4 s, 38 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def moment(at: dt.datetime) -> Markup:
    """A moment (UTC), for people and for programs."""
    at = at.astimezone(dt.UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at.day} {at:%b %H:%M}")


def count(number: int, one: str, many: str = "") -> str:
    """1 job, 12,000 jobs."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Of a file or of many."""
    if number < 1e5:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"


def did(what: str) -> str:
    """What was done, from the address that an action leads to: WHAT-DONE-LEFT; empty for anything else."""
    match = re.fullmatch(
        r"(held|resumed|cancelled|retried|submitted|preferred|unpreferred|asked|begun)-(\d{1,7})-(\d{1,7})", what
    )
    if match is None:
        return ""
    done, left = int(match[2]), int(match[3])
    said = {
        "held": "On hold: workers finish what they have begun, and claim nothing more.",
        "resumed": "The hold is lifted.",
        "cancelled": f"{count(done, 'job')} cancelled." if done else "Nothing was left to cancel.",
        "retried": f"{count(done, 'job')} enqueued again." if done else "Nothing was left to retry.",
        "preferred": "Preferred, for all dispatchers of this store.",
        "unpreferred": "Nothing is preferred: the order of the file counts.",
        "asked": "All were asked just now.",
        "begun": "A worker is started.",
        "submitted": "Enqueued. Submitting the same again changes nothing.",
    }[match[1]]
    return said + (f" There was no time for {left:,} more: do it again." if left else "")
