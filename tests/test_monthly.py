"""The month's money and real workers: what killed ones leave behind, and what is reserved for long jobs."""

from __future__ import annotations

import re

from far import hooked
from house import House, job, kill, until, verdict

from nightreel_storage.keyframes import Keyframes
from nightreel_worker.ledger import FOLDER, Ledger, Share, micro

DOLLAR_A_SECOND = "3600"
BLOCK = (
    "import nightreel_worker.monthly as monthly, nightreel_worker.budget as budget;"
    " monthly.BLOCK_S = budget.BLOCK_S = {block_s}; budget.AGAIN_S = {again_s}"
)
AN_HOUR_LATER = """
import datetime as dt
import nightreel_worker.ledger as ledger
ledger.Ledger.__init__.__defaults__ = (lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), ledger.PATIENCE_S)
"""
"""A run of an hour later, as the month's ledger sees it."""


def shares(house: House) -> dict[str, Share]:
    """What the ledgers say of each run."""
    found = [Ledger(house.store).read(entry.name[-12:-5]) for entry in house.store.list(FOLDER)]
    return {share.run: share for month in found for share in month.shares}


def test_a_killed_run_keeps_what_it_had_reserved_until_a_later_run_settles_it(house: House) -> None:
    # Given a run that had reserved a block, which is all of the month's money, and was killed
    house.enqueue(job("film", "first", "slow once"))
    killed = house.start(price=DOLLAR_A_SECOND, monthly_usd="600")
    slow_begun = house.folder / "slow-once.done"
    until(lambda: Keyframes(house.store).fingerprints() and slow_begun.exists(), "a stored keyframe", killed)
    kill(killed)
    [left] = shares(house).values()
    assert (left.state, left.micro_usd) == ("reserved", 600_000_000)

    # Then a run that comes meanwhile claims nothing, leaves in order, and says why; the job waits
    refused = house.work(price=DOLLAR_A_SECOND, monthly_usd="600")
    assert refused.code == 0, refused.err
    assert re.match(
        r"monthly_usd: 600\.00 of 600\.00 USD of \d{4}-\d\d are spent or reserved; after ", refused.report["why"]
    )
    assert refused.events("claimed") == []

    house.message_back()

    # And one that comes when the first cannot live any more settles it, and goes on with what there is besides
    again = house.work(*hooked(AN_HOUR_LATER), price=DOLLAR_A_SECOND, monthly_usd="1300", **house.calm)
    assert again.code == 0, again.err
    found = shares(house)
    assert found[left.run] == left.model_copy(update={"state": "lost"})
    for run in (refused, again):
        mine = found[run.report["run"]]
        assert (mine.state, mine.micro_usd) == ("spent", micro(run.report["usd"]))
    verdict(house, "film")


def test_a_run_reserves_what_the_next_job_needs_and_fails_what_no_month_could_hold(house: House) -> None:
    # Given a block of 18 seconds, ten of which are for leaving, and jobs of about 10 and 60 seconds, a start and an end not counted
    house.half_a_second_was_measured()
    house.enqueue(job("film", *(f"half a second {number}" for number in range(20))))
    house.enqueue(job("endless", *(f"half a second of {number}" for number in range(120))))

    run = house.work(*hooked(BLOCK.format(block_s=18, again_s=1000)), price=DOLLAR_A_SECOND, monthly_usd="60")

    assert run.code == 0, run.err
    reason = house.receipt("endless").reason
    assert reason.startswith(
        "monthly_usd: a month may cost 60 USD, which is 60 s, but a run for this job alone would take "
    )
    assert reason.endswith("then: nightreel retry b endless")
    [share] = shares(house).values()
    assert (share.state, share.micro_usd) == ("spent", micro(run.report["usd"]))
    verdict(house, "film", "endless", failed=["endless"])


def test_a_run_reserves_block_after_block_while_it_works(house: House) -> None:
    # Given a job that takes far longer than was measured
    house.half_a_second_was_measured()
    house.enqueue(job("film", "slow 1", "slow 2"))

    run = house.work(
        *hooked(BLOCK.format(block_s=20, again_s=1)), price=DOLLAR_A_SECOND, monthly_usd="600", drain_s="3"
    )

    assert run.code == 0, run.err
    assert run.report["usd"] > 20
    [share] = shares(house).values()
    assert (share.state, share.micro_usd) == ("spent", micro(run.report["usd"]))
    verdict(house, "film")
