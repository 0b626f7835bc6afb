"""A GPU that sleeps: takes as long as it is told to, and nothing of the CPU.

The test card can sleep too, but then draws for 16 ms a picture, which a GPU's picture does not cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nightreel_pipelines.base import Description, Picture, Pictures, Tick, refuse_mixtures
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Recipe

SOURCE = "sleeper:SleepingGpu"
STEPS = 4  # sleeps a keyframe, with a tick after each, as a model has them
BLOCK_PX = 8  # side of the coloured squares, which give the encoder something to do


class SleepingGpu:
    """Options: seconds_to_load, seconds_per_keyframe; log: a file that gets a line a keyframe, when it began and ended.

    Times in the log are seconds since the epoch; what lies between an end and the next beginning is time without work.
    """

    def __init__(self, spec: ModelSpec, weights_root: Path | None) -> None:
        self._load_s = float(spec.options["seconds_to_load"])
        self._keyframe_s = float(spec.options["seconds_per_keyframe"])
        self._log = str(spec.options.get("log", ""))

    def describe(self) -> Description:
        return Description("sleeper/1", "", "", "cpu")

    def load(self) -> None:
        time.sleep(self._load_s)

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        refuse_mixtures(recipes, "the sleeping GPU")
        for recipe in recipes:
            began = time.time()
            for _ in range(STEPS):
                time.sleep(self._keyframe_s / STEPS)
                tick()
            self._note(began, time.time())
            yield recipe, mosaic(recipe)

    def _note(self, began: float, ended: float) -> None:
        if self._log:
            with Path(self._log).open("a", encoding="utf-8") as file:
                file.write(f"{began:.6f} {ended:.6f}\n")


def mosaic(recipe: Recipe) -> Picture:
    """Coloured squares from the recipe's seed: uint8 (height, width, 3); costs a fraction of a millisecond."""
    rows, columns = recipe.height // BLOCK_PX, recipe.width // BLOCK_PX
    colors = np.random.default_rng(recipe.seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return np.ascontiguousarray(colors.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1))
