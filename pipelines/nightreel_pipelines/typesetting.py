"""Text in a box: the largest type in which it fits, broken into lines. Sizes and places in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from .fonts import Colour, Setting

LEADING = 1.22  # from one baseline to the next, in sizes
ASCENT = 0.76  # from the top of a line to its baseline, in sizes: that of capitals, whose tops line up with pictures
DESCENT = 0.28
STEP = 0.94  # between the sizes that are tried
EVENED_LINES = 5  # up to so many, a text is set as a block without a lonely last word
ELLIPSIS = "..."  # three dots, which every font has


@dataclass(frozen=True, slots=True)
class Block:
    """A text that was set."""

    setting: Setting
    lines: tuple[str, ...]
    size: float

    @property
    def height(self) -> float:
        return block_height(len(self.lines), self.size)

    @property
    def width(self) -> float:
        return max(self.setting.width(line, self.size) for line in self.lines)

    def draw(
        self, draw: ImageDraw.ImageDraw, x: float, top: float, width: float, fill: Colour, weight: float = 0
    ) -> None:
        """Into a box of `width` whose top left corner is at (x, top); to its right side what is read leftward."""
        for index, line in enumerate(self.lines):
            indent = width - self.setting.width(line, self.size) if self.setting.leftward else 0
            baseline = top + (ASCENT + index * LEADING) * self.size
            self.setting.draw(draw, x + indent, baseline, line, self.size, fill, weight)


def block_height(lines: int, size: float) -> float:
    return ((lines - 1) * LEADING + ASCENT + DESCENT) * size


def fit(setting: Setting, width: float, height: float, largest: float, smallest: float) -> Block | None:
    """The text in the largest type in which it fits; in the smallest, shortened, if need be; None without any room."""
    blocks = fit_all([setting], width, height, 0.0, largest, smallest)
    return blocks[0] if blocks else None


def fit_all(
    settings: Sequence[Setting], width: float, height: float, gap: float, largest: float, smallest: float
) -> list[Block]:
    """Texts one below the other in type of one size, with gaps between them, as `fit` does it; none without any room."""
    height -= gap * (len(settings) - 1)
    if height < len(settings) * block_height(1, smallest) or width < settings[0].width(ELLIPSIS, smallest):
        return []
    sizes = _sizes(max(largest, smallest), smallest)
    first, last = 0, len(sizes) - 1  # the last one is taken in any case
    while first < last:
        middle = (first + last) // 2
        if _fits(settings, sizes[middle], width, height):
            last = middle
        else:
            first = middle + 1
    size = sizes[last]
    texts = [(setting, _wrap(setting, size, width)) for setting in settings]
    if _height(texts, size) > height:
        return _shortened(texts, width, height, size)
    return [Block(setting, tuple(_evened(setting, size, width, lines)), size) for setting, lines in texts]


def _sizes(largest: float, smallest: float) -> list[float]:
    """From the largest down, in even steps."""
    steps = math.ceil(math.log(largest / smallest) / -math.log(STEP))
    return [*(largest * STEP**step for step in range(steps)), smallest]


def _fits(settings: Sequence[Setting], size: float, width: float, height: float) -> bool:
    whole = all(_whole_words(setting, size, width) for setting in settings)
    return whole and _height([(setting, _wrap(setting, size, width)) for setting in settings], size) <= height


def _height(texts: Sequence[tuple[Setting, list[str]]], size: float) -> float:
    return sum(block_height(len(lines), size) for _, lines in texts)


def _shortened(texts: list[tuple[Setting, list[str]]], width: float, height: float, size: float) -> list[Block]:
    """Each in its share of the height, and in what those before it that need less have left over."""
    blocks: list[Block] = []
    for left, (setting, lines) in zip(range(len(texts), 0, -1), _shortest_first(texts), strict=True):
        room = int((height / left / size - ASCENT - DESCENT) / LEADING + 1e-9) + 1
        if len(lines) > room:
            lines = [*lines[: room - 1], cut(setting, " ".join(lines[room - 1 :]), size, width)]
        blocks.append(Block(setting, tuple(lines), size))
        height -= blocks[-1].height
    return [next(block for block in blocks if block.setting is setting) for setting, _ in texts]


def _shortest_first(texts: list[tuple[Setting, list[str]]]) -> list[tuple[Setting, list[str]]]:
    return sorted(texts, key=lambda text: len(text[1]))


def line(setting: Setting, width: float, size: float) -> Block | None:
    """The text on one line, shortened if need be; None without any room."""
    if width < setting.width(ELLIPSIS, size):
        return None
    return Block(setting, (cut(setting, setting.text, size, width),), size)


def cut(setting: Setting, text: str, size: float, width: float) -> str:
    """As much of the text as fits on a line, with dots for the rest."""
    if setting.width(text, size) <= width:
        return text
    fitting = _fitting(setting, text, size, width, ELLIPSIS)
    return text[:fitting].rstrip(" .,;") + ELLIPSIS


def _wrap(setting: Setting, size: float, width: float) -> list[str]:
    """Break between words; a word wider than a line is broken where the line ends."""
    blank = setting.width(" ", size)
    lines: list[str] = [""]
    end = 0.0
    for word in _pieces(setting, size, width):
        length = setting.width(word, size)
        if lines[-1] and end + blank + length <= width:
            lines[-1] += f" {word}"
            end += blank + length
        elif lines == [""]:
            lines, end = [word], length
        else:
            lines.append(word)
            end = length
    return lines


def _pieces(setting: Setting, size: float, width: float) -> Iterator[str]:
    for word in setting.text.split(" "):
        rest = word
        while len(rest) > 1 and setting.width(rest, size) > width:
            fitting = max(1, _fitting(setting, rest, size, width))
            yield rest[:fitting]
            rest = rest[fitting:]
        yield rest


def _fitting(setting: Setting, text: str, size: float, width: float, tail: str = "") -> int:
    """How many letters of the text fit on a line, by bisection."""
    fits, too_many = 0, min(len(text), int(4 * width / size) + 40) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if setting.width(text[:middle] + tail, size) <= width:
            fits = middle
        else:
            too_many = middle
    return fits


def _whole_words(setting: Setting, size: float, width: float) -> bool:
    """Whether no word has to be broken that smaller type could keep whole. Scripts without blanks break anywhere."""
    return all(not word.isascii() or setting.width(word, size) <= width for word in setting.text.split(" "))


def _evened(setting: Setting, size: float, width: float, lines: list[str]) -> list[str]:
    if not 1 < len(lines) <= EVENED_LINES:
        return lines
    for part in range(50, 100, 5):
        narrower = _wrap(setting, size, width * part / 100)
        if len(narrower) <= len(lines) and _whole_words(setting, size, width * part / 100):
            return narrower
    return lines
