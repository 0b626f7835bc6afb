"""Estimates: rates of earlier runs, the nearest shape, and how three stages overlap."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from house import job
from hypothesis import given
from hypothesis import strategies as st

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import load_models
from nightreel_pipelines.plan import Plan, plan
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Made, OutputFile, Receipt, Video
from nightreel_worker.estimate import (
    FILM_START_S,
    GUESSED_FILM_S,
    MAX_ROWS,
    Estimate,
    Rates,
    Taken,
    Takings,
    pipelined_s,
)
from nightreel_worker.history import LAST_RUNS, History
from nightreel_worker.report import RunReport, run_name

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HERE = Description("flux/1", "abc", "fp32", "cpu")
POCKET = load_models(None)["pocket"]
PROMPTS = ("a", "b", "c")


def taken(**fields: Any) -> Taken:
    """One job of three keyframes at 64x64: a tenth of a second an evaluation, ten frames of film a second."""
    return Taken(
        **{
            "model": "pocket",
            "source": "flux/1",
            "revision": "abc",
            "precision": "fp32",
            "device": "cpu",
            "keyframe_size": "64x64",
            "film_size": "64x64",
            "motions": ("still",),
            "jobs": 1,
            "keyframes": 3,
            "evaluations": 12,
            "keyframes_s": 1.2,
            "frames": 20,
            "film_s": FILM_START_S + 2.0,
            "verify_s": 0.25,
            "video_bytes": 2000,
            "kept_bytes": 30_000,
        }
        | fields
    )


def layout(side: int = 64, seconds: float = 0.5, motion: object = "still") -> Plan:
    shots = [{"prompt": prompt, "duration": seconds, "motion": motion} for prompt in PROMPTS]
    asked = job(
        "film",
        render={"model": "pocket", "megapixels": 0.004096 * (side / 64) ** 2},
        output={"width": side, "height": side, "fps": 8},
        shots=shots,
    )
    return plan(asked, POCKET, HERE, {})


def of(rows: Sequence[Taken], layout: Plan, have: frozenset[str] = frozenset()) -> Estimate:
    return Rates(rows, POCKET, HERE).estimate(layout, have)


def test_a_job_like_one_that_was_made_takes_as_long() -> None:
    estimate = of([taken(frames=12)], layout())

    assert (estimate.keyframes, estimate.evaluations, estimate.frames) == (3, 12, 12)
    assert estimate.keyframes_s == pytest.approx(1.2)
    assert estimate.film_s == pytest.approx(FILM_START_S + 2.0)
    assert estimate.verify_s == pytest.approx(0.25)
    assert (estimate.video_bytes, estimate.kept_bytes) == (2000, 30_000)
    assert estimate.basis == "measured"


def test_films_take_a_start_and_then_as_long_as_they_have_frames() -> None:
    assert of([taken()], layout(seconds=2.5)).film_s == pytest.approx(FILM_START_S + 60 * 0.1)
    assert of([taken(film_s=0.15)], layout(seconds=2.5)).film_s == pytest.approx(FILM_START_S + 60 * 0.075 / 20)


def test_larger_pictures_take_longer_in_proportion_and_their_videos_less_than_that() -> None:
    estimate = of([taken(frames=12)], layout(side=128))

    assert estimate.keyframes_s == pytest.approx(4 * 1.2)
    assert estimate.film_s == pytest.approx(FILM_START_S + 4 * 2.0)
    assert estimate.kept_bytes == 4 * 30_000
    assert estimate.video_bytes == round(4**0.75 * 2000)


def test_of_several_shapes_the_nearest_counts_and_motions_before_sizes() -> None:
    rows = [
        taken(film_size="512x512", keyframe_size="512x512", film_s=99.0, keyframes_s=99.0),
        taken(motions=("walk",), film_s=FILM_START_S + 49.9, keyframes_s=50.0),
        taken(film_size="96x96", keyframe_size="96x96", film_s=FILM_START_S + 4.5, keyframes_s=2.7),
    ]

    still, moved = of(rows, layout()), of(rows, layout(motion={"walk": {"seed": 1}}))

    assert still.keyframes_s == pytest.approx(1.2)
    assert still.film_s == pytest.approx(FILM_START_S + 12 / 20 * 4.5 / 2.25)
    assert moved.film_s == pytest.approx(FILM_START_S + moved.frames * 49.9 / 20)
    assert moved.keyframes_s == pytest.approx(moved.evaluations * 50 / 12)


def test_a_motion_that_no_run_has_filmed_takes_longer_than_others_as_it_does_elsewhere() -> None:
    moved = of([taken()], layout(motion={"feedback": {}}))

    assert moved.film_s == pytest.approx(
        FILM_START_S + moved.frames * 2.0 / 20 * GUESSED_FILM_S["feedback"] / GUESSED_FILM_S["still"]
    )
    assert moved.basis == "measured"


def test_rows_of_one_shape_are_added_up() -> None:
    estimate = of([taken(), taken(keyframes_s=3.6)], layout())

    assert estimate.keyframes_s == pytest.approx(2.4)


def test_keyframes_that_are_there_cost_nothing() -> None:
    recipes = layout().recipes
    some = of([taken()], layout(), frozenset({recipes[0].fingerprint}))
    all_ = of([taken()], layout(), frozenset(recipe.fingerprint for recipe in recipes))

    assert some.keyframes == 2
    assert some.keyframes_s == pytest.approx(0.8)
    assert (all_.keyframes, all_.keyframes_s, all_.kept_bytes) == (0, 0.0, 0)
    assert all_.seconds == pytest.approx(all_.film_s + all_.verify_s)


@pytest.mark.parametrize("other", [{"model": "other"}, {"device": "cuda"}, {"precision": "fp8"}])
def test_what_another_model_device_or_precision_took_says_nothing(other: dict[str, str]) -> None:
    estimate = of([taken(keyframes_s=1000.0, film_s=1000.0, **other)], layout())

    assert estimate.basis == "guessed"
    assert estimate.keyframes_s == pytest.approx(12 * POCKET.expected_s * 0.004096)
    assert 0 < estimate.film_s < 1
    assert estimate.video_bytes > 0
    assert estimate.kept_bytes > 0


def test_a_job_is_guessed_while_no_run_has_drawn_with_the_model() -> None:
    """Films alone, of pictures that were there, say nothing of what drawing takes."""
    rows = [taken(keyframes=0, evaluations=0, keyframes_s=0.0, kept_bytes=0)]
    there = frozenset(recipe.fingerprint for recipe in layout().recipes)

    assert of(rows, layout()).basis == "guessed"
    assert of(rows, layout(), there).basis == "measured"


# Stages


def estimate_of(keyframes: int, keyframe_s: float, shot_s: float, verify_s: float) -> Estimate:
    films = max(1, keyframes)
    return Estimate(keyframes, keyframes, 1, keyframes * keyframe_s, films * shot_s, verify_s, 0, 0, "measured")


def simulated_s(jobs: Sequence[Estimate]) -> float:
    """The three stages step by step: each keyframe is drawn, then its shot filmed, as its stage and its pictures allow.

    A job comes to the keyframes stage when the line to the film stage, which holds one job, has room for it.
    """
    gpu = film = check = 0.0
    film_began: list[float] = []
    for number, each in enumerate(jobs):
        if number >= 2:  # the job before waits in the line until the film of the one before it is done
            gpu = max(gpu, film_began[number - 1])
        shots = max(1, each.keyframes)
        drawn = [gpu + each.keyframes_s / shots * (shot + 1) for shot in range(shots)]
        begin = max(film, gpu)
        film_began.append(begin)
        film = begin
        for ready in drawn if each.keyframes else [begin]:
            film = max(film, ready) + each.film_s / shots
        gpu = drawn[-1]
        check = max(check, film) + each.verify_s
    return check


durations = st.floats(0.0, 10.0)
estimates = st.builds(estimate_of, st.integers(0, 6), durations, durations, durations)


@given(st.lists(estimates, max_size=8))
def test_overlapping_stages_take_as_long_as_a_simulation_of_them(jobs: list[Estimate]) -> None:
    assert pipelined_s(jobs) == pytest.approx(simulated_s(jobs))


@given(estimates)
def test_a_job_alone_takes_as_long_as_a_line_of_one(each: Estimate) -> None:
    assert each.seconds == pytest.approx(pipelined_s([each]))


# What runs leave behind


def receipt(**made: Any) -> Receipt:
    fields: dict[str, Any] = {
        "model": "pocket",
        "source": "flux/1",
        "revision": "abc",
        "precision": "fp32",
        "device": "cpu",
    }
    fields |= {"keyframe_size": "64x64", "motions": ("still",), "keyframes": 3, "evaluations": 12}
    fields |= {"keyframes_s": 1.2, "film_s": FILM_START_S + 2.0, "verify_s": 0.25, "kept_bytes": 30_000}
    return Receipt(
        state="done",
        batch="b",
        job="film",
        fingerprint="f",
        made=Made(**fields | made),
        video=Video(width=64, height=64, fps=8, frames=20, duration_s=2.5, digest="d"),
        outputs=(OutputFile(name="b/film.mp4", sha256="s", size_bytes=2000, content_type="video/mp4"),),
        ended_at=NOW,
    )


def test_a_receipt_says_what_its_job_took_and_equal_shapes_are_one_row() -> None:
    takings = Takings()
    takings.count(receipt())
    assert takings.rows == (taken(),)

    takings.count(receipt())
    assert takings.rows == (taken().plus(taken()),)
    assert takings.rows[0].jobs == 2

    takings.count(receipt(motions=("move",)))
    assert len(takings.rows) == 2


def test_a_run_keeps_a_limited_number_of_shapes_whatever_strangers_ask_for() -> None:
    takings = Takings()
    for number in range(2 * MAX_ROWS):
        takings.count(receipt(keyframe_size=f"64x{number + 1}"))
    takings.count(receipt(keyframe_size="64x1"))

    assert len(takings.rows) == MAX_ROWS
    assert takings.rows[0].jobs == 2


def run(number: int, **fields: Any) -> RunReport:
    return RunReport(run=f"2026030{number}T000000-x", started_at=NOW, ended_at=NOW, why="", unavailable=False, **fields)


def kept(folder: Path, *runs: RunReport) -> History:
    store = FolderStore(folder)
    for each in runs:
        store.put(run_name(each.run), each.to_bytes())
    return History.read(store)


def test_a_model_is_what_it_was_where_it_rendered_last(tmp_path: Path) -> None:
    history = kept(
        tmp_path,
        run(1, taken=(taken(device="cuda", precision="fp8"),)),
        run(2, taken=(taken(), taken(model="other"))),
        run(3, taken=(taken(model="other"),)),
    )

    assert history.description("pocket") == HERE
    assert history.description("nobody") == Description("", "", "", "")
    assert [each.run[7] for each in history.of("pocket").runs] == ["1", "2"]


def test_starting_loading_and_leaving_take_what_they_took_in_the_middle(tmp_path: Path) -> None:
    history = kept(
        tmp_path,
        *(
            run(number, taken=(taken(),), stages_s={"start": 1.0, "import": each, "load": each * 2, "drain": 0.5})
            for number, each in enumerate((2.0, 3.0, 100.0), start=1)
        ),
        run(4, taken=(taken(model="other"),), stages_s={"start": 500.0}),
        *(
            run(number, taken=(taken(),), state="running", stages_s={"import": 3.0, "start": 1.0, "load": 6.0})
            for number in (5, 6, 7, 8)
        ),
    )

    assert history.start_s(POCKET) == pytest.approx(4.0 + 6.0)
    assert history.end_s(POCKET) == pytest.approx(0.5)


def test_reports_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    broken = json.loads(run(2, taken=(taken(),)).to_bytes())
    broken["taken"][0]["film_size"] = "0x0"
    store.put(run_name("20260302T000000-x"), json.dumps(broken).encode())
    store.put(run_name("20260303T000000-x"), b"\x00")

    assert [each.run for each in kept(tmp_path, run(1)).runs] == ["20260301T000000-x"]


def test_the_last_runs_count(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for number in range(LAST_RUNS + 5):
        store.put(run_name(f"{number:03}"), run(1).model_copy(update={"run": f"{number:03}"}).to_bytes())

    assert [each.run for each in History.read(store).runs] == [f"{number:03}" for number in range(5, LAST_RUNS + 5)]
