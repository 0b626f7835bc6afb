"""Last words of a run to queue and store, which may not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LAST_WORD_S = 1.0  # for giving back what did not end in time, and once more for the report: both part of the drain


def in_time(*last_words: Callable[[], object], limit_s: float = LAST_WORD_S) -> None:
    """Have last words, if queue and store hear them soon: one that does not answer must not keep the run."""
    threads = [threading.Thread(target=each, name="last word", daemon=True) for each in last_words]
    for thread in threads:
        thread.start()
    heard_by = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, heard_by - time.monotonic()))
