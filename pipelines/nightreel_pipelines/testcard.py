"""A source without a model: it draws a test card that says what was asked for. For trying queues, stores and films."""

from __future__ import annotations

import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .base import Description, Pictures, Tick
from .beginning import beginning
from .errors import SourceUnavailable
from .models import ModelSpec
from .recipe import Recipe
from .transitions import crossfade

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float64]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SLICE_S = 0.05  # longest sleep between two ticks
GOLDEN = 0.6180339887498949  # multiples of it, taken round the colour circle, lie far apart for neighbouring seeds
SIMPLER = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u00d7", "''\"\"--x")  # quotes, dashes, times
LINE_SPACING = 1.3  # of the font's size


class Options(BaseModel):
    """What models.toml may say under `options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds_to_load: float = Field(0.0, ge=0)
    seconds_per_keyframe: float = Field(0.0, ge=0)


class TestcardSource:
    """Draws one card for each recipe, in as much time as the options say a model would take."""

    __test__ = False  # pytest would collect it for its name

    def __init__(
        self, spec: ModelSpec, weights_root: Path | None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`weights_root` is not used: there are no weights. Raises SourceUnavailable for options it does not know."""
        try:
            self._options = Options.model_validate(spec.options)
        except ValidationError as exc:
            raise SourceUnavailable(f"model {spec.name}: options that the test card does not know: {exc}") from exc
        self._sleep = sleep

    def describe(self) -> Description:
        return Description(source="testcard/1", revision="", precision="", device="cpu")

    def load(self) -> None:
        self._spend(self._options.seconds_to_load, lambda: None)

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        for recipe in recipes:
            self._spend(self._options.seconds_per_keyframe, tick)
            tick()
            yield recipe, drawn(recipe, pictures)

    def _spend(self, seconds: float, tick: Tick) -> None:
        """Sleep in slices: a cancelled job ends at the next tick."""
        slices = round(seconds / SLICE_S + 0.5) if seconds else 0
        for _ in range(slices):
            tick()
            self._sleep(seconds / slices)


def drawn(recipe: Recipe, pictures: Pictures) -> Picture:
    """The card of a recipe, mixed with that of a walk's end, or over the picture that it starts from."""
    picture = card(recipe)
    if recipe.toward is not None:
        end = card(replace(recipe, prompt=recipe.toward.prompt, seed=recipe.toward.seed))
        picture = crossfade(picture, end, recipe.toward.at)
    over = beginning(recipe, pictures)
    return picture if over is None or recipe.start is None else crossfade(over, picture, recipe.start.strength)


def card(recipe: Recipe) -> Picture:
    """The test card of a recipe: uint8 (height, width, 3), RGB; equal recipes give equal cards."""
    unit = min(recipe.width, recipe.height)
    pixels = _background(recipe)
    for mask, strength in _marks(recipe.width, recipe.height, unit):
        pixels += (1 - pixels) * (mask * strength)[:, :, None]
    image = Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    _write(image, recipe, unit)
    return np.array(image)


def _background(recipe: Recipe) -> Floats:
    """A soft diagonal gradient between two neighbouring hues, lighter in the middle; 0 to 1."""
    x, y = _places(recipe.width, recipe.height)
    along = (x / recipe.width + y / recipe.height) / 2
    away = np.hypot(x / recipe.width - 0.5, y / recipe.height - 0.5)
    hue = recipe.seed * GOLDEN % 1.0
    lightness = 0.36 + 0.20 * along - 0.12 * away**2
    return _oklch(lightness, 0.085, hue + 0.22 * along)


def _oklch(lightness: Floats, chroma: float, hue: Floats) -> Floats:
    """sRGB (height, width, 3), 0 to 1, of OKLCH colours (B. Ottosson, 2020): equal lightness looks equally light."""
    a, b = chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones**3 @ to_linear.T, 0, 1)
    srgb: Floats = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


