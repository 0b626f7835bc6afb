"""The drawn sign of a shot's motion: the frame's way over the picture, computed by the camera that will film it.

The grey frame is the picture; the dark ones are what the first and the last frame of the shot show of it, arrows lead
from one to the other, and the coloured one moves along in time as the camera will. A walk is two pictures and a
way between them, feedback a tunnel of frames, each as far on as the flight is at that time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from nightreel_queue.motions import Feedback, FeedbackMotion, Move, Walk, WalkMotion

from .camera import Camera, fit
from .drift import similarity
from .easing import ease
from .plan import Plan, ShotPlan
from .recipe import Warp

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

PAPER, INK, GREY, HAIRLINE = (250, 248, 244), (28, 27, 25), (112, 106, 98), (205, 199, 189)
ACCENT = (214, 64, 32)
GROUND = (236, 232, 224)
FADED = 0.45  # of paper over a given picture, so that lines are seen on it
TRAVELS = 0.03  # of the frame: a middle that moves less counts as staying, sides that change less as keeping their size
TUNNEL_FRAMES = 6  # of a feedback shot that are drawn between its first and its last
ARROW = 7.0  # line widths that an arrow's head is long
FINE = 4  # bits of a pixel's fraction that OpenCV draws to
UNIT = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)


class MotionSign:
    """The sign of one shot in a box of its card. Places in pixels of the card."""

    def __init__(self, shot: ShotPlan, plan: Plan, box: tuple[int, int, int, int]) -> None:
        """`box` is left, top, width, height, in the frame's shape."""
        self._shot, self._box = shot, box
        self._line = max(1.0, min(box[2:]) / 130)
        shown = _shown(shot, plan)
        low, high = np.minimum(shown.min((0, 1)), 0.0), np.maximum(shown.max((0, 1)), 1.0)
        place, size = np.array(box[:2], dtype=float), np.array(box[2:], dtype=float)
        scale = size / float((high - low).max())  # the box's size, unless a flight leads out of the picture
        corner = place + (size - (high - low) * scale) / 2 - low * scale
        self.frames: Floats = shown * scale + corner
        """(frames, 4, 2): where the moving frame's corners are drawn."""
        self._ground: Floats = self.frames[0] if isinstance(shot.motion, WalkMotion) else UNIT * scale + corner

    def draw(self, card: Picture, given: Picture | None) -> None:
        """What stands still, onto the card; on the ground lies the picture that is given, if one is."""
        self._fill(card, given)
        match self._shot.motion:
            case WalkMotion():
                self._draw_walk(card)
            case FeedbackMotion():
                for at in np.linspace(0, len(self.frames) - 1, TUNNEL_FRAMES + 2).round().astype(int):
                    _outline(card, self.frames[at], INK if at in (0, len(self.frames) - 1) else GREY, self._line)
                self._draw_paths(card)
            case Move():
                _outline(card, self.frames[0], INK, self._line)
                _outline(card, self.frames[-1], INK, self._line)
                self._draw_paths(card)
            case _:
                _outline(card, self.frames[0], INK, self._line)

    def move(self, card: Picture, frame: int) -> None:
        """What moves, onto the card, at a frame counted from the shot's first visible one."""
        if self.moves:
            _outline(card, self.frames[frame], ACCENT, 1.7 * self._line)
            if isinstance(self._shot.motion, WalkMotion):
                self._draw_progress(card, frame)

    @property
    def moves(self) -> bool:
        return self._shot.motion != "still"

    def _fill(self, card: Picture, given: Picture | None) -> None:
        """The picture, as an even ground or as what it shows."""
        left, top = np.floor(self._ground[0]).astype(int)
        right, bottom = np.ceil(self._ground[2]).astype(int)
        place = card[top:bottom, left:right]
        place[:] = GROUND
        if given is not None:
            small = fit(given, right - left, bottom - top)
            place[:] = cv2.addWeighted(small, 1 - FADED, np.full_like(small, PAPER), FADED, 0)
        _outline(card, self._ground, HAIRLINE, self._line)

    def _draw_paths(self, card: Picture) -> None:
        """An arrow along the way of the middle for a frame that keeps its size, else one for each corner."""
        diagonals = np.hypot(*(self.frames[:, 2] - self.frames[:, 0]).T)
        middles = self.frames.mean(1)
        grows = max(diagonals[0], diagonals[-1]) > (1 + TRAVELS) * min(diagonals[0], diagonals[-1])
        travels = np.abs(middles[-1] - middles[0]).max() > TRAVELS * min(self._box[2:])
        if travels and not grows:
            self._arrow(card, middles, 1.7 * self._line)
        else:
            for corner in range(4):
                self._arrow(card, self.frames[:, corner], self._line)

    def _draw_walk(self, card: Picture) -> None:
        first, last = self.frames[0], self.frames[-1]
        _fill(card, last, GROUND)
        for frame in (first, last):
            _outline(card, frame, INK, self._line)
        along = np.linspace(0.2, 0.8, 2)[:, None]
        self._arrow(card, first.mean(0) * (1 - along) + last.mean(0) * along, self._line)
        self._draw_progress(card, -1)

    def _draw_progress(self, card: Picture, frame: int) -> None:
        """The walk's way, below its pictures: as far as it is at a frame; -1 for none of it."""
        left, top, width, height = self._box
        begin, end = np.array((left, top + height - self._line)), np.array((left + width, top + height - self._line))
        motion = self._shot.motion
        assert isinstance(motion, WalkMotion)
        _path(card, np.array((begin, end)), HAIRLINE, 3 * self._line)
        if frame >= 0:
            at = _walked(motion.walk, self._shot.frames)[frame]
            _path(card, np.array((begin, begin + at * (end - begin))), ACCENT, 3 * self._line)

    def _arrow(self, card: Picture, path: Floats, width: float) -> None:
        """A line along places, with a head where it ends; a way too short for a head is left out."""
        away = np.hypot(*(path - path[-1]).T)
        if away[0] < 3 * width:
            return
        head = min(ARROW * width, 0.6 * float(away[0]))
        body = path[away >= head]
        direction = (path[-1] - body[-1]) / np.hypot(*(path[-1] - body[-1]))
        base = path[-1] - direction * head
        across = np.array((-direction[1], direction[0])) * head * 0.45
        _path(card, np.concatenate([body, base[None]]), INK, width)
        _fill(card, np.array((path[-1], base + across, base - across)), INK)


