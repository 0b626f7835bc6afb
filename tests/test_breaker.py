"""A breaker: opens after failures in a row, tries one worker when its pause is over, and closes when that worked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightreel_dispatcher.breaker import MOST_PAUSE_S, Breaker

NOW = 1_000_000.0


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    once = Breaker().failed("first", NOW, limit=2, pause_s=30)
    assert once.state(NOW) == "closed"

    assert once.worked().failed("first again", NOW, limit=2, pause_s=30).state(NOW) == "closed"
    twice = once.failed("second", NOW, limit=2, pause_s=30)
    assert (twice.state(NOW), twice.state(NOW + 29), twice.words) == ("open", "open", "second")
    assert twice.rests_s(NOW) == 30


def test_while_it_is_not_closed_one_failure_is_enough() -> None:
    opened = Breaker().tripped("no answer", NOW, pause_s=30)

    assert opened.failed("dies at its start", NOW + 30, limit=5, pause_s=30).rests_s(NOW + 30) == 60


def test_after_its_pause_one_worker_tries_it_and_closes_it() -> None:
    opened = Breaker().tripped("no answer", NOW, pause_s=30)
    later = NOW + 30
    assert opened.state(later) == "half-open"

    trying = opened.tried(later + 60)

    assert trying.state(later) == "trying"
    assert trying.rests_s(later) == 60
    assert trying.worked() == Breaker()


def test_a_try_of_which_nothing_is_heard_is_over_after_its_time() -> None:
    trying = Breaker().tripped("no answer", NOW, pause_s=30).tried(NOW + 90)

    assert trying.state(NOW + 90) == "half-open"


@given(st.integers(1, 12))
def test_each_failed_try_doubles_the_pause_up_to_the_most(tries: int) -> None:
    breaker, now = Breaker(), NOW
    for number in range(tries):
        breaker = breaker.failed("dies at its start", now, limit=1, pause_s=30)
        assert breaker.rests_s(now) == min(30 * 2**number, MOST_PAUSE_S)
        now = breaker.open_until


def test_a_launcher_that_says_when_to_ask_again_is_not_asked_before() -> None:
    assert Breaker().tripped("quota", NOW, pause_s=30, least_s=300).rests_s(NOW) == 300


def test_a_worker_that_is_started_while_it_is_closed_is_no_try() -> None:
    assert Breaker().tried(NOW + 60).state(NOW) == "closed"
