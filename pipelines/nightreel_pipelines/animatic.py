"""A film's storyboard as a film: a card for each shot, with the film's exact timing. Needs no model.

Shots are joined by the functions that join real ones, so a transition looks as it will. The time code and the film's
time line are drawn last, over all that moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw

from nightreel_queue.job import Job

from .encode import Encoder, check
from .film import joined
from .fonts import Fonts
from .motion_sign import ACCENT, HAIRLINE, INK, PAPER
from .plan import Plan, ShotPlan
from .shot_card import Layout, ShotCard, timecode_width
from .typesetting import ASCENT

if TYPE_CHECKING:
    from .base import Picture

PRESET = "veryfast"  # drawn frames: no larger than with x264's fast, in two thirds of the time
KEPT_PX = 640  # longest side of a frame that is kept for a contact sheet


@dataclass(frozen=True, slots=True)
class Animatic:
    """One job's storyboard, ready to be drawn."""

    job: Job
    plan: Plan
    fonts: Fonts
    given: Mapping[str, Picture]
    """The pictures, by address, that could be had; others are shown by their names."""

    def frames(self) -> Iterator[Picture]:
        """Stream exactly `plan.frames` frames: uint8 (height, width, 3), RGB, contiguous."""
        clock = Clock(self.plan, self.fonts)
        for at, frame in enumerate(joined(self.plan, self._shot)):
            shown = frame if frame.flags.owndata and frame.flags.writeable else frame.copy()
            clock.draw(shown, at)
            yield shown

    def film(self, video: Path) -> None:
        """Write the MP4 and check it. Raises FilmFailed."""
        plan = self.plan
        with Encoder(video, width=plan.width, height=plan.height, fps=plan.fps, crf=plan.crf, preset=PRESET) as encoder:
            for frame in self.frames():
                encoder.write(frame)
        poster = video.with_name(video.name + ".jpg")
        check(video, width=plan.width, height=plan.height, fps=plan.fps, frames=plan.frames, poster=poster)
        poster.unlink()

    def still(self, index: int) -> Picture:
        """One shot's card at its middle, in small: for a contact sheet."""
        at = middles(self.plan)[index]
        frame = self._card(index).frame(at - self.plan.shots[index].start).copy()
        Clock(self.plan, self.fonts).draw(frame, at)
        return reduced(frame)

    def _shot(self, shot: ShotPlan) -> Iterator[Picture]:
        card = self._card(self.plan.shots.index(shot))
        for at in range(shot.frames):
            yield card.frame(at)

    def _card(self, index: int) -> ShotCard:
        return ShotCard(self.job, self.plan, index, self.fonts, self.given)


class Clock:
    """The time code in the upper right corner, and the film's time line, a part for each shot, at the lower edge."""

    def __init__(self, plan: Plan, fonts: Fonts) -> None:
        self._plan, self._layout = plan, Layout(plan.width, plan.height)
        self._setting = fonts.setting("0123456789:")
        self._width = ceil(timecode_width(fonts, self._layout))
        self._cuts = cuts(plan)

    def draw(self, frame: Picture, at: int) -> None:
        """Onto frame `at` of the film."""
        box, size, weight = self._layout.head_line, self._layout.head, self._layout.weight
        plate = Image.new("RGB", (self._width, box.height), PAPER)
        self._setting.draw(
            ImageDraw.Draw(plate), weight * size, ASCENT * size, timecode(at, self._plan.fps), size, INK, weight
        )
        left = max(0, box.right - self._width)
        frame[box.top : box.bottom, left : box.right] = np.array(plate)[:, : box.right - left]
        self._draw_time_line(frame, at)

    def _draw_time_line(self, frame: Picture, at: int) -> None:
        box = self._layout.time_line
        frame[box.top : box.bottom, box.left : box.right] = PAPER
        gap = box.height if box.width / len(self._plan.shots) > 4 * box.height else 0
        for begin, end in pairwise(self._cuts):
            left, right = (box.left + round(box.width * cut / self._plan.frames) for cut in (begin, end))
            right -= gap if end < self._plan.frames else 0
            now = box.left + round(box.width * (at + 1) / self._plan.frames)
            colour = ACCENT if begin <= at < end else INK
            cv2.rectangle(frame, (left, box.top), (right - 1, box.bottom - 1), HAIRLINE, cv2.FILLED)
            if now > left:
                cv2.rectangle(frame, (left, box.top), (min(now, right) - 1, box.bottom - 1), colour, cv2.FILLED)


def timecode(frame: int, fps: int) -> str:
    """HH:MM:SS:FF, frames counted from 0 in each second."""
    seconds, rest = divmod(frame, fps)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{rest:02}"


def cuts(plan: Plan) -> list[int]:
    """The frame at which each shot begins, transitions halved, and the film's length."""
    return [*(shot.start + ceil(shot.blend / 2) for shot in plan.shots), plan.frames]


def middles(plan: Plan) -> list[int]:
    """A frame for each shot that shows it alone, as near to its middle as can be."""
    return [(begin + end) // 2 for begin, end in pairwise(cuts(plan))]


def reduced(frame: Picture) -> Picture:
    """A copy small enough to be kept."""
    factor = min(1.0, KEPT_PX / max(frame.shape[:2]))
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