def _shown(shot: ShotPlan, plan: Plan) -> Floats:
    """(frames, 4, 2): the corners of what each frame shows, in sizes of the picture that exactly fills a frame."""
    match shot.motion:
        case FeedbackMotion(feedback=feedback):
            return _flown(feedback, shot.frames, plan)
        case WalkMotion(walk=walk):
            along = _walked(walk, shot.frames)[:, None, None]
            first, last = 0.44 * UNIT + (0.0, 0.1), 0.44 * UNIT + (0.56, 0.36)
            return np.asarray(first * (1 - along) + last * along)
        case _:
            return Camera(shot.motion, plan.width, plan.height, shot.frames).corners


def _walked(walk: Walk, frames: int) -> Floats:
    """(frames,): how much of the way lies behind each."""
    walked: Floats = ease(walk.ease, np.linspace(0.0, 1.0, frames))
    return walked


def _flown(feedback: Feedback, frames: int, plan: Plan) -> Floats:
    """Where the frame's corners lie in the shot's first picture: the way back along the camera's drift."""
    warp = Warp(feedback.zoom, feedback.pan, feedback.rotate, 1.0)
    size = np.array((plan.width, plan.height), dtype=float)
    matrices = np.array([similarity(warp, -frame / plan.fps, plan.width, plan.height) for frame in range(frames)])
    places: Floats = (np.einsum("fij,cj->fci", matrices[:, :, :2], UNIT * size) + matrices[:, None, :, 2]) / size
    return places


def _path(card: Picture, places: Floats, colour: Colour, width: float) -> None:
    cv2.polylines(card, [_fixed(places)], False, colour, max(1, round(width)), cv2.LINE_AA, FINE)


def _outline(card: Picture, corners: Floats, colour: Colour, width: float) -> None:
    cv2.polylines(card, [_fixed(corners)], True, colour, max(1, round(width)), cv2.LINE_AA, FINE)


def _fill(card: Picture, corners: Floats, colour: Colour) -> None:
    cv2.fillConvexPoly(card, _fixed(corners), colour, cv2.LINE_AA, FINE)


def _fixed(places: Floats) -> npt.NDArray[np.int32]:
    """In OpenCV's fractions, counted from the middle of the first pixel."""
    return np.rint((places - 0.5) * (1 << FINE)).astype(np.int32)
