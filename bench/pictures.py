"""Does pocket draw what it is asked for? bench/judge.py looks at its pictures, and first at true ones, to show its own error.

The captions are held out: the training never saw them. Run it on other weights with --weights FOLDER.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import Table, arguments, median, publish
from judge import Verdict, judge

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from pocket.captions import T5_LENGTHS, caption, held_out, plain_caption
from pocket.drawing import draw
from pocket.layout import draw_layout
from pocket.scene import Scene, all_scenes, draw_scene

from nightreel_pipelines.base import Source, no_pictures
from nightreel_pipelines.models import load_models, make_source
from nightreel_pipelines.recipe import Recipe

SIZES = ((128, 128), (160, 96))
STEPS = 4
TRUE_SEED, PROMPT_SEED = 900_000, 800_000  # far from any seed of a training
SOFT = 1 / 64  # of the shorter side: a standard deviation of 2 px at 128; the model's edges are softer than drawn ones
NORMAL_95 = 1.96
PARTS = ("thing", "colour", "scene", "all three")
WANTED = 0.9


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture, what it should show, and what the judge says."""

    scene: Scene
    verdict: Verdict
    seconds: float = 0.0

    @property
    def right(self) -> tuple[bool, bool, bool, bool]:
        """By PARTS; the scene is the ground, the colour of hills, and the time of day."""
        thing, colour = self.verdict.thing == self.scene.thing, self.verdict.colour == self.scene.colour
        seen = (self.verdict.ground, self.verdict.ground_colour, self.verdict.time)
        scene = seen == (self.scene.ground, self.scene.ground_colour, self.scene.time)
        return thing, colour, scene, thing and colour and scene


def main() -> None:
    asked = _asked()
    cv2.setNumThreads(1)
    count = 2 if asked.quick else asked.count
    true = {(size, soft): look_at_true(size, count, soft) for soft in (0.0, SOFT) for size in SIZES}
    source = _source(asked.weights)
    made = {(size, kind): look_at_made(source, size, prompts(kind, count)) for size in SIZES for kind in KINDS}
    publish("pictures", (_judge_table(true), _table(made), _thing_table(made)), asked)


def look_at_true(size: tuple[int, int], count: int, soft: float = 0.0) -> list[Seen]:
    """The judge's verdicts on pictures that show their scenes for certain; `soft` blurs them, by a share of the shorter side."""
    seen = []
    for number in range(count):
        scene = draw_scene(random.Random(TRUE_SEED + number))
        layout, _ = draw_layout(scene, size, np.random.default_rng(TRUE_SEED + number))
        picture = draw(scene, layout, *size)
        if soft:
            picture = cv2.GaussianBlur(picture, (0, 0), soft * min(size)).astype(np.uint8)
        seen.append(Seen(scene, judge(picture)))
    return seen


def look_at_made(source: Source, size: tuple[int, int], asked: Sequence[tuple[Scene, str]]) -> list[Seen]:
    """The judge's verdicts on the model's pictures; each prompt has a seed of its own."""
    recipes = [_recipe(source, prompt, number, size) for number, (_, prompt) in enumerate(asked)]
    seen = []
    since = time.perf_counter()
    for (scene, _), (_, picture) in zip(asked, source.keyframes(recipes, no_pictures, lambda: None), strict=True):
        took = time.perf_counter() - since
        seen.append(Seen(scene, judge(picture), took))
        since = time.perf_counter()
    return seen


def prompts(kind: str, count: int) -> list[tuple[Scene, str]]:
    """Scenes and their held-out captions."""
    return KINDS[kind](random.Random(PROMPT_SEED), count)


def interval(right: int, count: int) -> tuple[float, float]:
    """Of a share, with 95 % confidence (Wilson 1927)."""
    share, weight = right / count, NORMAL_95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    reach = NORMAL_95 / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _varied(chance: random.Random, count: int) -> list[tuple[Scene, str]]:
    found: list[tuple[Scene, str]] = []
    while len(found) < count:
        scene = draw_scene(chance)
        text = caption(scene, chance)
        if held_out(text):
            found.append((scene, text))
    return found


