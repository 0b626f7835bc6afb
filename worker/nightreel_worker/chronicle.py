"""What a run tells of itself: its report while it works, its metrics, and at its end a page and a message. Best effort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import structlog

from nightreel_queue.base import Queue
from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError

from .gpus import Gpus
from .last_words import LAST_WORD_S, in_time
from .metrics import Reading
from .notify import LAST_S, Notifier
from .pages import keep_page
from .report import LISTS, RunReport, Tally
from .reports import Reports
from .settings import Settings
from .summary import Place
from .telemetry import Telemetry

log = structlog.get_logger()


class Chronicle:
    """Of one run. Figures must not make a run fail, nor stay."""

    def __init__(
        self,
        run: str,
        queue: Queue,
        store: Store,
        settings: Settings,
        notifier: Notifier,
        tally: Tally,
        report: Callable[[Literal["running", "ended"]], RunReport],
    ) -> None:
        """report: as of now."""
        self._store, self._notifier, self._gpus = store, notifier, Gpus()
        self._place = Place.of(settings)
        self._reports = Reports(store, lambda: report("running"))
        self._telemetry = Telemetry(
            settings.metrics, run, lambda: Reading(report("running"), tally.drawn, queue.backlog(), self._gpus.read())
        )

    def __enter__(self) -> Self:
        self._telemetry.start()
        self._reports.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._reports.__exit__()

    def end(self, report: RunReport, *others: Callable[[], object], in_a_hurry: bool) -> None:
        """Say the last words of a run that has ended, and those of others, as far as they are heard in time."""
        log.info("run_ended", **report.model_dump(mode="json", exclude=LISTS))
        words = (lambda: self._reports.keep_last(report), lambda: self._announce(report), self._telemetry.finish)
        in_time(*others, *words, limit_s=LAST_WORD_S if in_a_hurry else LAST_S)

    def _announce(self, report: RunReport) -> None:
        """A run that had no work leaves no page, and is not spoken of."""
        if report.had_work:
            self._notifier.announce(report, self._page(report))
        self._notifier.close()

    def _page(self, report: RunReport) -> str:
        """Where the page is; empty when there is none."""
        try:
            page = self._store.url(keep_page(self._store, report, self._place))
        except StoreError as exc:
            log.warning("page_not_kept", reason=str(exc))
            return ""
        log.info("page_kept", page=page)
        return page
