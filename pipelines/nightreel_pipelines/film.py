"""Keyframes, motion and transitions -> the film's frames, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING

from .camera import Camera, Pyramid
from .plan import Plan, ShotPlan
from .transitions import crossfade, weight

if TYPE_CHECKING:
    from .base import Picture


def frames(plan: Plan, picture: Callable[[int], Picture]) -> Iterator[Picture]:
    """Stream exactly `plan.frames` frames: uint8 (height, width, 3), RGB, contiguous, only to be read.

    `picture(i)` gives the keyframe of shot i and may block until it is made. It is called once for each shot, when
    the first frame that shows it is wanted. A shot's pictures are dropped with its last frame, so memory does not
    grow with the film.
    """
    shown: Iterator[Picture] = iter(())
    for index, shot in enumerate(plan.shots):
        coming = _shot(shot, plan, index, picture)
        for at in range(shot.blend):
            yield crossfade(next(shown), next(coming), weight(at, shot.blend))
        shown = coming  # from here on nothing holds the shot before
        shared = plan.shots[index + 1].blend if index + 1 < len(plan.shots) else 0
        for _ in range(shot.frames - shot.blend - shared):
            yield next(shown)


def _shot(shot: ShotPlan, plan: Plan, index: int, picture: Callable[[int], Picture]) -> Iterator[Picture]:
    """The visible frames of one shot, handles included; its keyframe is asked for with the first."""
    camera = Camera(shot.motion, plan.width, plan.height, shot.frames)
    pyramid = Pyramid(picture(index), camera)
    if camera.still:
        frame = pyramid.frame(0)
        frame.flags.writeable = False  # one array stands for every frame
        del pyramid
        yield from repeat(frame, shot.frames)
    else:
        for at in range(shot.frames):
            yield pyramid.frame(at)