def _marks(width: int, height: int, unit: int) -> Iterator[tuple[Floats, float]]:
    """Line drawings with their opacity: a frame that shows borders, corners, a circle that shows squeezing, a cross."""
    x, y = _places(width, height)
    across, down = np.abs(x - width / 2), np.abs(y - height / 2)
    inset, thin, thick = 0.045 * unit, max(1.0, unit / 400), max(1.5, unit / 150)
    off_frame = np.maximum(across - (width / 2 - inset), down - (height / 2 - inset))
    yield _line(off_frame, thin), 0.35
    arm = 0.085 * unit
    at_corner = (across > width / 2 - inset - arm) & (down > height / 2 - inset - arm)
    yield _line(off_frame, thick) * at_corner, 0.9
    yield _line(np.hypot(across, down) - 0.34 * unit, thin), 0.35
    at_edge = (across > width / 2 - 1.7 * inset) | (down > height / 2 - 1.7 * inset)
    yield _line(np.minimum(across, down), thin) * (at_edge & (off_frame < 0)), 0.6


def _line(distance: Floats, thickness: float) -> Floats:
    """Coverage 0 to 1 of pixels that lie `distance` off a line's middle."""
    return np.clip(0.5 + thickness / 2 - np.abs(distance), 0, 1)


def _places(width: int, height: int) -> tuple[Floats, Floats]:
    """x (1, width) and y (height, 1) of the pixels' centres."""
    return np.arange(0.5, width, dtype=np.float64)[None, :], np.arange(0.5, height, dtype=np.float64)[:, None]


def _write(image: Image.Image, recipe: Recipe, unit: int) -> None:
    draw = ImageDraw.Draw(image)
    centre = recipe.width / 2
    font, lines = _fit(_legible(recipe.prompt), 0.76 * recipe.width, 0.56 * recipe.height, unit)
    step = LINE_SPACING * _size(font)
    top = recipe.height / 2 - step * (len(lines) - 1) / 2
    for index, line in enumerate(lines):
        draw.text((centre, top + index * step), line, font=font, fill=(255, 255, 255), anchor="mm")
    note = f"{recipe.width} x {recipe.height}   seed {recipe.seed}"
    small = ImageFont.load_default(max(6.0, unit / 26))
    draw.text((centre, recipe.height - 0.125 * unit), note, font=small, fill=(235, 235, 235), anchor="mm")


def _legible(text: str) -> str:
    """In letters that Pillow's own type has, which are ASCII's and some signs: no accents, ? for other scripts."""
    plain = unicodedata.normalize("NFKD", text.translate(SIMPLER))
    return " ".join(
        "".join(char if char.isascii() else "?" for char in plain if not unicodedata.combining(char)).split()
    )


def _fit(text: str, width: float, height: float, unit: int) -> tuple[Font, list[str]]:
    """The largest type in which the text fits, and its lines; a text too long even for the smallest is shortened."""
    smallest = max(6.0, unit / 36)
    size = max(smallest, unit / 9)
    while True:
        font = ImageFont.load_default(size)
        lines = _wrap(text, font, width)
        room = max(1, int(height / (LINE_SPACING * size)))
        if len(lines) <= room:
            return font, _balanced(text, font, width, len(lines))
        if size <= smallest:
            return font, [*lines[: room - 1], lines[room - 1].rstrip(" .,;")[:-2] + "…"]
        size = max(smallest, size * 0.92)


def _balanced(text: str, font: Font, width: float, count: int) -> list[str]:
    """The same number of lines, as even as they go, so that no single word is left for the last."""
    even = next(part for part in range(50, 101) if part == 100 or len(_wrap(text, font, width * part / 100)) <= count)
    return _wrap(text, font, width * even / 100)


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Break between words; a word wider than a line is broken where the line ends."""
    longest = max(1, int(width / font.getlength("W")))
    lines: list[str] = []
    for word in (part for whole in text.split() for part in textwrap.wrap(whole, longest)):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines or [""]


def _size(font: Font) -> float:
    return font.size if isinstance(font, ImageFont.FreeTypeFont) else 10.0
