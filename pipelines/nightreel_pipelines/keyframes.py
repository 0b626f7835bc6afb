"""Which pictures each shot needs, and when: recipes and their frames. No torch here."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from nightreel_queue.job import Job, Shot
from nightreel_queue.motions import Feedback, FeedbackMotion, Walk, WalkMotion

from .base import Description
from .clips import clip_seconds, clip_size
from .easing import ease
from .models import ModelSpec
from .recipe import Control, Recipe, Start, Toward, Warp


@dataclass(frozen=True, slots=True)
class Given:
    """A picture that is there already."""

    address: str
    """As the job says it."""
    fingerprint: str
    """sha256 (hex) of the file."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A keyframe and its time."""

    picture: Recipe | Given
    frame: int
    """That shows it alone, counted from the shot's first visible one; a shot's last keyframe may lie beyond its end."""


class Keyframes:
    """Finds the keyframes of a job's shots, which must be asked for in order."""

    def __init__(self, job: Job, spec: ModelSpec, description: Description, inputs: Mapping[str, str]) -> None:
        """`inputs` has the sha256 (hex) of the content of each of `job.inputs`."""
        self._job, self._spec, self._description, self._inputs = job, spec, description, inputs
        megapixels = job.render.megapixels or spec.megapixels
        self._size = (
            clip_size(*job.output.size, megapixels)
            if spec.clips
            else keyframe_size(*job.output.size, megapixels, spec.multiple)
        )
        self._seen: Counter[str] = Counter()

    def of(self, shot: Shot, frames: int, field: str) -> tuple[Placed, ...]:
        """The keyframes of a shot that is visible for `frames`, in order; the first is that of its first frame.

        A model that makes clips has one for the whole shot. Raises Unrenderable, for the shot that `field` names.
        """
        if shot.image is not None:
            return (Placed(Given(shot.image, self._inputs[shot.image]), 0),)
        first = self._first(shot)
        if self._spec.clips:
            seconds = clip_seconds(self._spec, Fraction(frames, self._job.output.fps), field)
            return (Placed(replace(first, clip_s=seconds), 0),)
        match shot.motion:
            case WalkMotion(walk=walk):
                return self._walk(shot, walk, first, frames)
            case FeedbackMotion(feedback=feedback):
                return self._feedback(feedback, first, frames)
            case _:
                return (Placed(first, 0),)

    def _first(self, shot: Shot) -> Recipe:
        assert shot.prompt is not None
        width, height = self._size
        init = shot.init
        return Recipe(
            source=self._description.source,
            revision=self._description.revision,
            precision=self._description.precision,
            prompt=self._styled(shot.prompt),
            seed=self._seed(shot.prompt) if shot.seed is None else shot.seed,
            steps=self._job.render.steps or self._spec.steps,
            guidance=self._spec.guidance,
            width=width,
            height=height,
            start=Start(self._inputs[init.image], init.strength) if init else None,
            control=self._control(shot),
            max_sequence_length=self._spec.max_sequence_length,
        )

    def _control(self, shot: Shot) -> Control | None:
        said = shot.control
        if said is None:
            return None
        revision = self._description.controls.get(said.type, "")
        return Control(said.type, self._inputs[said.image], said.scale, said.start, said.end, revision)

    def _walk(self, shot: Shot, walk: Walk, first: Recipe, frames: int) -> tuple[Placed, ...]:
        """Evenly over the shot, from its first frame to its last, which are the two ends themselves."""
        assert shot.prompt is not None
        seed = self._seed(f"{shot.prompt}\0{walk.to or ''}") if walk.seed is None else walk.seed
        last = replace(first, prompt=self._styled(walk.to or shot.prompt), seed=seed)
        length_s = Fraction(frames - 1, self._job.output.fps)
        count = math.ceil(length_s * Fraction(str(walk.rate)))
        at = [_rounded(Fraction((frames - 1) * index, count)) for index in range(count)]
        between = [
            replace(first, toward=Toward(last.prompt, seed, ease(walk.ease, frame / (frames - 1)))) for frame in at[1:]
        ]
        return tuple(map(Placed, [first, *between, last], [*at, frames - 1])) if count else (Placed(first, 0),)

    def _feedback(self, feedback: Feedback, first: Recipe, frames: int) -> tuple[Placed, ...]:
        """At fixed times from the shot's first frame, so that a longer shot only adds keyframes."""
        rate, fps = Fraction(str(feedback.rate)), self._job.output.fps
        placed = [Placed(first, 0)]
        while placed[-1].frame < frames - 1:
            before, index = placed[-1], len(placed)
            frame = _rounded(index * fps / rate)
            warp = self._warp(feedback, (frame - before.frame) / fps)
            start = Start(before.picture.fingerprint, feedback.strength, warp, colors=first.fingerprint)
            seed = _hashed(f"{first.seed}\0feedback\0{index}")
            placed.append(Placed(replace(first, seed=seed, start=start), frame))
        return tuple(placed)

    def _warp(self, feedback: Feedback, seconds: float) -> Warp:
        """The film shows the middle of the keyframe, cut to its own shape: a pan in frames is less in keyframes."""
        shown = shown_part(*self._size, *self._job.output.size)
        pan = (feedback.pan[0] * shown[0], feedback.pan[1] * shown[1])
        return Warp(feedback.zoom, pan, feedback.rotate, seconds)

    def _styled(self, prompt: str) -> str:
        parts = (self._job.style_prefix.strip(), prompt.strip(), self._job.style_suffix.strip())
        return " ".join(part for part in parts if part)

    def _seed(self, words: str) -> int:
        """From the job's seed, the prompt and how often it came before: a shot put in between re-renders nothing else."""
        occurrence = self._seen[words]
        self._seen[words] += 1
        return self._job.seed if self._job.seed_mode == "fixed" else _hashed(f"{self._job.seed}\0{words}\0{occurrence}")


def is_clip(picture: Recipe | Given) -> bool:
    return isinstance(picture, Recipe) and picture.clip_s is not None


def keyframe_size(width: int, height: int, megapixels: float, multiple: int) -> tuple[int, int]:
    """Sides of a picture of about `megapixels` with the shape of width x height, in multiples of `multiple` pixels."""
    ideal_height = math.sqrt(megapixels * 1e6 * height / width)
    sides = (ideal_height * width / height, ideal_height)
    wide, high = (max(multiple, multiple * round(side / multiple)) for side in sides)
    return wide, high


def shown_part(width: int, height: int, frame_width: int, frame_height: int) -> tuple[float, float]:
    """How much of a picture's width and height is left, at most 1, when its middle is cut to the shape of a frame."""
    scale = max(frame_width / width, frame_height / height)
    return frame_width / scale / width, frame_height / scale / height


def _rounded(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _hashed(words: str) -> int:
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big")
