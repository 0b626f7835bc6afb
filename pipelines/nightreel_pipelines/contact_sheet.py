"""Contact sheets: one JPEG that shows a set of films, some frames of each, with its name and facts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .fonts import Fonts
from .motion_sign import GREY, GROUND, HAIRLINE, INK, PAPER
from .shot_card import BOLD
from .typesetting import ASCENT, cut

if TYPE_CHECKING:
    from .base import Picture

WIDTH_PX = 1600
MARGIN_PX, GAP_PX = 56, 8
BETWEEN_PX = 40  # films
TALLEST_PX = 300  # a picture of an upright film
ENLARGED = 2.0  # times, at most: more shows nothing but pixels
TITLE_PX, NAME_PX, FACT_PX = 34, 20, 17
JPEG_QUALITY = 88
MARK = b"Nightreel contact sheet"  # the JPEG's comment, by which an older sheet is known and may be replaced


@dataclass(frozen=True, slots=True)
class Style:
    """How a sheet is divided."""

    films: int
    """Most on one sheet."""
    columns: int
    """Pictures side by side on the sheet."""
    per_film: int
    """Pictures side by side of one film; a divisor of `columns`."""

    @property
    def picture_px(self) -> int:
        """Width of a picture's place."""
        inner = WIDTH_PX - 2 * MARGIN_PX - (self.columns // self.per_film - 1) * BETWEEN_PX
        return (inner - (self.columns - self.columns // self.per_film) * GAP_PX) // self.columns

    @property
    def film_px(self) -> int:
        return self.per_film * self.picture_px + (self.per_film - 1) * GAP_PX

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Of a picture of width x height on the sheet: as wide as its place, or as high as may be."""
        scale = min(self.picture_px / width, TALLEST_PX / height, ENLARGED)
        return max(1, round(width * scale)), max(1, round(height * scale))


STORYBOARD = Style(films=12, columns=4, per_film=4)
FILMS = Style(films=40, columns=6, per_film=3)
POSTERS = Style(films=40, columns=4, per_film=1)


@dataclass(frozen=True, slots=True)
class Film:
    """What a sheet shows of one film."""

    name: str
    facts: str
    pictures: Sequence[Picture]
    """At least one, all of one shape; any size."""


def sheets(title: str, films: Iterable[Film], count: int, style: Style, fonts: Fonts) -> Iterator[bytes]:
    """The JPEGs of `count` films, in order; films are asked for when their sheet is made."""
    pages = -(-count // style.films)
    coming = iter(films)
    for number in range(1, pages + 1):
        words = f"{count} film{'s' * (count > 1)}" + (f", sheet {number} of {pages}" if pages > 1 else "")
        page = list(islice(coming, style.films))
        yield _encoded(_Sheet(page, style, fonts).drawn(title, words))


def is_sheet(jpeg: bytes) -> bool:
    """Whether these are the bytes of a contact sheet that this module made."""
    return MARK in jpeg[:512]


def first_middle_last(frames: int) -> list[int]:
    """Numbers of the frames that stand for a film."""
    return [0, frames // 2, frames - 1]


def spread(count: int, most: int) -> list[int]:
    """Numbers from 0 to count - 1, at most so many, evenly."""
    shown = min(count, most)
    return [round(index * (count - 1) / max(1, shown - 1)) for index in range(shown)]


class _Sheet:
    """One page: films in rows, each as high as its highest film."""

    def __init__(self, films: Sequence[Film], style: Style, fonts: Fonts) -> None:
        self._style, self._fonts = style, fonts
        across = style.columns // style.per_film
        self._rows = [films[first : first + across] for first in range(0, len(films), across)]
        self._heights = [max(map(self._film_height, row)) for row in self._rows]
        self._head = MARGIN_PX + round(1.9 * TITLE_PX)
        height = self._head + sum(self._heights) + (len(self._rows) - 1) * BETWEEN_PX + MARGIN_PX
        self._image = Image.new("RGB", (WIDTH_PX, height), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def drawn(self, title: str, words: str) -> Image.Image:
        self._write_pair(MARGIN_PX, MARGIN_PX, WIDTH_PX - 2 * MARGIN_PX, (title, TITLE_PX), (words, FACT_PX))
        top = self._head
        for row, height in zip(self._rows, self._heights, strict=True):
            for index, film in enumerate(row):
                self._draw_film(film, MARGIN_PX + index * (self._style.film_px + BETWEEN_PX), top)
            top += height + BETWEEN_PX
        return self._image

    def _draw_film(self, film: Film, left: int, top: int) -> None:
        self._draw.line([(left, top), (left + self._style.film_px - 1, top)], fill=HAIRLINE)
        self._write_pair(left, top + 12, self._style.film_px, (film.name, NAME_PX), (film.facts, FACT_PX))
        width, height = self._size(film)
        for index, picture in enumerate(film.pictures):
            row, column = divmod(index, self._style.per_film)
            x = left + column * (width + GAP_PX)
            y = top + _caption_px() + row * (height + GAP_PX)
            self._image.paste(Image.fromarray(_sized(picture, width, height)), (x, y))

    def _write_pair(self, left: int, top: int, width: int, name: tuple[str, int], words: tuple[str, int]) -> None:
        """A name on the left, cut where it must be, and what is said of it on the right, on one line."""
        facts, title = self._fonts.setting(words[0]), self._fonts.setting(name[0])
        facts_width = facts.width(facts.text, words[1])
        baseline = top + ASCENT * name[1]
        facts.draw(self._draw, left + width - facts_width, baseline, facts.text, words[1], GREY)
        shown = cut(title, title.text, name[1], width - facts_width - name[1])
        title.draw(self._draw, left, baseline, shown, name[1], INK, BOLD)

    def _size(self, film: Film) -> tuple[int, int]:
        height, width = film.pictures[0].shape[:2]
        return self._style.picture_size(width, height)

    def _film_height(self, film: Film) -> int:
        rows = -(-len(film.pictures) // self._style.per_film)
        return _caption_px() + rows * (self._size(film)[1] + GAP_PX) - GAP_PX


def _caption_px() -> int:
    return 12 + round(1.7 * NAME_PX)


def _sized(picture: Picture, width: int, height: int) -> Picture:
    """With a thin edge, for a picture may be as light as the paper."""
    shrinks = picture.shape[1] > width
    sized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    cv2.rectangle(sized, (0, 0), (width - 1, height - 1), HAIRLINE, 1)
    return sized.astype(np.uint8, copy=False)


def _encoded(image: Image.Image) -> bytes:
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True, comment=MARK)
    return jpeg.getvalue()


def blank(width: int, height: int) -> Picture:
    """Stands for a picture that cannot be had."""
    return np.full((height, width, 3), GROUND, np.uint8)
