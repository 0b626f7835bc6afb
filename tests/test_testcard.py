"""The test card: a source that needs no model."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from nightreel_pipelines.base import Description, no_pictures
from nightreel_pipelines.errors import Cancelled, SourceUnavailable
from nightreel_pipelines.models import ModelSpec, load_models, make_source
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.testcard import TestcardSource


def recipe(**fields: Any) -> Recipe:
    defaults: dict[str, Any] = {
        "source": "testcard/1",
        "revision": "",
        "precision": "",
        "prompt": "An owl in the snow",
        "seed": 7,
        "steps": 4,
        "guidance": 0.0,
        "width": 320,
        "height": 176,
    }
    return Recipe(**defaults | fields)


def source(**options: Any) -> TestcardSource:
    return TestcardSource(ModelSpec(name="card", source="testcard", megapixels=0.1, options=options), None)


def draw(*recipes: Recipe) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return [picture for _, picture in source().keyframes(recipes, no_pictures, lambda: None)]


def test_it_can_be_had_by_its_models_name() -> None:
    made = make_source(load_models()["testcard"], None)

    assert made.describe() == Description("testcard/1", "", "", "cpu")


def test_it_draws_one_picture_for_each_recipe_in_order_and_size() -> None:
    recipes = [recipe(width=64, height=64), recipe(), recipe(width=176, height=320)]

    drawn = list(source().keyframes(recipes, no_pictures, lambda: None))

    assert [made for made, _ in drawn] == recipes
    assert [picture.shape for _, picture in drawn] == [(64, 64, 3), (176, 320, 3), (320, 176, 3)]
    assert all(picture.dtype == np.uint8 for _, picture in drawn)


def test_equal_recipes_give_equal_cards_and_others_do_not() -> None:
    one, same, other_seed, other_prompt = draw(recipe(), recipe(), recipe(seed=8), recipe(prompt="A fox in the snow"))

    assert (one == same).all()
    assert not (one == other_seed).all()
    assert not (one == other_prompt).all()


@pytest.mark.parametrize(
    "prompt",
    ["x", "word " * 1600, "W" * 8000, "été \u2013 “naïve” \u00d7 漢字 🦉", "\n\t a \n b"],
    ids=["a letter", "a book", "one endless word", "other scripts", "white space"],
)
def test_any_prompt_fits_on_any_card(prompt: str) -> None:
    # Given a card, and the same with a blank prompt
    for size in ((64, 64), (320, 176), (176, 320), (48, 640)):
        card, blank = draw(*(recipe(prompt=text, width=size[0], height=size[1]) for text in (prompt, ".")))

        # When they are compared
        written = np.argwhere((card != blank).any(axis=2))

        # Then something is written, and nothing of it near the edges
        assert len(written)
        assert written.min(axis=0)[1] >= 0.05 * size[0]
        assert written.max(axis=0)[1] <= 0.95 * size[0]
        assert written.min(axis=0)[0] >= 0.1 * size[1]


def test_cards_of_neighbouring_seeds_have_colours_that_tell_them_apart() -> None:
    cards = draw(*(recipe(seed=seed) for seed in range(4)))

    colours = [card.reshape(-1, 3).mean(axis=0) for card in cards]

    assert all(np.abs(one - other).max() > 20 for one, other in itertools.pairwise(colours))


@pytest.mark.parametrize("seed", [0, 1, 99, 2**32 - 1])
def test_its_text_can_be_read_on_every_seeds_colours(seed: int) -> None:
    (card,) = draw(recipe(seed=seed))

    luminance = card @ (0.2126, 0.7152, 0.0722)

    assert np.median(luminance) < 130  # under white text
    assert luminance.max() > 250


def test_the_circle_is_round_and_in_the_middle() -> None:
    (card,) = draw(recipe(prompt="."))

    luminance = card.astype(float).sum(axis=2)

    # its left, right and top points, searched for between the frame and the text
    rows = (luminance[88, 72:], luminance[88, 247::-1], luminance[:, 160])
    edges = [int(np.argmax(row[14:50])) for row in rows]
    assert max(edges) - min(edges) <= 1


def test_it_takes_the_time_it_is_told_to_and_reports_while_it_waits() -> None:
    # Given a card that pretends to be slow, and a clock that only counts
    slept: list[float] = []
    spec = ModelSpec(
        name="slow", source="testcard", megapixels=0.1, options={"seconds_to_load": 2, "seconds_per_keyframe": 1.5}
    )
    slow = TestcardSource(spec, None, sleep=slept.append)

    # When it loads and draws two
    slow.load()
    loading_s = sum(slept)
    ticks: list[None] = []
    drawn = list(slow.keyframes([recipe(), recipe(seed=8)], no_pictures, lambda: ticks.append(None)))

    # Then it has slept as long as it was told, in slices, with a tick for each
    assert loading_s == pytest.approx(2.0)
    assert sum(slept) - loading_s == pytest.approx(3.0)
    assert max(slept) <= 0.1
    assert len(ticks) >= 2 * 1.5 / 0.1
    assert len(drawn) == 2


def test_it_can_be_called_off_while_it_waits() -> None:
    # Given a card that would take an hour
    slept: list[float] = []
    spec = ModelSpec(name="slow", source="testcard", megapixels=0.1, options={"seconds_per_keyframe": 3600})
    slow = TestcardSource(spec, None, sleep=slept.append)

    def tick() -> None:
        if len(slept) == 3:
            raise Cancelled("called off")

    # When the job is called off, then it ends at the next slice
    with pytest.raises(Cancelled):
        next(slow.keyframes([recipe()], no_pictures, tick))
    assert len(slept) == 3


def test_an_option_it_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(SourceUnavailable, match="seconds_per_keyfrane"):
        source(seconds_per_keyfrane=3)


def test_it_needs_no_torch() -> None:
    code = "import sys, nightreel_pipelines.testcard; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
