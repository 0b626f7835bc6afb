"""One shot's card of a storyboard: its number, its prompt in large type, the sign of its motion, and what else is known.

Everything is measured in the type's size, which follows the frame's. Where there is no room, facts are dropped, the
least important first, before type gets smaller than can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageDraw

from nightreel_queue.job import Job, Shot
from nightreel_queue.motions import FeedbackMotion, Motion, Move, WalkMotion

from .fonts import Fonts
from .motion_sign import ACCENT, GREY, INK, PAPER, MotionSign
from .plan import Plan
from .recipe import Recipe
from .typesetting import ASCENT, LEADING, Block, block_height, cut, fit, fit_all, line

if TYPE_CHECKING:
    from .base import Picture

SMALLEST_PX = 9.0  # type below this cannot be read
LARGE_PX = 13.0  # in the smallest frame, for a short prompt
BOLD = 0.028  # ems that strokes are thickened by: Pillow's own font has one weight
BOLD_PX = 14.0  # in smaller type, thick strokes run together
SIGN_PX = 24  # a sign with a shorter side says nothing
LABEL_EMS = 5.0  # width of the facts' names
STYLE_LINES = 2  # that prefix and suffix may take each


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the frame, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


class Layout:
    """Where things lie in a frame of one size: a head line, prompt and sign, a foot line, the film's time line."""

    def __init__(self, width: int, height: int) -> None:
        self.unit = unit = min(width, height)
        self.width, self.height = width, height
        self.small = max(SMALLEST_PX, unit / 32)
        self.head = max(SMALLEST_PX + 1, unit / 22)
        self.weight = BOLD if self.head >= BOLD_PX else 0.0
        self.margin = max(4, round(unit * 0.055))
        self.bar = max(2, round(unit / 120))
        inner = width - 2 * self.margin
        self.head_line = Box(self.margin, self.margin, inner, round(1.3 * self.head))
        self.time_line = Box(self.margin, height - self.margin - self.bar, inner, self.bar)
        foot = round(1.9 * self.small) if unit >= 12 * self.small else 0
        self.foot_line = Box(self.margin, self.time_line.top - foot, inner, foot)
        gap = max(3, round(self.margin * (0.9 if foot else 0.4)))
        top = self.head_line.bottom + gap
        self._share(Box(self.margin, top, inner, self.foot_line.top - gap - top))

    def _share(self, body: Box) -> None:
        """Beside each other in a wide frame, below each other in others."""
        gap, aspect = round(1.2 * self.margin), self.width / self.height
        if aspect >= 1.2:
            side = round(0.34 * body.width)
            self.prompt = Box(body.left, body.top, body.width - side - gap, body.height)
            self.sign = _shaped(Box(body.right - side, body.top, side, round(0.5 * body.height)), aspect)
            top = self.sign.bottom + round(0.8 * gap)
            self.facts = Box(self.sign.left, top, body.right - self.sign.left, body.bottom - top)
        else:
            below = round(0.42 * body.height)
            self.prompt = Box(body.left, body.top, body.width, body.height - below - gap)
            self.sign = _shaped(Box(body.left, body.bottom - below, round(0.45 * body.width), below), aspect)
            left = self.sign.right + gap
            self.facts = Box(left, self.sign.top, body.right - left, self.sign.height)
        self.has_sign = min(self.sign.width, self.sign.height) >= SIGN_PX
        if not self.has_sign:
            self.prompt = body


