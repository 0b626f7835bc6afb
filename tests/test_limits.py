"""A job's own limits: refused before anything is rendered, or stopped when they are used up. Real workers."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from house import House, Run, job, verdict

from nightreel_queue.errors import InvalidJob
from nightreel_queue.problems import parse_job
from nightreel_storage.receipts import utc_now

NIGHTREEL = (sys.executable, "-m", "nightreel")
DOLLAR_A_SECOND = "3600"
AN_HOUR = dt.timedelta(hours=1)


def measured(house: House) -> None:
    """Let a run measure half a second a keyframe."""
    house.enqueue(job("measured", "half a second m"))
    assert house.work_calmly().code == 0


def retry(house: House, name: str, *flags: str) -> Run:
    return house.work(*NIGHTREEL, "retry", "b", name, *flags)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_seconds": 0.9}, "limits.max_seconds: it may take 0.9 s; it would take about "),
        ({"max_cost_usd": 0.9}, "limits.max_cost_usd: it may cost 0.9 USD; it would take about "),
        ({"max_seconds": 60, "max_cost_usd": 0.9}, "limits.max_cost_usd: "),
    ],
)
def test_a_job_over_its_limits_fails_before_anything_is_rendered_and_leaves_the_queue(
    house: House, limits: dict[str, float], reason: str
) -> None:
    measured(house)
    house.enqueue(job("film", "x", "y", "z", "u", limits=limits), job("next", "n"))

    assert house.work_calmly(price=DOLLAR_A_SECOND).code == 0

    # Then it has a receipt with the figures and the mend, and its neighbour was made
    receipt = house.receipt("film")
    assert receipt.state == "failed"
    assert receipt.reason.startswith(reason)
    assert "USD (as earlier runs took): 4 keyframes, 16 frames." in receipt.reason
    assert receipt.reason.endswith("lift the limits: nightreel retry b film --without-limits")
    assert sorted(house.rendered()) == ["half a second m", "n"]
    assert house.attempts("film") == ()
    verdict(house, "measured", "film", "next", failed=["film"])


def test_a_job_whose_limits_are_enough_is_made(house: House) -> None:
    measured(house)
    limits = {"max_seconds": 300, "max_cost_usd": 300, "not_after": f"{utc_now() + AN_HOUR:%Y-%m-%dT%H:%MZ}"}
    house.enqueue(job("film", "x", "y", limits=limits))

    assert house.work_calmly(price=DOLLAR_A_SECOND).code == 0

    verdict(house, "measured", "film")


def test_a_job_that_comes_too_late_fails_without_a_renderer(house: House) -> None:
    house.enqueue(job("film", "x", limits={"not_after": "2026-03-01T06:00:00Z"}))

    run = house.work_calmly()

    assert house.receipt("film").reason == (
        "limits.not_after: it was to begin by 2026-03-01T06:00:00+00:00, and that has passed"
    )
    assert run.events("renderer_started") == []
    verdict(house, "film", failed=["film"])


def test_on_a_machine_that_costs_nothing_no_limit_of_dollars_is_reached(house: House) -> None:
    house.enqueue(job("film", "x", limits={"max_cost_usd": 0.0001}))

    assert house.work_calmly().code == 0

    verdict(house, "film")


def test_a_job_is_not_refused_for_keyframes_that_the_store_has(house: House) -> None:
    measured(house)
    house.enqueue(job("first", "x", "y", "z", "u"))
    assert house.work_calmly().code == 0
    house.enqueue(job("film", "x", "y", "z", "u", seed_mode="per_shot", limits={"max_seconds": 0.9}))

    assert house.work_calmly().code == 0

    verdict(house, "measured", "first", "film")


def test_a_job_that_uses_up_its_limit_is_stopped_and_goes_on_from_its_keyframes_without_it(house: House) -> None:
    # Given a job that takes longer than anybody could know
    house.enqueue(job("film", "first", "slow once", limits={"max_seconds": 1.5}), job("next", "n"))

    assert house.work_calmly().code == 0

    # Then it was stopped, with the cost on its receipt and without a second attempt, and the next one was made
    stopped = house.receipt("film")
    assert stopped.reason.startswith("limits.max_seconds: it may take 1.5 s; after ")
    assert "Its keyframes are kept" in stopped.reason
    assert stopped.reason.endswith("nightreel retry b film --without-limits")
    assert stopped.cost is not None
    assert stopped.cost.seconds > 1.5
    assert [attempt.end for attempt in house.attempts("film")] == ["failed"]
    assert house.rendered() == ["first", "n"]

    # When it is asked for again without its limits, then it is made from the keyframe that it has
    assert retry(house, "film", "--without-limits").code == 0
    assert house.work_calmly().code == 0
    made = house.receipt("film").made
    assert made is not None
    assert (made.keyframes, made.reused) == (1, 1)
    assert house.receipt("film").round == 2
    verdict(house, "film", "next", rejected=[stopped.reason])


def test_a_retry_with_the_limits_that_a_job_has_is_refused_again(house: House) -> None:
    measured(house)
    house.enqueue(job("film", "x", "y", "z", "u", limits={"max_seconds": 0.9}))
    assert house.work_calmly().code == 0

    assert retry(house, "film").code == 0
    assert house.work_calmly().code == 0
    refused = house.receipt("film")
    assert refused.reason.startswith("limits.max_seconds")
    assert refused.round == 2

    assert retry(house, "film", "--without-limits").code == 0
    assert house.work_calmly().code == 0
    verdict(house, "measured", "film", rejected=[refused.reason])


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ("{}", "limits: is empty: give max_seconds, max_cost_usd or not_after, or leave it out"),
        ('{"max_seconds": 0}', "limits.max_seconds: is 0; must be a number from 0.1 to 86400"),
        ('{"max_cost_usd": -1}', "limits.max_cost_usd: is -1; must be a number from 0.0001 to 10000"),
        ('{"not_after": "2026-05-01T06:00:00"}', "must be a time with its zone, such as 2026-05-01T06:00:00Z"),
        (
            '{"not_after": "2026-13-01T06:00:00Z"}',
            "limits.not_after: is '2026-13-01T06:00:00Z', but month must be in 1..12",
        ),
        ('{"max_second": 1}', "did you mean 'max_seconds'"),
    ],
)
def test_limits_that_make_no_sense_are_refused_with_the_field(limits: str, complaint: str) -> None:
    with pytest.raises(InvalidJob, match=complaint):
        parse_job(f'{{"shots": [{{"prompt": "x"}}], "limits": {limits}}}'.encode())


def test_limits_do_not_change_what_a_job_is() -> None:
    limited = job("film", "x", limits={"max_seconds": 5})

    assert limited.fingerprint == job("film", "x").fingerprint
    assert '"limits":{"max_seconds":5.0}' in limited.to_json().replace(" ", "")
