"""A source without torch that does harm on request, so that faults are tested with a real child and a real ffmpeg.

Words in a prompt say what happens when its keyframe is due; the files that make something happen only once lie in
`options.folder`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nightreel_pipelines.base import Description, Picture, Pictures, Tick
from nightreel_pipelines.beginning import beginning
from nightreel_pipelines.errors import SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Recipe
from nightreel_pipelines.transitions import crossfade

FAULT_IS_OVER = "fault-is-over"
"""The file in `options.folder` for which prompts wait that say `after the fault`."""


def name(recipe: Recipe) -> str:
    """What a keyframe is called in rendered.log: its prompt, and what else tells it from the others of its shot."""
    place = f" at {recipe.toward.at:.3f}" if recipe.toward else ""
    return recipe.prompt + place + (f" over {recipe.start.picture[:8]}" if recipe.start else "")


def paint(recipe: Recipe, pictures: Pictures) -> Picture:
    """One colour, from the seed; mixed with that of a walk's end, or over the picture that the recipe starts from."""
    color = _color(recipe.seed)
    if recipe.toward is not None:
        color = color + (_color(recipe.toward.seed) - color) * recipe.toward.at
    picture = np.empty((recipe.height, recipe.width, 3), dtype=np.uint8)
    picture[:] = np.rint(color)
    over = beginning(recipe, pictures)
    return picture if over is None or recipe.start is None else crossfade(over, picture, recipe.start.strength)


def _color(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).integers(0, 256, 3, dtype=np.uint8).astype(float)


class FaultySource:
    """Paints one colour, from the recipe's seed, unless the prompt asks for trouble."""

    def __init__(self, spec: ModelSpec, weights_root: Path | None) -> None:
        self._folder = Path(spec.options["folder"])
        self._load = str(spec.options.get("load", ""))

    def describe(self) -> Description:
        if self._load == "unavailable":
            raise SourceUnavailable("model faulty needs weights: put them there")
        print("a library says something on standard output")
        print('{"kind": "filmed", "key": "nonsense"}', flush=True)
        return Description("faulty/1", "", "", "cpu")

    def load(self) -> None:
        if self._load == "die":
            print("out of luck while loading", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._load == "after the fault":
            while not (self._folder / FAULT_IS_OVER).exists():
                time.sleep(0.02)

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        for recipe in recipes:
            self._trouble(recipe.prompt, tick)
            with (self._folder / "rendered.log").open("a") as log:
                log.write(name(recipe) + "\n")
            yield recipe, paint(recipe, pictures)

    def _trouble(self, prompt: str, tick: Tick) -> None:
        if "once" in prompt:
            marker = self._folder / f"{prompt.replace(' ', '-')}.done"
            if marker.exists():
                return
            marker.touch()
        if "half a second" in prompt:
            for _ in range(5):
                time.sleep(0.1)
                tick()
        if "after the fault" in prompt:
            while not (self._folder / FAULT_IS_OVER).exists():
                time.sleep(0.02)
                tick()
        if "die untold" in prompt:
            self._die_before_telling()
        if "kill the parent" in prompt:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if "kill the child" in prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in prompt:
            raise RuntimeError("this went wrong")
        if "refuse" in prompt:
            raise Unrenderable("shots[0].prompt: refused, as asked")
        if "hang" in prompt:
            time.sleep(3600)
        if "environment" in prompt:
            (self._folder / "environment").write_text("\n".join(os.environ))
        if "slow" in prompt:
            for _ in range(100):
                time.sleep(0.1)
                tick()

    def _die_before_telling(self) -> None:
        """Let this process die when the next keyframe is saved, before it says so."""
        program: Any = sys.modules["__main__"]
        save = program.save_png

        def save_and_die(*args: object) -> None:
            save(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        program.save_png = save_and_die
