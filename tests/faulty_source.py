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

from nightreel_pipelines.base import Description, Picture, Tick
from nightreel_pipelines.errors import SourceUnavailable, Unrenderable
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.recipe import Recipe

FAULT_IS_OVER = "fault-is-over"
"""The file in `options.folder` for which prompts wait that say `after the fault`."""


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

    def keyframes(self, recipes: Sequence[Recipe], tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        for recipe in recipes:
            self._trouble(recipe.prompt, tick)
            with (self._folder / "rendered.log").open("a") as log:
                log.write(recipe.prompt + "\n")
            rng = np.random.default_rng(recipe.seed)
            color = rng.integers(0, 256, 3, dtype=np.uint8)
            yield recipe, np.ascontiguousarray(np.broadcast_to(color, (recipe.height, recipe.width, 3)))

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
