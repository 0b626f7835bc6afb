"""Whole clips: how long and how large, what is refused, and how they are filmed."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_buyer import spec
from gemini_server import make_clip
from hypothesis import given
from hypothesis import strategies as st

from nightreel_dispatcher.submit import check_models
from nightreel_pipelines import abilities, film
from nightreel_pipelines.base import no_pictures
from nightreel_pipelines.clips import clip_seconds, clip_size, description
from nightreel_pipelines.decode import check, decoded
from nightreel_pipelines.errors import BadVideo, SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.plan import Plan, plan
from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_storage.folder import FolderStore
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import utc_now
from nightreel_worker.estimate import Rates
from nightreel_worker.forecast import forecast
from nightreel_worker.prices import Price, clip_micro_usd, load_prices

FADE = {"type": "crossfade", "duration": 0.5}
CUT = {"type": "cut"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, 24 frames a second, 128x72, with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, "testsrc2", 2)
    return path


def job_of(*shots: dict[str, Any], **fields: Any) -> Job:
    told = {"id": "film", "batch": "b", "render": {"model": "gemini-veo"}} | fields
    return Job.model_validate_json(
        json.dumps(told | {"shots": [{"prompt": "a lake", "duration": 3.5} | shot for shot in shots]})
    )


def plan_of(job: Job) -> Plan:
    return plan(job, spec(), description(spec()), dict.fromkeys(job.inputs, "0" * 64))


# the plan


def test_each_shot_has_the_shortest_clip_that_covers_it_with_its_handles() -> None:
    layout = plan_of(job_of({"duration": 3.75}, {"duration": 3.75}, {"duration": 5.5}, transition=FADE))

    assert [shot.frames for shot in layout.shots] == [120, 127, 173], "of 30 a second"
    assert [recipe.clip_s for recipe in layout.recipes] == [4, 6, 6]
    assert [(recipe.width, recipe.height, recipe.source, recipe.revision) for recipe in layout.recipes] == [
        (1280, 720, "gemini/1", "veo-3.1-generate-preview")
    ] * 3
    assert layout.motions == ("clip",)
    assert layout.evaluations == 3


def test_a_shot_that_is_longer_than_any_clip_is_refused_with_the_mend() -> None:
    with pytest.raises(Unrenderable) as told:
        plan_of(job_of({}, {"duration": 8.0}, transition=FADE))

    assert str(told.value) == (
        "shots[1].duration: with its transitions the shot is on screen for 8.26667 s, and clips of gemini-veo last 8 s at"
        " most: make it 0.266667 s shorter, or take another model"
    )


@given(st.lists(st.integers(1, 60), min_size=1, unique=True), st.fractions(Fraction(1, 60), 60))
def test_no_clip_is_shorter_than_its_shot_and_none_longer_than_need_be(lengths: list[int], visible_s: Fraction) -> None:
    model = ModelSpec(name="any", source="any", megapixels=0.9216, clips=tuple(lengths), clip_price="any")
    if visible_s > max(lengths):
        with pytest.raises(Unrenderable, match="duration"):
            clip_seconds(model, visible_s, "shots[0]")
    else:
        seconds = clip_seconds(model, visible_s, "shots[0]")
        assert seconds in lengths
        assert not [each for each in lengths if visible_s <= each < seconds]


def test_clips_lie_or_stand_as_the_film_does() -> None:
    assert clip_size(1920, 1080, 0.9216) == clip_size(64, 64, 0.9216) == (1280, 720)
    assert clip_size(1080, 1350, 0.9216) == (720, 1280)
    assert clip_size(1280, 720, 2.0736) == (1920, 1080)


def test_equal_shots_of_one_seed_are_one_clip_and_another_seed_is_another_take() -> None:
    layout = plan_of(job_of({"seed": 1}, {"seed": 1}, {"seed": 2}, transition=CUT))

    assert len(layout.shots) == 3
    assert len(layout.recipes) == 2


def test_a_given_picture_among_clips_is_filmed_as_ever() -> None:
    layout = plan_of(job_of({}, {"prompt": None, "image": "gs://pictures/a.png", "duration": 20}))

    assert [shot.kind for shot in layout.shots] == ["clip", "move"]
    assert len(layout.recipes) == 1


@pytest.mark.parametrize(
    ("shot", "fields", "said"),
    [
        (
            {"motion": {"pan": [0.2, 0]}},
            {},
            "shots[0].motion: gemini-veo makes clips, which move by themselves: leave it",
        ),
        ({"motion": {"walk": {"to": "a sea"}}}, {}, "shots[0].motion: gemini-veo makes clips"),
        (
            {"init": {"image": "gs://pictures/b.png", "strength": 0.5}},
            {},
            "shots[0].init: gemini-veo draws over no picture",
        ),
        (
            {"control": {"type": "pose", "image": "gs://pictures/b.png"}},
            {},
            "shots[0].control: gemini-veo has no control",
        ),
        ({}, {"render": {"model": "gemini-veo", "megapixels": 1}}, "render.megapixels: gemini-veo makes clips of one"),
    ],
)
def test_what_clips_cannot_do_is_refused_with_field_and_mend(
    shot: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unrenderable) as told:
        abilities.check(job_of(shot, **fields), spec(), description(spec()))

    assert str(told.value).startswith(said)
    with pytest.raises(InvalidJob) as early:  # by enqueue as well, while somebody is there who can mend it
        check_models([job_of(shot, **fields)], load_models())
    assert said in str(early.value)


def test_a_default_motion_and_a_still_one_are_fine() -> None:
    abilities.check(job_of({}, {"motion": "still"}), spec(), description(spec()))


def test_a_models_entry_needs_lengths_and_a_price_together() -> None:
    with pytest.raises(ValueError, match="clips, clip_price"):
        ModelSpec(name="any", source="any", megapixels=1, clips=(4,))


# money


def test_a_plan_tells_what_clips_will_cost_and_stored_ones_cost_nothing(tmp_path: Path, clip: Path) -> None:
    store, job = FolderStore(tmp_path / "out"), job_of({"seed": 1}, {"seed": 2}, transition=CUT)
    free = Price(name="local", usd_per_s=0.0)

    first = forecast([job], store, load_models(), free, utc_now())
    Keyframes(store).put(plan_of(job).recipes[0].fingerprint, clip, "")
    second = forecast([job], store, load_models(), free, utc_now())

    assert (first.usd, first.clips_usd) == (3.2, 3.2)
    assert (second.usd, second.jobs[0].there) == (1.6, 1)


def test_a_jobs_own_limit_counts_its_clips(tmp_path: Path) -> None:
    job = job_of({}, limits={"max_cost_usd": 1.5})

    [told] = forecast([job], FolderStore(tmp_path), load_models(), Price(name="local", usd_per_s=0.0), utc_now()).jobs

    assert told.over.startswith("limits.max_cost_usd: it may cost 1.5 USD; it would take about ")
    assert told.over.endswith("and 1.60 USD for clips")


def test_a_clip_has_the_price_of_its_models_entry_or_none_is_made() -> None:
    assert clip_micro_usd(load_models()["gemini-veo-fast"], 8, load_prices()) == 1_200_000
    for price in ("no-such", "cloudrun-l4"):
        with pytest.raises(SourceUnavailable, match=f"clip_price '{price}' is no service's"):
            clip_micro_usd(spec().model_copy(update={"clip_price": price}), 8, load_prices())


def test_an_estimate_counts_the_seconds_that_are_not_there() -> None:
    layout = plan_of(job_of({"seed": 1}, {"seed": 2, "duration": 5}, transition=CUT))
    rates = Rates((), spec(), description(spec()))

    assert rates.estimate(layout).clip_s == 10
    assert rates.estimate(layout, frozenset({layout.recipes[0].fingerprint})).clip_s == 6


# the store


def test_a_clip_is_kept_beside_keyframes_under_its_fingerprint(tmp_path: Path, clip: Path) -> None:
    store = FolderStore(tmp_path / "out")
    Keyframes(store).put("ab12", clip, "attempt")

    assert [entry.name for entry in store.list(".nightreel/keyframes/")] == [".nightreel/keyframes/ab/ab12.mp4"]
    assert store.list(".nightreel/keyframes/").__next__().content_type == "video/mp4"
    assert Keyframes(store).fingerprints() == {"ab12"}
    assert Keyframes(store).fetch("ab12", tmp_path / "picture.png") is None
    found = Keyframes(store).fetch("ab12", tmp_path / "again.mp4")
    assert found is not None
    assert found.path.read_bytes() == clip.read_bytes()


# the film


def test_a_clip_is_decoded_to_the_films_size_rate_and_length(clip: Path) -> None:
    frames = list(decoded(clip, width=64, height=64, fps=30, count=45))

    assert {(frame.shape, frame.dtype) for frame in frames} == {((64, 64, 3), np.dtype(np.uint8))}
    assert len(frames) == 45
    assert all(frame.flags.c_contiguous for frame in frames)
    # Its middle, in its colours: testsrc2 has a yellow bar left of the middle, and a blue one right of it
    assert np.abs(frames[0][60, 24].astype(int) - (255, 255, 0)).max() < 8
    assert np.abs(frames[0][60, 40].astype(int) - (0, 0, 255)).max() < 8
    # Time runs as in the clip: 24 frames a second shown at 30, one in five shown twice
    same = Counter(np.array_equal(a, b) for a, b in pairwise(frames))
    assert same[True] == 9


def test_a_clip_that_ends_a_little_early_holds_its_last_frame(clip: Path) -> None:
    frames = list(decoded(clip, width=64, height=36, fps=10, count=24))

    assert len(frames) == 24
    assert all(np.array_equal(frame, frames[19]) for frame in frames[20:])
    assert not np.array_equal(frames[18], frames[19])


def test_a_clip_that_is_much_too_short_or_none_at_all_is_not_filmed(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="10 frames are missing at its end"):
        list(decoded(clip, width=64, height=36, fps=10, count=30))
    (none := tmp_path / "none.mp4").write_bytes(b"<html>")
    with pytest.raises(BadVideo, match="the clip cannot be filmed: "):
        list(decoded(none, width=64, height=36, fps=10, count=30))


def test_a_clip_is_checked_before_it_is_kept(clip: Path, tmp_path: Path) -> None:
    ticks = []
    check(clip, 2, lambda: ticks.append(1))
    assert len(ticks) > 24
    with pytest.raises(BadVideo, match=r"lasts 2\.00 s, and 4 s were asked for"):
        check(clip, 4)
    (half := tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(BadVideo, match="does not decode"):
        check(half, 2)


def test_a_film_joins_clips_by_its_transitions(tmp_path: Path) -> None:
    for name in ("testsrc2", "mandelbrot"):
        make_clip(tmp_path / f"{name}.mp4", name, 4)
    job = job_of({"seed": 1, "duration": 1.0}, {"seed": 2, "duration": 1.0}, transition=FADE)
    job = job.model_copy(update={"output": job.output.model_copy(update={"width": 64, "height": 36, "fps": 10})})
    layout = plan_of(job)
    files = dict(zip([recipe.fingerprint for recipe in layout.recipes], ("testsrc2", "mandelbrot"), strict=True))

    frames = list(film.frames(layout, no_pictures, lambda fingerprint: tmp_path / f"{files[fingerprint]}.mp4"))

    alone = [list(decoded(tmp_path / f"{name}.mp4", width=64, height=36, fps=10, count=13)) for name in files.values()]
    assert len(frames) == layout.frames == 20
    assert all(map(np.array_equal, frames[:7], alone[0]))
    assert all(map(np.array_equal, frames[12:], alone[1][5:]))
    between = (alone[0][9].astype(float) + alone[1][2]) / 2
    assert np.abs(frames[9] - between).mean() < 16
