"""One run's part of the month's money: reserved before it is spent, a block at a time, and settled at its end.

A block is ten minutes of the machine's price, or what is left of the month. To the run's budget this is one more limit of the
seconds that the process may live; it moves when a block is granted. What cannot be had from the store is not granted.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections import defaultdict

import structlog

from nightreel_storage.errors import StoreError

from .ledger import Ledger, Month, Share, micro, month_of
from .meter import Meter

log = structlog.get_logger()

BLOCK_S = 600.0


class Monthly:
    """Of one run. Safe to use from several threads."""

    def __init__(self, ledger: Ledger, run: str, limit_usd: float, meter: Meter) -> None:
        self._ledger, self._run, self._limit_micro_usd, self._meter = ledger, run, micro(limit_usd), meter
        self._micro_usd_per_s = meter.price.machine_usd_per_s * 1e6
        self._mine: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """Millionths of a dollar that it has reserved, by what for and by month; 0 where it asked and knows of nothing."""
        self._lock = threading.Lock()
        self.life_s = math.inf
        """Seconds that the process may live by what it has reserved; for ever before it has asked, and where it costs nothing."""
        self.words = "monthly_usd"
        """What the ledger last said."""

    @property
    def most_s(self) -> float:
        """Seconds that a run could live on a whole month's money."""
        return self._limit_micro_usd / self._micro_usd_per_s if self._micro_usd_per_s else math.inf

    @property
    def limit_words(self) -> str:
        return f"monthly_usd: a month may cost {self._limit_micro_usd / 1e6:g} USD, which is {self.most_s:.0f} s"

    def open(self, most_s: float, leaving_s: float) -> None:
        """Reserve the first block, but nothing that would not outlast leaving. Raises StoreError.

        most_s: that the process may live by its other limits.
        """
        if self._micro_usd_per_s:
            now = self._ledger.now()
            self._ledger.settle_dead(month_of(now.replace(day=1) - dt.timedelta(days=1)))
            with self._lock:
                self._reserve(min(BLOCK_S, most_s), self._meter.seconds() + leaving_s)

    def reach(self, life_s: float, least_s: float = 0.0) -> bool:
        """Reserve what the process needs to live so long, or what is left if that is enough for `least_s`.

        Both are seconds from its start. Returns whether it may live for `life_s`; no answer is a no.
        """
        with self._lock:
            if life_s > self.life_s:
                try:
                    self._reserve(life_s, least_s)
                except StoreError as exc:
                    log.warning("nothing_reserved", reason=str(exc))
                    self.words = (
                        f"monthly_usd: the month's ledger cannot be had, and without it no more may be spent ({exc})"
                    )
            return life_s <= self.life_s

    def reserve(self, usd: float, what: str) -> bool:
        """Reserve a plain amount for a service, all or nothing, before it is asked. Raises StoreError.

        what: the service and what it is asked for; the run has one reservation of that name.
        """
        now = self._ledger.now()
        until = now + dt.timedelta(seconds=BLOCK_S)
        wanted = Share(run=self._run, what=what, micro_usd=micro(usd), since=now, until=until)
        self._mine[what].setdefault(month_of(now), 0)
        return self._has(self._ledger.reserve(wanted, self._limit_micro_usd, wanted.micro_usd), what) >= micro(usd)

    def settle(self, usd: float, what: str = "") -> None:
        """Say what the run has spent in all, or for a service. Months are spent in the order in which it reserved from them.

        Raises StoreError: then a later run settles it.
        """
        reserved = self._mine[what] or {month_of(self._ledger.now()): 0}
        left = micro(usd)
        for month in sorted(reserved):
            spent = left if month == max(reserved) else min(left, reserved[month])
            self._ledger.settle(month, self._run, spent, what)
            left -= spent

    def _reserve(self, life_s: float, least_s: float) -> None:
        """Raises StoreError."""
        now = self._ledger.now()
        month = month_of(now)
        self._mine[""].setdefault(month, 0)
        earlier = sum(reserved for name, reserved in self._mine[""].items() if name != month)
        wanted = Share(
            run=self._run,
            micro_usd=max(0, math.ceil(life_s * self._micro_usd_per_s) - earlier),
            earlier_micro_usd=earlier,
            since=now,
            until=now + dt.timedelta(seconds=max(0.0, life_s - self._meter.seconds())),
        )
        least = math.ceil(least_s * self._micro_usd_per_s) - earlier
        found = self._ledger.reserve(wanted, self._limit_micro_usd, least)
        self._has(found)
        self.life_s = sum(self._mine[""].values()) / self._micro_usd_per_s
        self.words = (
            f"monthly_usd: {found.micro_usd / 1e6:.2f} of {self._limit_micro_usd / 1e6:.2f} USD of {found.month} are"
            " spent or reserved"
        )

    def _has(self, month: Month, what: str = "") -> int:
        """What the run has reserved of this month, as the ledger says."""
        if share := month.share(self._run, what):
            self._mine[what][month.month] = share.micro_usd
            return share.micro_usd
        return 0
