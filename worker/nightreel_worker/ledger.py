"""The month's money, which all runs of a store share: a ledger that they reserve from before they spend.

`.nightreel/ledger/YYYY-MM.json` (UTC) says what each run has reserved, and, once it is settled, what it spent. It is changed
by compare-and-swap alone, so however many runs ask at once, what is reserved and spent never exceeds what they were told
that a month may cost. Nothing is written while money is spent: a run writes once a block (`monthly.py`) and at its end.

A run that is killed settles nothing. Its money runs out at `until`; from CLOCKS_APART later on it cannot live any more,
whatever clocks say, and the next run that reserves settles it: as its last report says if that is of its end, else
as lost, the whole reservation counting as spent. How long it lived is not known, and a report may be older than it should be.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable
from typing import Literal

import structlog
from pydantic import Field

from nightreel_storage.base import ABSENT, Store
from nightreel_storage.errors import Conflict, NotFound, StoreError, StoreUnavailable
from nightreel_storage.receipts import Record, utc_now

from .report import RunReport, run_name

log = structlog.get_logger()

FOLDER = ".nightreel/ledger/"
CLOCKS_APART = dt.timedelta(minutes=10)  # that clocks of two workers are assumed to differ by at most
PATIENCE_S = 30.0  # for which a change is tried again while others are faster
PAUSE_S = 2.0  # between two tries at most: a bucket takes about one change a second of one object


class Share(Record):
    """What one run has of a month."""

    run: str
    what: str = ""
    """What it pays for: empty for the run's machine, else a service."""
    state: Literal["reserved", "spent", "lost"] = "reserved"
    """lost: the run was killed, and all that it had reserved counts as spent."""
    micro_usd: int = Field(ge=0)
    """Reserved or spent, in millionths of a dollar."""
    earlier_micro_usd: int = 0
    """What the run had reserved in earlier months: it spends that first."""
    since: dt.datetime
    """When it reserved first in this month."""
    until: dt.datetime
    """When a run that lives on will have spent what it has reserved."""

    @property
    def key(self) -> tuple[str, str]:
        return self.run, self.what

    def is_of_the_dead(self, now: dt.datetime) -> bool:
        """Nobody can spend it any more, and nobody has settled it."""
        return self.state == "reserved" and self.until + CLOCKS_APART < now


class Month(Record):
    """One month's ledger."""

    format: Literal[1] = 1
    month: str
    """YYYY-MM, UTC."""
    limit_micro_usd: int = 0
    """What a month may cost, as the run was told that reserved last."""
    shares: tuple[Share, ...] = ()

    @property
    def micro_usd(self) -> int:
        """What is spent or reserved."""
        return sum(share.micro_usd for share in self.shares)

    def share(self, run: str, what: str = "") -> Share | None:
        return next((share for share in self.shares if share.key == (run, what)), None)

    def having(self, share: Share) -> Month:
        """The same with one share that is new or has changed."""
        others = {each.key: each for each in self.shares}
        return self.model_copy(update={"shares": tuple((others | {share.key: share}).values())})


class Ledger:
    """Of one store. Safe to use from any number of threads, processes and machines."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], dt.datetime] = utc_now,
        patience_s: float = PATIENCE_S,
        *,
        service: str = "",
    ) -> None:
        """service: whose bills it is about; each has a ledger, and a limit, of its own. Empty: the machines'."""
        self._store, self.now, self._patience_s, self._service = store, now, patience_s, service

    def read(self, month: str) -> Month:
        """A month that nobody has reserved from is empty. Raises StoreError."""
        return self._read(month)[0]

    def reserve(self, wanted: Share, limit_micro_usd: int, least_micro_usd: int = 0) -> Month:
        """Let a run's share of this month grow to `wanted`, or to what is left, unless that is less than `least`.

        Amounts are what the run has in all, not what is added; so an answer that was lost does no harm. Returns the
        month, whose share of the run says what it has now. Raises StoreError: nothing may be spent then.
        """

        def change(month: Month) -> Month:
            month = self._without_dead(month)
            mine = month.share(*wanted.key)
            has = mine.micro_usd if mine else 0
            may = min(wanted.micro_usd, limit_micro_usd - (month.micro_usd - has))
            if may <= has or may < least_micro_usd:
                return month
            since = mine.since if mine else wanted.since
            share = wanted.model_copy(update={"micro_usd": may, "since": since})
            return month.having(share).model_copy(update={"limit_micro_usd": limit_micro_usd})

        return self._change(month_of(self.now()), change)

    def settle(self, month: str, run: str, micro_usd: int, what: str = "") -> Month:
        """A run says what it has spent of a month, which may be more than it had reserved. Raises StoreError."""

        def change(found: Month) -> Month:
            now = self.now()
            mine = found.share(run, what)
            if mine is None and not micro_usd:
                return found
            mine = mine or Share(run=run, what=what, micro_usd=0, since=now, until=now)
            return found.having(mine.model_copy(update={"state": "spent", "micro_usd": micro_usd}))

        return self._change(month, change)

    def settle_dead(self, month: str) -> Month:
        """Settle for all who cannot do so any more. Raises StoreError."""
        return self._change(month, self._without_dead)

    def _without_dead(self, month: Month) -> Month:
        now = self.now()
        for share in month.shares:
            if share.is_of_the_dead(now):
                month = month.having(self._settled(share))
        return month

    def _settled(self, share: Share) -> Share:
        """What a run that is gone has spent at most."""
        try:
            data, _ = self._store.get(run_name(share.run))
            report = RunReport.from_bytes(data, run_name(share.run))
        except NotFound:
            report = None
        except StoreError as exc:  # it stays reserved, which counts the same, until somebody can tell
            log.warning("run_not_settled", of=share.run, reason=str(exc))
            return share
        if share.what or report is None or report.state == "running":
            return share.model_copy(update={"state": "lost"})
        spent = min(max(0, micro(report.machine_usd) - share.earlier_micro_usd), share.micro_usd)
        return share.model_copy(update={"state": "spent", "micro_usd": spent})

    def _change(self, month: str, change: Callable[[Month], Month]) -> Month:
        """Compare and swap until nobody was faster. A conflict means that somebody else got on."""
        give_up_at = time.monotonic() + self._patience_s
        name, pause_s = month_name(month, self._service), 0.05
        while True:
            found, generation = self._read(month)
            changed = change(found)
            if changed == found:
                return found
            try:
                self._store.put(name, changed.to_bytes(), generation=generation, content_type="application/json")
            except Conflict:
                if time.monotonic() > give_up_at:
                    raise StoreUnavailable(f"{name}: others changed it for {self._patience_s:g} s on end") from None
                time.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, PAUSE_S)
            else:
                return changed

    def _read(self, month: str) -> tuple[Month, int]:
        try:
            data, entry = self._store.get(month_name(month, self._service))
        except NotFound:
            return Month(month=month), ABSENT
        return Month.from_bytes(data, entry.name), entry.generation


def month_of(time: dt.datetime) -> str:
    """YYYY-MM, UTC."""
    return f"{time.astimezone(dt.UTC):%Y-%m}"


def month_name(month: str, service: str = "") -> str:
    """Of a month's ledger in the store, such as .nightreel/ledger/2026-11.json and .nightreel/ledger/gemini/2026-11.json."""
    return f"{FOLDER}{f'{service}/' if service else ''}{month}.json"


def micro(usd: float) -> int:
    """Whole millionths of a dollar."""
    return round(usd * 1e6)
