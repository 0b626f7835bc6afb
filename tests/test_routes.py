"""Which backend gets workers: in order, never an unhealthy one, never above a limit, and some one whenever one may."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from nightreel_dispatcher.routes import Choice, Seen, Wish, choose

LOCAL = Seen("local", "comfyui-schnell", job_s=100, start_s=5)
CLOUD = Seen("cloud", "flux-schnell", max_workers=3, job_s=10, start_s=70, job_usd=0.02)
GEMINI = Seen("gemini", "veo", job_s=60, job_usd=6.4)
ALL = (LOCAL, CLOUD, GEMINI)

counts = st.integers(1, 6)
backends = st.lists(
    st.builds(
        Seen,
        name=st.sampled_from("abcdef"),
        model=st.just("m"),
        starts=st.booleans(),
        healthy=st.booleans(),
        health=st.just("did not answer"),
        breaker=st.sampled_from(("closed", "open", "half-open", "trying")),
        trouble=st.just("failed"),
        running=st.integers(0, 3),
        max_workers=st.integers(1, 4),
        start_s=st.floats(0, 100),
        job_s=st.floats(0, 1000),
        job_usd=st.floats(0, 10),
        passed=st.integers(0, 5),
    ),
    unique_by=lambda each: each.name,
)
wishes = st.builds(
    Wish,
    prefer=st.sampled_from(["", *"abc"]),
    finish_within_s=st.one_of(st.just(math.inf), st.floats(1, 10_000)),
    max_video_usd=st.one_of(st.just(math.inf), st.floats(0, 10)),
)


def started(choices: list[Choice]) -> dict[str, int]:
    return {choice.name: choice.start for choice in choices if choice.start}


def may_start(each: Seen, wish: Wish) -> bool:
    usable = each.starts and each.healthy and each.breaker in ("closed", "half-open")
    return usable and each.job_usd <= wish.max_video_usd and each.running < each.max_workers


@given(st.integers(0, 50), counts, backends, wishes)
def test_no_unhealthy_backend_is_started_and_no_limit_is_passed(
    jobs: int, count: int, seen: list[Seen], wish: Wish
) -> None:
    choices = choose(jobs, count, seen, wish)

    assert sorted(choice.name for choice in choices) == sorted(each.name for each in seen)
    assert sum(choice.start for choice in choices) <= count
    by_name = {each.name: each for each in seen}
    for choice in choices:
        each = by_name[choice.name]
        assert choice.reason, "each is told why"
        assert choice.start >= 0
        assert not choice.start or may_start(each, wish)
        assert each.running + choice.start <= each.max_workers or not choice.start
        assert choice.start <= 1 or each.breaker == "closed", "one worker tries a backend that failed"


@given(st.integers(0, 50), counts, backends, wishes)
def test_as_many_are_started_as_may_be(jobs: int, count: int, seen: list[Seen], wish: Wish) -> None:
    """So some backend is chosen whenever one may."""
    room = sum(each.room for each in seen if may_start(each, wish))

    assert sum(choice.start for choice in choose(jobs, count, seen, wish)) == min(count, room)


@given(st.integers(0, 50), counts, backends, wishes, st.data())
def test_a_backend_that_comes_earlier_in_the_order_never_gets_less(
    jobs: int, count: int, seen: list[Seen], wish: Wish, data: st.DataObject
) -> None:
    if not seen:
        return
    place = data.draw(st.integers(0, len(seen) - 1))
    forward = [seen[place], *seen[:place], *seen[place + 1 :]]

    before = started(choose(jobs, count, seen, wish)).get(seen[place].name, 0)
    after = started(choose(jobs, count, forward, wish)).get(seen[place].name, 0)

    assert after >= before


def test_the_first_in_the_order_is_taken_while_it_may_be() -> None:
    choices = choose(5, 1, ALL, Wish())

    assert choices[0] == Choice("local", 1, "first in the order")
    assert choices[1] == Choice("cloud", 0, "not needed: local will do")


def test_the_preferred_one_comes_first_wherever_it_stands() -> None:
    choices = choose(5, 1, ALL, Wish(prefer="gemini"))

    assert choices[0] == Choice("gemini", 1, "preferred")


def test_the_next_one_comes_in_for_one_that_does_not_answer_and_says_so() -> None:
    away = Seen("local", "comfyui-schnell", healthy=False, health="local did not answer since 02:10:31")

    choices = choose(5, 1, (away, CLOUD, GEMINI), Wish())

    assert choices[0] == Choice("local", 0, "local did not answer since 02:10:31")
    assert choices[1].start == 1
    assert choices[1].route == "instead of local (comfyui-schnell): local did not answer since 02:10:31"


def test_what_the_first_has_no_room_for_spills_over() -> None:
    choices = choose(500, 3, ALL, Wish())

    assert started(choices) == {"local": 1, "cloud": 2}
    assert choices[1].route == "besides local (comfyui-schnell), which has no room for more"


def test_one_that_would_take_too_long_is_passed_over_for_one_that_would_not() -> None:
    choices = choose(200, 1, ALL, Wish(finish_within_s=3600))

    assert started(choices) == {"cloud": 1}
    assert choices[0].reason == "it would take 5.6 h for 200 jobs"


def test_when_all_would_take_too_long_the_order_decides() -> None:
    assert started(choose(2000, 1, ALL, Wish(finish_within_s=600))) == {"local": 1}


def test_one_whose_videos_are_too_dear_gets_none_even_when_it_is_the_only_one() -> None:
    choices = choose(5, 1, (GEMINI,), Wish(max_video_usd=1))

    assert choices == [Choice("gemini", 0, "a video costs 6.4000 USD, 1.0000 are allowed")]


def test_one_that_has_left_all_that_waits_to_others_comes_last_and_not_never() -> None:
    tired = Seen("local", "comfyui-schnell", passed=2)

    choices = choose(2, 1, (tired, CLOUD), Wish())
    assert started(choices) == {"cloud": 1}
    assert choices[0].reason == "comfyui-schnell has left what waits to others"
    assert started(choose(3, 1, (tired, CLOUD), Wish())) == {"local": 1}
    assert started(choose(2, 1, (tired,), Wish())) == {"local": 1}
