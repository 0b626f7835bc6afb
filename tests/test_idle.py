"""How long a worker may idle: as long as a start costs, less what jobs may wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_worker.idle import allowance_s

seconds = st.floats(0, 1e6)


def test_jobs_that_must_not_wait_are_worth_as_much_idling_as_a_start_costs() -> None:
    assert allowance_s(start_s=75.0, max_wait_s=0.0) == 75.0


@pytest.mark.parametrize("max_wait_s", [75.0, 76.0, 900.0, float("inf")])
def test_jobs_that_may_wait_as_long_as_a_start_takes_are_worth_none(max_wait_s: float) -> None:
    assert allowance_s(75.0, max_wait_s) == 0.0


@given(seconds, seconds)
def test_what_a_job_may_wait_is_taken_off(start_s: float, max_wait_s: float) -> None:
    allowed_s = allowance_s(start_s, max_wait_s)

    assert 0 <= allowed_s <= start_s
    assert allowed_s == start_s - max_wait_s or (allowed_s == 0 and max_wait_s >= start_s)
