"""A loaded model at work: prompts and recipes in, pictures out, with less and less at once while memory is short.

Imports torch and diffusers.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import sqrt
from pathlib import Path

from ..base import LoadingHeard, Picture, Pictures, Tick, no_pictures
from ..errors import OutOfMemory, PipelineError
from ..models import ModelSpec
from ..recipe import Recipe
from .hosting import Hosted
from .ladder import Allocating, Ladder, Watched
from .loading import Loader
from .mixing import mixed, prompts_of
from .modulation import KEPT
from .paint import Painter, check_size
from .placing import Placement
from .schedule import timesteps
from .speed import compile_blocks, set_attention
from .text import TextEncoder, Texts
from .together import take

_PROBES = 6  # sizes that are tried, each half of the one before, to tell a job that does not fit what would


class Engine:
    """Loads a model and makes pictures; used by one thread."""

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        placement: Placement,
        *,
        controls: Mapping[str, Path] | None = None,
        expected: Sequence[Recipe] = (),
        heard: LoadingHeard = lambda *_: None,
        allocating: Allocating | None = None,
    ) -> None:
        """Load, with the control checkpoints in `controls`, by type.

        The prompts of `expected` are read while the transformer comes in. Raises whatever the libraries raise.
        """
        self._placement, self._allocating = placement, allocating
        self._loader = Loader(folder, placement, heard, controls)
        self._pipe = self._loader.pipe
        self._encoder = TextEncoder(self._pipe, spec)
        self._largest = (0, 0)
        self._loader.load_text()
        with ThreadPoolExecutor(1, "load") as background:
            pictures = background.submit(self._loader.load_pictures)
            with contextlib.suppress(PipelineError):  # will be told when the job asks for its pictures
                self._encoder.encode(map(prompts_of, expected), lambda: None)
            pictures.result()
        self._painter = Painter(self._pipe, self._loader.controls)
        for net in (self._pipe.transformer, *self._loader.controls.values()):
            set_attention(net, spec.attention, placement.device)
        self._compiled = compile_blocks(self._pipe.transformer, spec, folder, placement.device, self.warm)
        self._ladder = Ladder(spec.batch, None if placement.t5_on_host else self._host_t5)

    @property
    def placement(self) -> str:
        """Where the model lies, and what is given up just now."""
        return "; ".join(filter(None, (self._loader.placed, self._compiled, self._ladder.rungs)))

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        """As Source tells."""
        for recipe in recipes:
            check_size(self._pipe, recipe)
        with self._ladder.for_a_job():
            texts = self._read(recipes, tick)
            for some in self._portions(recipes):
                self._modulate(some, texts)
                waiting = deque(some)
                while waiting:
                    yield from self._make_some(waiting, texts, pictures, tick)

    def warm(self, width: int, height: int) -> None:
        """Make one step of a picture of this size, so that what it needs is compiled."""
        recipe = Recipe("", "", "", "warm", seed=0, steps=1, guidance=0, width=width, height=height)
        texts = self._encoder.encode([prompts_of(recipe)], lambda: None)
        self._modulate([recipe], texts)
        self._painter.paint([recipe], texts, no_pictures, lambda: None)

    def _read(self, recipes: Sequence[Recipe], tick: Tick) -> Texts:
        prompts = list(dict.fromkeys(map(prompts_of, recipes)))
        try:
            with self._watched():
                return self._encoder.encode(prompts, tick)
        except OutOfMemory:
            if not self._ladder.without_t5():
                raise
        with self._watched():
            return self._encoder.encode(prompts, tick)

    def _modulate(self, recipes: Sequence[Recipe], texts: Texts) -> None:
        """Compute the modulation of all prompts, and mixtures of them, of equal steps in one pass of its layers."""
        if self._loader.modulation is None:
            return
        alike: dict[object, list[Recipe]] = {}
        for recipe in recipes:
            alike.setdefault(_steps_of(recipe), []).append(recipe)
        for some in alike.values():
            read = {(recipe.prompt, recipe.toward): mixed(texts[prompts_of(recipe)], recipe) for recipe in some}
            pooled = [text.pooled for text in read.values()]
            steps = timesteps(self._pipe, some[0], pooled[0])
            self._loader.modulation.compute(steps, pooled, some[0].guidance)

    def _portions(self, recipes: Sequence[Recipe]) -> Iterator[Sequence[Recipe]]:
        """As many at a time as modulation is remembered for; each keyframe of a walk has its own."""
        number = len(recipes)
        if self._loader.modulation is not None:
            number = max(1, KEPT // max((recipe.steps for recipe in recipes), default=1))
        for begin in range(0, len(recipes), number or 1):
            yield recipes[begin : begin + number]

    def _make_some(
        self, waiting: deque[Recipe], texts: Texts, pictures: Pictures, tick: Tick
    ) -> Iterator[tuple[Recipe, Picture]]:
        """Make the next keyframes in line, as many at once as the ladder allows, or go down a rung."""
        group = take(waiting, texts, self._ladder.batch)
        try:
            with self._watched():
                made = self._painter.paint(group, texts, pictures, tick, striped=self._ladder.striped)
        except OutOfMemory as exc:
            if not self._ladder.down(len(group)):
                raise self._too_large(group[0], texts, pictures) from exc
            waiting.extendleft(reversed(group))
            return
        size = (group[0].width, group[0].height)
        self._largest = max(self._largest, size, key=_pixels)
        yield from zip(group, made, strict=True)

    def _too_large(self, recipe: Recipe, texts: Texts, pictures: Pictures) -> OutOfMemory:
        """What to say of a picture that did not fit though all was given up."""
        width, height = self._largest if 0 < _pixels(self._largest) < recipe.width * recipe.height else (0, 0)
        if not width:
            width, height = self._probe(recipe, texts, pictures)
        mend = f" to {width * height / 1e6:.2f} ({width}x{height} fits)" if width else ""
        given_up = f" ({self._ladder.rungs})" if self._ladder.rungs else ""
        return OutOfMemory(
            f"not enough memory for a keyframe of {recipe.width}x{recipe.height}{given_up}: lower render.megapixels{mend}, "
            "or use a larger machine"
        )

    def _probe(self, recipe: Recipe, texts: Texts, pictures: Pictures) -> tuple[int, int]:
        """The largest of some smaller sizes that fits, by making one step of it; (0, 0): none, or not tried.

        Not tried on a plain CPU, where trying may end in the kernel's killing the process.
        """
        if self._placement.device == "cpu" and self._allocating is None:
            return 0, 0
        for halvings in range(1, _PROBES + 1):
            shrunk = _shrunk(recipe, 0.5**halvings, 2 * int(self._pipe.vae_scale_factor))
            with contextlib.suppress(OutOfMemory), self._watched():
                self._painter.paint([shrunk], texts, pictures, lambda: None, striped=self._ladder.striped)
                return shrunk.width, shrunk.height
        return 0, 0

    def _host_t5(self) -> Hosted:
        return Hosted(self._pipe.text_encoder_2, self._placement.device)

    def _watched(self) -> contextlib.AbstractContextManager[object]:
        return Watched(self._allocating) if self._allocating else contextlib.nullcontext()


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _steps_of(recipe: Recipe) -> tuple[object, ...]:
    """Recipes that are equal in this take equal timesteps and guidance."""
    return recipe.steps, recipe.guidance, recipe.width, recipe.height, recipe.start and recipe.start.strength


def _shrunk(recipe: Recipe, share: float, multiple: int) -> Recipe:
    """The recipe with about that share of its pixels, one step, which is steered, sides that the model can make."""
    width, height = (
        max(multiple, int(side * sqrt(share)) // multiple * multiple) for side in (recipe.width, recipe.height)
    )
    control = recipe.control and replace(recipe.control, start=0.0, end=1.0)
    return replace(recipe, width=width, height=height, steps=1, control=control)
