"""What a month of videos costs, by arithmetic: the table of docs/how-to/deploy.md.

    python bench/monthly.py

Nothing is measured here: seconds are those of bench/arithmetic.py, prices those of prices.toml.
"""

from __future__ import annotations

from arithmetic import MOVES, USUAL, cold_s, gpu_s
from common import DOCS, Table, write_section
from rich.console import Console

from nightreel_queue.pubsub_queue import EMPTY_AFTER_S
from nightreel_worker.prices import find_price

PAGE = DOCS.parent / "how-to" / "deploy.md"
SECTION = "monthly"
DAYS = 30
VIDEO_S = 30  # of each film
LOAD_GB_S = 1.0  # of the three rates in bench/arithmetic.py, the middle one
MACHINE, SERVICE = "cloudrun-l4", "gemini-veo-fast"
STARTS_A_DAY = {"one run a night": 1, "six runs a day": 6}


def month_usd(videos: int, starts: int) -> float:
    """Of the machine: its videos, and for each start the start itself and the wait at its end until the queue is sure to be empty."""
    around_s = cold_s(LOAD_GB_S) + EMPTY_AFTER_S
    seconds = videos * gpu_s(MOVES.layout, USUAL, fp8=True) + starts * around_s
    return seconds * find_price(MACHINE).machine_usd_per_s


def table() -> Table:
    rows = []
    for videos in (300, 1000, 3000, 10000):
        usd = [month_usd(videos, DAYS * a_day) for a_day in STARTS_A_DAY.values()]
        service_usd = find_price(SERVICE).cost_usd(0, videos * VIDEO_S)
        rows.append((f"{videos}", *(f"${each:.0f}" for each in usd), f"${service_usd:,.0f}"))
    columns = ("videos a month", *STARTS_A_DAY, f"the same seconds from {SERVICE}")
    return Table("A month of videos of 30 s, eight camera moves each", columns, tuple(rows))


def main() -> None:
    table().show(Console(highlight=False, width=120))
    write_section(PAGE, SECTION, table().markdown())


if __name__ == "__main__":
    main()
