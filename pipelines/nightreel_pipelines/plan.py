"""Job -> what must be made: keyframes, and the frames that each shot is on screen. No torch here."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from nightreel_queue.job import Job, Motion

from .base import Description
from .models import ModelSpec
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Given:
    """A picture that is there already."""

    address: str
    """As the job says it."""
    fingerprint: str
    """sha256 (hex) of the file."""


@dataclass(frozen=True, slots=True)
class ShotPlan:
    """One shot on the film's frame grid. It is visible from `start` to `stop`, handles included."""

    keyframe: Recipe | Given
    motion: Motion
    start: int
    """First frame of the film that shows this shot."""
    stop: int
    """One past the last frame that shows it."""
    blend: int
    """Frames at its start that are shared with the shot before it; 0 after a cut."""

    @property
    def frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a film that is known before the first pixel."""

    width: int
    height: int
    fps: int
    crf: int
    frames: int
    shots: tuple[ShotPlan, ...]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The keyframes to make, each once, in the order in which the film needs them."""
        return tuple(dict.fromkeys(shot.keyframe for shot in self.shots if isinstance(shot.keyframe, Recipe)))

    @property
    def given(self) -> Mapping[Given, int]:
        """The pictures that are there already, each with the first shot that shows it."""
        shots = reversed(list(enumerate(self.shots)))
        return {shot.keyframe: index for index, shot in shots if isinstance(shot.keyframe, Given)}


def plan(job: Job, spec: ModelSpec, description: Description, inputs: Mapping[str, str]) -> Plan:
    """Lay a job out for one model: pure arithmetic, the same on every machine.

    `inputs` has the sha256 (hex) of the content of each of `job.inputs`.
    """
    width, height = job.output.size
    cuts = _cuts(job)
    blends = [_blend_frames(job, index, cuts) for index in range(len(job.shots) - 1)]
    shots = tuple(
        ShotPlan(
            keyframe=keyframe,
            motion=job.shots[index].motion,
            start=cuts[index] - (math.ceil(blends[index - 1] / 2) if index else 0),
            stop=cuts[index + 1] + (blends[index] // 2 if index < len(blends) else 0),
            blend=blends[index - 1] if index else 0,
        )
        for index, keyframe in enumerate(_keyframes(job, spec, description, inputs))
    )
    return Plan(width, height, job.output.fps, job.output.crf, cuts[-1], shots)


def keyframe_size(width: int, height: int, megapixels: float, multiple: int) -> tuple[int, int]:
    """Sides of a picture of about `megapixels` with the shape of width x height, in multiples of `multiple` pixels."""
    ideal_height = math.sqrt(megapixels * 1e6 * height / width)
    sides = (ideal_height * width / height, ideal_height)
    wide, high = (max(multiple, multiple * round(side / multiple)) for side in sides)
    return wide, high


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


def _keyframes(
    job: Job, spec: ModelSpec, description: Description, inputs: Mapping[str, str]
) -> Iterator[Recipe | Given]:
    megapixels = job.render.megapixels or spec.megapixels
    width, height = keyframe_size(*job.output.size, megapixels, spec.multiple)
    seen: Counter[str] = Counter()
    for shot in job.shots:
        if shot.image is not None:
            yield Given(shot.image, inputs[shot.image])
            continue
        assert shot.prompt is not None
        parts = (job.style_prefix.strip(), shot.prompt.strip(), job.style_suffix.strip())
        seed = shot.seed
        if seed is None:
            seed = _seed(job, shot.prompt, seen[shot.prompt])
            seen[shot.prompt] += 1
        yield Recipe(
            source=description.source,
            revision=description.revision,
            precision=description.precision,
            prompt=" ".join(part for part in parts if part),
            seed=seed,
            steps=job.render.steps,
            guidance=spec.guidance,
            width=width,
            height=height,
        )


def _seed(job: Job, prompt: str, occurrence: int) -> int:
    """From the job's seed, the prompt and how often it came before: a shot put in between re-renders nothing else."""
    if job.seed_mode == "fixed":
        return job.seed
    digest = hashlib.sha256(f"{job.seed}\0{prompt}\0{occurrence}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