def _plain(chance: random.Random, count: int) -> list[tuple[Scene, str]]:
    scenes = [scene for scene in all_scenes() if held_out(plain_caption(scene))]
    chance.shuffle(scenes)
    return [(scene, plain_caption(scene)) for scene in (scenes[number % len(scenes)] for number in range(count))]


KINDS = {"plain": _plain, "varied": _varied}


def _source(weights: Path | None) -> Source:
    """The package's pocket, or another one, which reads prompts at the lengths that the training has."""
    spec = load_models()["pocket"]
    if weights is not None:
        sequence = tuple(sorted({*spec.sequence, *T5_LENGTHS}))
        spec = spec.model_copy(update={"weights": str(weights.resolve()), "sequence": sequence})
    source = make_source(spec, None)
    source.load()
    return source


def _recipe(source: Source, prompt: str, seed: int, size: tuple[int, int]) -> Recipe:
    what = source.describe()
    width, height = size
    return Recipe(what.source, what.revision, what.precision, prompt, seed, STEPS, 0.0, width, height)


# Tables


def _judge_table(true: dict[tuple[tuple[int, int], float], list[Seen]]) -> Table:
    rows = tuple(
        (_size(size) + (", softened" if soft else ""), str(len(seen)), *_shares(seen))
        for (size, soft), seen in true.items()
    )
    return Table(
        "The judge on true pictures",
        ("size", "pictures", *PARTS),
        rows,
        (
            (
                "Drawn by the training's own program from seeds that no training uses; what is missing to 100 % is the "
                "judge's error, which it makes on the model's pictures as well. Softened: blurred by 1/64 of the shorter "
                "side, because a model's edges are softer than drawn ones."
            ),
        ),
    )


def _table(made: dict[tuple[tuple[int, int], str], list[Seen]]) -> Table:
    rows = tuple(
        (f"{_size(size)}, {kind}", str(len(seen)), *_shares(seen), f"{median([one.seconds for one in seen]):.2f} s")
        for (size, kind), seen in made.items()
    )
    return Table(
        f"What pocket's pictures show, at {STEPS} steps",
        ("size, captions", "pictures", *PARTS, "a picture"),
        rows,
        (
            (
                f"Shares of all pictures, with intervals of 95 % confidence; wanted: {WANTED:.0%}. Scene: ground, its colour "
                "and time of day. Captions are held out from training: plain ones are like `a red sun over blue hills at "
                "sunset`, varied ones are as a person might type them. The time is that of one picture, with all prompts "
                "of its row read within the first."
            ),
        ),
    )


def _thing_table(made: dict[tuple[tuple[int, int], str], list[Seen]]) -> Table:
    every = [one for seen in made.values() for one in seen]
    things = sorted({one.scene.thing for one in every})
    times = sorted({one.scene.time for one in every})
    rows = [(name, [one for one in every if one.scene.thing == name]) for name in things]
    rows += [(name, [one for one in every if one.scene.time == name]) for name in times]
    return Table(
        "The same pictures by thing and by time of day",
        ("shown", "pictures", *PARTS),
        tuple((name, str(len(seen)), *_shares(seen)) for name, seen in rows),
    )


def _shares(seen: Iterable[Seen]) -> tuple[str, ...]:
    rights = list(zip(*(one.right for one in seen), strict=True))
    return tuple(_share(sum(right), len(right)) for right in rights)


def _share(right: int, count: int) -> str:
    low, high = interval(right, count)
    return f"{right / count:.0%} ({low:.0%} to {high:.0%})"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _asked() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--weights", type=Path, help="folder of a pocket to judge (default: the package's)")
    parser.add_argument("--count", type=int, default=150, help="pictures of each size and kind of caption")
    return parser.parse_args()


if __name__ == "__main__":
    main()