class ShotCard:
    """The card of one shot: what stands still is drawn once, what moves onto each frame."""

    def __init__(self, job: Job, plan: Plan, index: int, fonts: Fonts, given: Mapping[str, Picture]) -> None:
        """`given` has the pictures, by address, that could be had."""
        self._job, self._plan, self._index, self._fonts = job, plan, index, fonts
        self._shot = job.shots[index]
        self.layout = Layout(plan.width, plan.height)
        box = self.layout.sign
        self.sign = MotionSign(plan.shots[index], plan, (box.left, box.top, box.width, box.height))
        image = Image.new("RGB", (plan.width, plan.height), PAPER)
        self._draw = ImageDraw.Draw(image)
        self._write()
        self._card = np.array(image)
        if self.layout.has_sign:
            self.sign.draw(self._card, given.get(_address(self._shot) or ""))
        self._card.flags.writeable = False

    def frame(self, at: int) -> Picture:
        """A frame of the shot, counted from its first visible one; only to be read."""
        if not (self.layout.has_sign and self.sign.moves):
            return self._card
        card = self._card.copy()
        self.sign.move(card, at)
        return card

    def _write(self) -> None:
        self._write_head()
        self._write_prompt(self.layout.prompt)
        if self.layout.has_sign:
            self._write_facts(self.layout.facts)
        if self.layout.foot_line.height:
            self._write_foot()

    def _write_head(self) -> None:
        """The shot's number, as long as the time code beside it leaves room for."""
        layout, number, count = self.layout, self._index + 1, len(self._plan.shots)
        room = layout.head_line.width - timecode_width(self._fonts, layout) - layout.head
        for text in (f"SHOT {number} / {count}", f"{number}/{count}"):
            setting = self._fonts.setting(text)
            if setting.width(text, layout.head) <= room:
                block = Block(setting, (text,), layout.head)
                block.draw(self._draw, layout.head_line.left, layout.head_line.top, room, INK, layout.weight)
                return

    def _write_prompt(self, box: Box) -> None:
        """The job's style before and after it in small type, as far as they leave the prompt most of the box."""
        if self._shot.image is not None:
            styles, texts = ("Given picture", ""), [_last_part(self._shot.image)]
        else:
            styles, texts = (self._job.style_prefix, self._job.style_suffix), [self._shot.prompt or ""]
        before, after = (self._style(style, box) for style in styles)
        top, bottom = float(box.top), float(box.bottom)
        if before:
            before.draw(self._draw, box.left, top, box.width, GREY)
            top += before.height + 0.8 * self.layout.small
        if after:
            bottom -= after.height + 0.6 * self.layout.small
        if isinstance(self._shot.motion, WalkMotion) and self._shot.motion.walk.to:
            texts.append(self._shot.motion.walk.to)
        end = self._write_texts(Box(box.left, round(top), box.width, int(bottom - top)), texts)
        if after:
            after.draw(self._draw, box.left, end + 0.6 * self.layout.small, box.width, GREY)

    def _style(self, text: str, box: Box) -> Block | None:
        small = self.layout.small
        height = block_height(STYLE_LINES, small)
        if not text.strip() or box.height < 8 * small:
            return None
        return fit(self._fonts.setting(text), box.width, height, small, small)

    def _write_texts(self, box: Box, texts: list[str]) -> float:
        """One prompt, or the two of a walk with an arrow between them; returns where they end."""
        layout = self.layout
        gap = round(2.6 * layout.small)
        largest, smallest = max(LARGE_PX, layout.unit / 9), max(SMALLEST_PX, layout.small * 0.8)
        settings = [self._fonts.setting(text) for text in texts]
        top = float(box.top)
        for index, block in enumerate(fit_all(settings, box.width, box.height, gap, largest, smallest)):
            if index:
                self._write_arrow(box.left, top, gap)
                top += gap
            block.draw(self._draw, box.left, top, box.width, INK)
            top += block.height
        return top

    def _write_arrow(self, left: int, top: float, height: int) -> None:
        """Downwards, from one prompt to the next."""
        width = max(1, round(self.layout.small / 9))
        x, head = left + 0.45 * self.layout.small, 0.4 * self.layout.small
        end = top + 0.82 * height
        self._draw.line([(x, top + 0.3 * height), (x, end - head)], fill=ACCENT, width=width)
        self._draw.polygon([(x - 0.6 * head, end - head), (x + 0.6 * head, end - head), (x, end)], fill=ACCENT)

    def _write_facts(self, box: Box) -> None:
        """A small table, as many rows of it as there is room for, the most important first."""
        small, names = self.layout.small, round(LABEL_EMS * self.layout.small)
        step = 1.5 * small
        top = float(box.top)
        for name, fact in facts(self._job, self._plan, self._index):
            setting = self._fonts.setting(fact)
            indent = names if box.width >= names + min(8 * small, setting.width(setting.text, small)) else 0
            block = fit(setting, box.width - indent, block_height(3, small), small, small)
            height = (len(block.lines) - 1) * LEADING * small + step if block else step
            if block is None or top + height > box.bottom + 0.5 * small:
                return
            if indent:
                label = line(self._fonts.setting(name), names, small)
                assert label is not None
                label.draw(self._draw, box.left, top, names, GREY)
            block.draw(self._draw, box.left + indent, top, box.width - indent, INK)
            top += height

    def _write_foot(self) -> None:
        """Whose shot it is, and in what form."""
        layout, box = self.layout, self.layout.foot_line
        form = f"{self._plan.width} x {self._plan.height}, {self._plan.fps} fps"
        setting = self._fonts.setting(form)
        room = box.width - setting.width(form, layout.small) - 2 * layout.small
        baseline = box.top + ASCENT * layout.small
        name = self._fonts.setting(self._job.id or "")
        if room >= 6 * layout.small:
            setting.draw(self._draw, box.right - setting.width(form, layout.small), baseline, form, layout.small, GREY)
        else:
            room = box.width
        name.draw(self._draw, box.left, baseline, cut(name, name.text, layout.small, room), layout.small, GREY)


