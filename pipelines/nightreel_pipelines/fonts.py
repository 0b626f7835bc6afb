"""Fonts for what people write: Pillow's own where it has the letters, else those that are installed here.

Pillow's own (Aileron) has ASCII and some signs. No font is shipped: the ones that have every script weigh megabytes.
Letters that no font here has are simplified where that can be read (é to e), else shown as a mark, and remembered.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

FOLDERS = (  # where Linux and macOS keep them
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path.home() / ".local/share/fonts",
    Path.home() / ".fonts",
    Path("/System/Library/Fonts"),
    Path("/Library/Fonts"),
    Path.home() / "Library/Fonts",
)
SUFFIXES = (".ttf", ".otf", ".ttc")
PREFERRED = (
    "DejaVuSans.",
    "NotoSans-Regular",
    "NotoSansCJK-Regular",
    "LiberationSans-Regular",
    "Arial Unicode",
    "PingFang",
)
SPECIAL = ("bold", "italic", "oblique", "mono", "serif", "condensed", "light", "thin", "black", "math", "symbol")
MOST_FONTS = 400  # that are opened in search of a letter: a second or so
MARK = "\ufffd"  # stands for a letter that no font has; a font without it draws its empty box
PROBE_PX = 20
SIMPLER = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u00d7\u00a0", "''\"\"--x ")  # quotes, dashes, times

Colour = tuple[int, int, int]


class Face:
    """One font file, at any size."""

    def __init__(self, path: Path | None) -> None:
        """None is Pillow's own. Raises OSError for a file that is no scalable font."""
        self._path = path
        self._probe = self.at(PROBE_PX)
        self._absent = self._drawn("\uffff")  # no character, so every font draws what it draws for those it lacks
        self._known: dict[str, bool] = {}

    @cache  # noqa: B019 - faces live as long as their Fonts, and sizes are few
    def at(self, size: float) -> ImageFont.FreeTypeFont:
        """The font at a size in pixels."""
        if self._path is not None:
            return ImageFont.truetype(self._path, size)
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
        return font

    def has(self, letter: str) -> bool:
        if letter not in self._known:
            self._known[letter] = self._drawn(letter) != self._absent
        return self._known[letter]

    def _drawn(self, letter: str) -> tuple[float, bytes]:
        return self._probe.getlength(letter), bytes(self._probe.getmask(letter))


@dataclass(frozen=True, slots=True)
class Setting:
    """A text made ready for drawing: blanks evened out, letters exchanged that no font has, and the faces that have it."""

    text: str
    faces: tuple[Face, ...]

    def width(self, text: str, size: float) -> float:
        """Of a part of the text, in pixels."""
        return sum(face.at(size).getlength(run) for face, run in self._runs(text))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        x: float,
        baseline: float,
        text: str,
        size: float,
        fill: Colour,
        weight: float = 0,
    ) -> None:
        """A part of the text from `x` to the right; `weight` thickens its strokes, in ems."""
        for face, run in self._runs(text):
            font = face.at(size)
            draw.text((x, baseline), run, font=font, fill=fill, anchor="ls", stroke_width=weight * size)
            x += font.getlength(run)

    @property
    def leftward(self) -> bool:
        """Whether it is read from right to left: its first letter with a direction says so."""
        directions = (unicodedata.bidirectional(letter) for letter in self.text)
        return next((each in ("R", "AL") for each in directions if each in ("L", "R", "AL")), False)

    def _runs(self, text: str) -> Iterator[tuple[Face, str]]:
        """Parts of one face each. Marks and blanks stay with the letters before them."""
        if len(self.faces) == 1:
            yield self.faces[0], text
            return
        chosen: list[tuple[Face, str]] = []
        for letter in text:
            last = chosen[-1][0] if chosen else self.faces[0]
            stays = letter == " " or (unicodedata.combining(letter) and last.has(letter))
            face = last if stays else next((face for face in self.faces if face.has(letter)), last)
            chosen.append((face, letter))
        for face, letters in groupby(chosen, key=lambda pair: pair[0]):
            yield face, "".join(letter for _, letter in letters)


class Fonts:
    """The fonts of this machine."""

    def __init__(self, folders: Iterable[Path] = FOLDERS) -> None:
        self.missing: set[str] = set()
        """Letters that were asked for and that no font here has."""
        self._faces = [Face(None)]
        self._others = _faces_in(folders)
        self._settings: dict[str, Setting] = {}

    def setting(self, text: str) -> Setting:
        """Make a text ready: in one face when one has all of it, else each letter in the first face that has it."""
        if text not in self._settings:
            self._settings[text] = self._set(_even(text))
        return self._settings[text]

    def _set(self, text: str) -> Setting:
        letters = set(text) - {" "}
        if lacking := letters - self._find(letters):
            drawn = {letter for letter in lacking if _is_seen(letter)}
            self.missing |= drawn
            swap = {letter: self._instead(letter) if letter in drawn else "" for letter in lacking}
            text = _even("".join(swap.get(letter, letter) for letter in text))
            letters = set(text) - {" ", MARK}
        whole = next((face for face in self._faces if all(map(face.has, letters))), None)
        return Setting(text, (whole,) if whole else tuple(self._faces))

    def _find(self, letters: set[str]) -> set[str]:
        """Those of the letters that some face has; looks for more faces until all are found."""
        found = {letter for letter in letters if any(face.has(letter) for face in self._faces)}
        while found != letters and (face := next(self._others, None)):
            self._faces.append(face)
            found |= {letter for letter in letters if face.has(letter)}
        return found

    def _instead(self, letter: str) -> str:
        plain = unicodedata.normalize("NFKD", letter.translate(SIMPLER))
        base = "".join(each for each in plain if not unicodedata.combining(each))
        return base if base and base.isascii() and base.isprintable() else MARK


def _faces_in(folders: Iterable[Path]) -> Iterator[Face]:
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    for path in sorted(files, key=_rank)[:MOST_FONTS]:
        try:
            yield Face(path)
        except (OSError, ValueError):  # a font of pictures, or no font at all
            continue


def _rank(path: Path) -> tuple[int, int, str]:
    """Plain sans-serif fonts of many letters first."""
    first = next((at for at, name in enumerate(PREFERRED) if path.name.startswith(name)), len(PREFERRED))
    return first, sum(word in path.name.lower() for word in SPECIAL), str(path)


def _even(text: str) -> str:
    """One blank between words; control characters and line ends count as blanks."""
    return " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text).split())


def _is_seen(letter: str) -> bool:
    """Not a joiner, a variation selector or a direction: those change letters around them, and may be left out."""
    return unicodedata.category(letter) not in ("Cf", "Mn")


def named(letters: Iterable[str], most: int = 8) -> str:
    """Letters for a message: themselves and their numbers, for a terminal may lack them too."""
    known: Sequence[str] = sorted(letters)
    shown = ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in known[:most])
    return shown + (f" and {len(known) - most} more" if len(known) > most else "")
