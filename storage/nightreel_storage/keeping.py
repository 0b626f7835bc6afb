"""How long a store keeps what it needs for a while: a bucket's lifecycle rules say so, and `nightreel gc` goes by it.

What is not here is kept for good: videos, posters and receipts.
"""

from __future__ import annotations

from .inputs import REFRESH_DAYS

KEEP_DAYS = {  # by a bucket's own rules, whether it is in use or not
    ".nightreel/keyframes/": 14,
    ".nightreel/inputs/": 30,  # longer than any job waits that was enqueued with one (see inputs.REFRESH_DAYS)
    ".nightreel/attempts/": 90,
    ".nightreel/runs/": 90,
}
GC_DAYS = KEEP_DAYS | {".nightreel/rejected/": 90, ".nightreel/batches/": 90}

# `enqueue` leaves an input alone that is younger than REFRESH_DAYS, and records the job that needs it later. A day is
# more than any command takes in between; so no input that somebody has just relied on is old enough to be deleted.
INPUT_MIN_AGE_S = (REFRESH_DAYS + 1) * 86400.0
MIN_AGE_S = 3600.0  # of anything else: what is younger may belong to work that no record speaks of yet
