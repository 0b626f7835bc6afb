"""What a job asks of its model, and the model does not have: told before anything is fetched or drawn. No torch here."""

from __future__ import annotations

from nightreel_queue.job import Job, Shot
from nightreel_queue.motions import DEFAULT_MOTION, FeedbackMotion, kind_of

from .base import Abilities, Description
from .errors import Unrenderable
from .keyframes import keyframe_size
from .models import ModelSpec
from .recipe import evaluations, steered


def check(job: Job, spec: ModelSpec, description: Description) -> None:
    """Raises Unrenderable, naming the field and the mend."""
    if trouble := wrong_steps(job, spec):
        raise Unrenderable(f"render.steps: {trouble}")
    if any(shot.prompt is not None for shot in job.shots):
        _check_size(job, spec, description.abilities)
    if spec.clips and job.render.megapixels is not None:
        raise Unrenderable(
            f"render.megapixels: {spec.name} makes clips of one size alone: leave it out, or take another model"
        )
    for index, shot in enumerate(job.shots):
        if spec.clips and shot.prompt is not None and shot.motion not in ("still", DEFAULT_MOTION):
            raise Unrenderable(
                f"shots[{index}].motion: {spec.name} makes clips, which move by themselves: leave it out and say the move in"
                " the prompt, or take another model"
            )
        _check_abilities(shot, f"shots[{index}]", spec, description.abilities)
        if shot.control is not None:
            _check_control(shot, f"shots[{index}].control", job.render.steps or spec.steps, spec, description)


def wrong_steps(job: Job, spec: ModelSpec) -> str:
    """What to say of a number of steps that the model does not take; empty when it does."""
    steps = job.render.steps
    if steps is None or steps <= spec.max_steps:
        return ""
    return f"is {steps}; {spec.name} takes 1 to {spec.max_steps}: lower it, or leave it out for {spec.steps}"


def _check_size(job: Job, spec: ModelSpec, can: Abilities) -> None:
    size = keyframe_size(*job.output.size, job.render.megapixels or spec.megapixels, spec.multiple)
    shortest, longest = can.sides
    if min(size) < shortest or max(size) > longest:
        raise Unrenderable(
            f"render.megapixels: keyframes would be {size[0]}x{size[1]}; {spec.name} draws sides of {shortest} to {longest}:"
            f" {'raise' if min(size) < shortest else 'lower'} it, or choose another shape"
        )
    if any(side % can.multiple for side in size):
        raise Unrenderable(
            f"render.model: sides of {spec.name}'s pictures are multiples of {can.multiple}: have its entry of the models file"
            f" say multiple = {can.multiple}"
        )


def _check_abilities(shot: Shot, field: str, spec: ModelSpec, can: Abilities) -> None:
    if shot.prompt is not None and (kind := kind_of(shot.motion)) not in can.motions:
        kinds = [each for each in ("still", "zoom", "pan", "rotate") if each == "still" or "move" in can.motions]
        raise Unrenderable(
            f"{field}.motion: {spec.name} cannot make a {kind}: take {', '.join(kinds)}, or another model"
        )
    if shot.init is not None and not can.init:
        raise Unrenderable(f"{field}.init: {spec.name} draws over no picture: leave it out, or take another model")


def _check_control(shot: Shot, field: str, steps: int, spec: ModelSpec, description: Description) -> None:
    control = shot.control
    assert control is not None
    if control.type not in description.controls:
        raise Unrenderable(
            f"{field}: {spec.name} has no control checkpoint for {control.type}: leave it out, take another model, or have"
            " the models file name one"
        )
    for count in (evaluations(steps, strength) for strength in _strengths(shot)):
        if not any(steered(control.start, control.end, count)):
            raise Unrenderable(
                f"{field}: none of a keyframe's {count} steps lies wholly between start ({control.start:g}) and end"
                f" ({control.end:g}): move them apart, or raise render.steps or strength"
            )


def _strengths(shot: Shot) -> list[float]:
    """Starting noise of the shot's first keyframe, and of those that are fed back."""
    fed_back = [shot.motion.feedback.strength] if isinstance(shot.motion, FeedbackMotion) else []
    return [1.0 if shot.init is None else shot.init.strength, *fed_back]
