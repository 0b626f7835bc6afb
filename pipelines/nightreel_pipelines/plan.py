"""Job -> what must be made: keyframes, and the frames that each shot is on screen. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from nightreel_queue.audio import Audio
from nightreel_queue.job import Job
from nightreel_queue.motions import Motion, kind_of
from nightreel_queue.transitions import Transition

from .base import Description
from .keyframes import Given, Keyframes, Placed, is_clip
from .models import ModelSpec
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class ShotPlan:
    """One shot on the film's frame grid. It is visible from `start` to `stop`, handles included."""

    keyframes: tuple[Placed, ...]
    """At least one; the first is that of the shot's first visible frame."""
    motion: Motion
    start: int
    """First frame of the film that shows this shot."""
    stop: int
    """One past the last frame that shows it."""
    blend: int
    """Frames at its start that are shared with the shot before it; 0 after a cut."""
    transition: Transition
    """How they are shared; a cut for the first shot."""

    @property
    def frames(self) -> int:
        return self.stop - self.start

    @property
    def kind(self) -> str:
        return "clip" if is_clip(self.keyframes[0].picture) else kind_of(self.motion)

    @property
    def due(self) -> tuple[int, ...]:
        """For each keyframe the first frame of the film that needs it: the one after the keyframe before."""
        return (self.start, *(self.start + placed.frame + 1 for placed in self.keyframes[:-1]))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a film that is known before the first pixel."""

    width: int
    height: int
    fps: int
    crf: int
    frames: int
    shots: tuple[ShotPlan, ...]
    given: Mapping[Given, str]
    """The pictures that are there already, each with the first field that names it."""
    audio: Audio | None

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The keyframes to make, each once, in the order in which the film needs them."""
        due = [
            (frame, placed.picture)
            for shot in self.shots
            for frame, placed in zip(shot.due, shot.keyframes, strict=True)
            if isinstance(placed.picture, Recipe)
        ]
        return tuple(dict.fromkeys(recipe for _, recipe in sorted(due, key=lambda pair: pair[0])))

    @property
    def keyframe_size(self) -> str:
        """Of the keyframes to make, such as 1360x768; empty when there are none. A film's are all of one size."""
        return next((f"{recipe.width}x{recipe.height}" for recipe in self.recipes), "")

    @property
    def motions(self) -> tuple[str, ...]:
        """The kinds of motion that its shots have; clip for one that is a clip."""
        return tuple(sorted({shot.kind for shot in self.shots}))

    @property
    def evaluations(self) -> int:
        """How often the model must be run, nothing being there yet: what the film's pictures cost."""
        return sum(recipe.evaluations for recipe in self.recipes)


def plan(job: Job, spec: ModelSpec, description: Description, inputs: Mapping[str, str]) -> Plan:
    """Lay a job out for one model: pure arithmetic, the same on every machine.

    `inputs` has the sha256 (hex) of the content of each of `job.inputs`. Raises Unrenderable for a shot that is longer than
    any clip of a model that makes clips.
    """
    cuts = _cuts(job)
    blends = [_blend_frames(job, index, cuts) for index in range(len(job.shots) - 1)]
    keyframes = Keyframes(job, spec, description, inputs)
    shots = []
    for index, shot in enumerate(job.shots):
        blend = blends[index - 1] if index else 0
        transition = job.transition_after(index - 1)[0] if index else Transition(type="cut")
        start = cuts[index] - math.ceil(blend / 2)
        stop = cuts[index + 1] + (blends[index] // 2 if index < len(blends) else 0)
        placed = keyframes.of(shot, stop - start, f"shots[{index}]")
        motion = "still" if is_clip(placed[0].picture) else shot.motion  # a clip moves by itself
        shots.append(ShotPlan(placed, motion, start, stop, blend, transition))
    given = {Given(address, inputs[address]): field for address, field in job.pictures.items()}
    width, height = job.output.size
    return Plan(width, height, job.output.fps, job.output.crf, cuts[-1], tuple(shots), given, job.audio)


def _cuts(job: Job) -> list[int]:
    """The frame at which each shot begins, and the film's length. Times are summed exactly, so rounding never drifts."""
    cuts, at_s = [0], Fraction(0)
    for shot in job.shots:
        at_s += Fraction(str(shot.duration))
        cuts.append(math.floor(at_s * job.output.fps + Fraction(1, 2)))
    return cuts


def _blend_frames(job: Job, index: int, cuts: list[int]) -> int:
    """Frames of the transition after shot `index`: half of them before the cut, half after, never more than a shot has."""
    _, seconds = job.transition_after(index)
    room = min(cuts[index + 1] - cuts[index], cuts[index + 2] - cuts[index + 1])
    return min(room, math.floor(Fraction(str(seconds)) * job.output.fps + Fraction(1, 2)))
