"""Keyframes or clips, motion and transitions -> the film's frames, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nightreel_queue.motions import FeedbackMotion, Motion, WalkMotion

from .camera import Camera, Pyramid, fit
from .carry import Carry
from .decode import decoded
from .inbetween import Flow
from .keyframes import Placed
from .plan import Plan, ShotPlan
from .recipe import Warp
from .transitions import shared

if TYPE_CHECKING:
    from .base import Picture, Pictures


class Between(Protocol):
    """Two neighbouring keyframes, made ready for the frames between them."""

    def frame(self, at: float) -> Picture:
        """The frame at a place between the two: 0 is the first, 1 the second."""
        ...


Files = Callable[[str], Path]
"""The file of a clip, by its fingerprint, as soon as there is one."""


def no_files(fingerprint: str) -> Path:
    """For films without clips. Raises LookupError."""
    raise LookupError(f"no clip {fingerprint}")


def frames(plan: Plan, pictures: Pictures, clips: Files = no_files) -> Iterator[Picture]:
    """Stream exactly `plan.frames` frames: uint8 (height, width, 3), RGB, contiguous, only to be read.

    `pictures` gives keyframes by their fingerprints and may block until they are made. Each is asked for once for each
    time that a shot has it, when the first frame that shows it is wanted. At most two of a shot are held, and dropped
    with the last frame that shows them, so memory does not grow with the film. A clip is decoded as it is shown.
    """

    def filmed(shot: ShotPlan) -> Iterator[Picture]:
        if shot.kind == "clip":
            return _clip(shot, plan, clips)
        return _shot(shot, plan, pictures)

    return joined(plan, filmed)


def joined(plan: Plan, filmed: Callable[[ShotPlan], Iterator[Picture]]) -> Iterator[Picture]:
    """The film of shots that `filmed` makes, each of its `frames`, with the plan's transitions between them."""
    shown: Iterator[Picture] = iter(())
    for index, shot in enumerate(plan.shots):
        coming = filmed(shot)
        for at in range(shot.blend):
            yield shared(shot.transition, next(shown), next(coming), at, shot.blend)
        shown = coming  # from here on nothing holds the shot before
        leaving = plan.shots[index + 1].blend if index + 1 < len(plan.shots) else 0
        for _ in range(shot.frames - shot.blend - leaving):
            yield next(shown)


def _shot(shot: ShotPlan, plan: Plan, pictures: Pictures) -> Iterator[Picture]:
    """The visible frames of one shot, handles included; its first keyframe is asked for with the first."""
    if isinstance(shot.motion, WalkMotion | FeedbackMotion):
        return _many(shot, plan, pictures)
    return _one(shot, plan, pictures)


def _clip(shot: ShotPlan, plan: Plan, clips: Files) -> Iterator[Picture]:
    """A clip from its first frame on, as many frames as the shot has."""
    file = clips(shot.keyframes[0].picture.fingerprint)
    yield from decoded(file, width=plan.width, height=plan.height, fps=plan.fps, count=shot.frames)


def _one(shot: ShotPlan, plan: Plan, pictures: Pictures) -> Iterator[Picture]:
    """A camera over one picture."""
    camera = Camera(shot.motion, plan.width, plan.height, shot.frames)
    pyramid = Pyramid(pictures(shot.keyframes[0].picture.fingerprint), camera)
    if camera.still:
        frame = pyramid.frame(0)
        frame.flags.writeable = False  # one array stands for every frame
        del pyramid
        yield from repeat(frame, shot.frames)
    else:
        for at in range(shot.frames):
            yield pyramid.frame(at)


def _many(shot: ShotPlan, plan: Plan, pictures: Pictures) -> Iterator[Picture]:
    """Each keyframe on its own frame, and what lies between them."""

    def fitted(placed: Placed) -> Picture:
        return fit(pictures(placed.picture.fingerprint), plan.width, plan.height)

    behind = fitted(shot.keyframes[0])
    yield behind
    for before, after in pairwise(shot.keyframes):
        between = _between(shot.motion, behind, ahead := fitted(after), (after.frame - before.frame) / plan.fps)
        for frame in range(before.frame + 1, min(after.frame, shot.frames)):
            yield between.frame((frame - before.frame) / (after.frame - before.frame))
        if after.frame < shot.frames:
            yield ahead
        behind = ahead


def _between(motion: Motion, behind: Picture, ahead: Picture, seconds: float) -> Between:
    if isinstance(motion, FeedbackMotion):
        feedback = motion.feedback
        return Carry(behind, ahead, Warp(feedback.zoom, feedback.pan, feedback.rotate, seconds))
    return Flow(behind, ahead)