def timecode_width(fonts: Fonts, layout: Layout) -> float:
    """Of the widest, in pixels: Pillow's font has digits of one width."""
    return fonts.setting("00:00:00:00").width("00:00:00:00", layout.head) + 2 * layout.weight * layout.head


def facts(job: Job, plan: Plan, index: int) -> list[tuple[str, str]]:
    """What is known of a shot besides its prompt, the most important first: names and words."""
    shot, laid = job.shots[index], plan.shots[index]
    picture = laid.keyframes[0].picture
    rows = [("MOTION", motion_words(shot.motion)), ("LENGTH", f"{shot.duration:g} s")]
    if index + 1 < len(job.shots):
        transition, seconds = job.transition_after(index)
        words = transition.type.replace("_", " ") + (
            f" {transition.direction or 'left'}" * (transition.type == "slide")
        )
        words += f", {seconds:g} s" if seconds else ""
        rows.append(("NEXT", words))
    if shot.init is not None:
        rows.append(("OVER", f"{_last_part(shot.init.image)}, strength {shot.init.strength:g}"))
    if shot.control is not None:
        rows.append(("POSE", f"{_last_part(shot.control.image)}, scale {shot.control.scale:g}"))
    if isinstance(picture, Recipe):
        rows.append(("SEED", str(picture.seed)))
    return rows


def motion_words(motion: Motion) -> str:
    """A motion in a few words."""
    match motion:
        case Move():
            zoom = f"zoom {motion.zoom[0]:g} to {motion.zoom[1]:g}" if motion.zoom else ""
            words = [zoom, _pan(motion.pan or (0, 0)), _turn(motion.rotate or 0), motion.ease.replace("_", "-")]
        case WalkMotion(walk=walk):
            words = ["walk" if walk.to else "walk to another picture", f"{walk.rate:g} pictures a second"]
        case FeedbackMotion(feedback=flight):
            words = [f"feedback, zoom {flight.zoom:g} a second", _pan(flight.pan), _turn(flight.rotate)]
        case _:
            words = ["still"]
    return ", ".join(word for word in words if word)


def _pan(pan: tuple[float, float]) -> str:
    across = f"{'right' if pan[0] > 0 else 'left'} {abs(pan[0]) * 100:g}%" if pan[0] else ""
    down = f"{'down' if pan[1] > 0 else 'up'} {abs(pan[1]) * 100:g}%" if pan[1] else ""
    return " ".join(["pan", *filter(None, (across, down))]) if across or down else ""


def _turn(degrees: float) -> str:
    return f"turn {abs(degrees):g}\u00b0 {'right' if degrees > 0 else 'left'}" if degrees else ""


def _address(shot: Shot) -> str | None:
    return shot.image or (shot.init.image if shot.init else None)


def _last_part(address: str) -> str:
    return unquote(address.split("?")[0].rstrip("/").rsplit("/", 1)[-1])


def _shaped(box: Box, aspect: float) -> Box:
    """The largest part of a box, from its top left corner, that has the frame's shape."""
    width = min(box.width, int(box.height * aspect))
    return Box(box.left, box.top, max(1, width), max(1, round(width / aspect)))
