"""The wire format: what one video is.

A job is read from untrusted bytes exactly once, here, into frozen models. Unknown fields are refused, numbers have
limits, and nothing is accepted that is not rendered. The canonical form is JSON without the fields that hold their
defaults, so that a schema that grows keeps every fingerprint.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from .audio import Audio
from .motions import DEFAULT_MOTION, Motion, Walk, WalkMotion, keyframes_at_most
from .pictures import Control, Init
from .strict import PROMPT_CHARS, Address, Seed, Strict, incomplete, problem
from .transitions import Transition

MAX_SHOTS = 120
MAX_VIDEO_S = 600.0
MAX_KEYFRAMES = 2000  # of one job: 70 minutes of an L4 at 2 s each
SHORT_SIDE_PX = 720  # of an output that names only its aspect
STEPS = 4  # of a model whose entry says nothing else: left out of fingerprints
MAX_STEPS = 50  # of any model; most allow fewer
SIDE_PX = (64, 2160)  # smallest and largest side of an output

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Style = Annotated[str, Field(max_length=2000)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._~+-]{2,247}$")]
Webhook = Annotated[str, Field(max_length=2000, pattern=r"^https?://[\x21-\x7e]+$")]
Moment = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})$")
]
LabelKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
LabelValue = Annotated[str, Field(max_length=256)]


class Output(Strict):
    """The video's form: H.264, yuv420p, BT.709, MP4 with its index in front."""

    aspect: str | None = Field(None, description="W:H, such as 16:9; the short side is 720 px. Default 16:9.")
    width: int | None = Field(None, ge=SIDE_PX[0], le=SIDE_PX[1], description="px, even; together with height")
    height: int | None = Field(None, ge=SIDE_PX[0], le=SIDE_PX[1], description="px, even; together with width")
    fps: int = Field(30, ge=8, le=60, description="frames per second")
    crf: int = Field(18, ge=0, le=40, description="x264's constant rate factor; lower is better and larger")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.width is None) != (self.height is None):
            missing = "height" if self.height is None else "width"
            raise incomplete("width and height go together: give both, or aspect alone", missing)
        if self.width is not None and self.aspect is not None:
            raise problem("give aspect, or width and height, not both", "aspect")
        for side in ("width", "height"):
            value = getattr(self, side)
            if value is not None and value % 2:
                raise problem(f"must be even, H.264 needs it: try {value - 1} or {value + 1}", side)
        if self.aspect is not None:
            match = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", self.aspect)
            if match is None:
                raise problem("must look like 16:9", "aspect")
            if max(self.size) > SIDE_PX[1]:
                raise problem(f"would be {self.size[0]}x{self.size[1]}; the longest side allowed is 2160", "aspect")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, both even."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        wide, high = (int(side) for side in (self.aspect or "16:9").split(":"))
        unit = SHORT_SIDE_PX / min(wide, high)
        return 2 * round(wide * unit / 2), 2 * round(high * unit / 2)


class Render(Strict):
    """How keyframes are made."""

    model: ModelName | None = Field(None, description="a model's name; the queue's own when left out")
    megapixels: float | None = Field(
        None, ge=0.004, le=4.2, description="size of a keyframe; the model's when left out"
    )
    steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="denoising steps (num_inference_steps); the model's when left out"
    )


class Shot(Strict):
    """One picture, held for a duration, with a motion."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["prompt"]}, {"required": ["image"]}]})

    image: Address | None = Field(
        None, description="a picture that is there already, instead of a prompt: gs://BUCKET/NAME or https://..."
    )
    prompt: str | None = Field(
        None, min_length=1, max_length=PROMPT_CHARS, validate_default=True, description="what the picture shows"
    )
    duration: float = Field(4.0, ge=0.2, le=60, description="seconds on screen, exact to half a frame")
    seed: Seed | None = Field(
        None, description="of this shot's noise; from the job's seed and the prompt when left out"
    )
    init: Init | None = Field(None, description="a picture that the prompt is drawn over")
    control: Control | None = Field(None, description="a picture that steers what is drawn")
    motion: Motion = DEFAULT_MOTION
    transition: Transition | None = Field(None, description="into the next shot; the job's when left out")

    @field_validator("prompt")
    @classmethod
    def _is_there(cls, prompt: str | None, others: ValidationInfo) -> str | None:
        """A field's validator, not the model's: it speaks up also when other fields are wrong."""
        if prompt is None and others.data.get("image", "") is None:
            raise PydanticKnownError("missing")
        return prompt

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.prompt is not None and not self.prompt.strip():
            raise problem("is empty: say what the picture shows", "prompt")
        if self.image is not None:
            for field in ("prompt", "seed", "init", "control"):
                if getattr(self, field) is not None:
                    raise problem("nothing is drawn where image names a picture: give one of the two", field)
            if keyframes_at_most(self.motion, 0.0) > 1:
                raise problem("draws new pictures: give a prompt instead of image, or both prompt and init", "motion")
        return self


class Notify(Strict):
    """Who is told how the job ended. The operator says which topics there are, and whether webhooks are sent."""

    topic: TopicName | None = Field(None, description="a topic that the operator offers, by the last part of its name")
    webhook: Webhook | None = Field(None, description="address that the receipt is posted to, signed: https://...")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.topic is None and self.webhook is None:
            raise incomplete("names nobody: give topic, or webhook, or both")
        return self


class Limits(Strict):
    """What the job may take at most. A job that is estimated to need more is refused before any work for it."""

    max_seconds: float | None = Field(
        None, ge=0.1, le=86_400, description="seconds of a worker that is ready: rendering, filming, checking"
    )
    max_cost_usd: float | None = Field(
        None, ge=0.0001, le=10_000, description="the same in US dollars, at the worker's price"
    )
    not_after: Moment | None = Field(None, description="when it is too late to begin")

    @field_validator("not_after")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                dt.datetime.fromisoformat(value)
            except ValueError as exc:
                raise problem(f"is {value!r}, but {exc}") from exc
        return value

    @property
    def deadline(self) -> dt.datetime | None:
        return dt.datetime.fromisoformat(self.not_after) if self.not_after else None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_seconds is None and self.max_cost_usd is None and self.not_after is None:
            raise incomplete("is empty: give max_seconds, max_cost_usd or not_after, or leave it out")
        return self


class Job(Strict):
    """One video to render. Its batch and id name its outputs: BATCH/ID.mp4, .jpg and .json."""

    version: Literal[1] = 1
    id: Name | None = Field(None, description="names the outputs; the job's fingerprint when left out")
    batch: Name | None = Field(None, description="the jobs that belong together; the manifest's when left out")
    output: Output = Output()
    render: Render = Render()
    seed: Seed = 0
    seed_mode: Literal["per_shot", "fixed"] = Field(
        "per_shot", description="fixed: every shot starts from the job's seed"
    )
    style_prefix: Style = Field("", description="put before every prompt")
    style_suffix: Style = Field("", description="put after every prompt")
    shots: tuple[Shot, ...] = Field(max_length=MAX_SHOTS, json_schema_extra={"minItems": 1})
    transition: Transition = Transition()
    audio: Audio | None = Field(None, description="the sound; none when left out")
    limits: Limits | None = Field(None, description="what it may take at most")
    priority: Literal["normal", "urgent"] = Field("normal", description="urgent jobs are claimed first")
    notify: Notify | None = Field(None, description="who is told how the job ended")
    labels: dict[LabelKey, LabelValue] = Field({}, max_length=32, description="echoed in receipt and logs")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.shots:  # checked here, not by the field: a list whose items are wrong must not be called empty too
            raise problem("is empty: a video needs at least one shot", "shots")
        total_s = sum(shot.duration for shot in self.shots)
        if total_s > MAX_VIDEO_S + 1e-9:
            raise problem(f"last {total_s:g} s in all; a video may last {MAX_VIDEO_S:g} s: make two jobs", "shots")
        if self.shots[-1].transition is not None:
            raise problem("no shot follows: leave it out", "shots", len(self.shots) - 1, "transition")
        for index in range(len(self.shots) - 1):
            self._check_transition(index)
        for index, shot in enumerate(self.shots):
            self._check_walk(index, shot)
        if self.audio is not None:
            self.audio.check_fades(total_s)
        if self.keyframes_at_most > MAX_KEYFRAMES:
            raise problem(
                f"may need {self.keyframes_at_most:,} keyframes; a job may have {MAX_KEYFRAMES:,}: lower the rate of walk or"
                " feedback, shorten the shots, or make two jobs",
                "shots",
            )
        return self

    def _check_transition(self, index: int) -> None:
        own = self.shots[index].transition
        wanted_s = (own or self.transition).duration
        room_s = min(self.shots[index].duration, self.shots[index + 1].duration)
        if wanted_s is not None and wanted_s > room_s:
            at = ("shots", index, "transition", "duration") if own else ("transition", "duration")
            raise problem(
                f"{wanted_s:g} s is longer than shot {index + 1} or {index + 2} ({room_s:g} s): shorten it, or cut", *at
            )

    def _check_walk(self, index: int, shot: Shot) -> None:
        if not isinstance(shot.motion, WalkMotion):
            return
        walk, start = shot.motion.walk, shot.seed
        if self.seed_mode == "fixed":
            start = self.seed if start is None else start
            walk = Walk(to=walk.to, seed=self.seed if walk.seed is None else walk.seed)
        if walk.to in (None, shot.prompt) and walk.seed is not None and walk.seed == start:
            at = ("shots", index, "motion", "walk")
            raise problem("ends where it begins: give to, another prompt, or seed, another noise", *at)

    @property
    def keyframes_at_most(self) -> int:
        """An upper bound, a few above what the plan will count."""
        return sum(keyframes_at_most(shot.motion, self._visible_s(index)) for index, shot in enumerate(self.shots))

    def _visible_s(self, index: int) -> float:
        """Seconds for which a shot is on screen, with its halves of the transitions around it."""
        around = [at for at in (index - 1, index) if 0 <= at < len(self.shots) - 1]
        return self.shots[index].duration + sum(self.transition_after(at)[1] / 2 for at in around)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Addresses of what has to be fetched before the job can be made, each with the first field that names it."""
        found = dict(self.pictures)
        if self.audio is not None:
            found.setdefault(self.audio.uri, "audio.uri")
        return found

    @property
    def pictures(self) -> Mapping[str, str]:
        """Addresses of the pictures among them."""
        found: dict[str, str] = {}
        for index, shot in enumerate(self.shots):
            if shot.image is not None:
                found.setdefault(shot.image, f"shots[{index}].image")
            if shot.init is not None:
                found.setdefault(shot.init.image, f"shots[{index}].init.image")
            if shot.control is not None:
                found.setdefault(shot.control.image, f"shots[{index}].control.image")
        return found

    def transition_after(self, index: int) -> tuple[Transition, float]:
        """From shot `index` to the next one, and how many seconds it lasts; a cut takes 0 s."""
        transition = self.shots[index].transition or self.transition
        return transition, transition.seconds(min(self.shots[index].duration, self.shots[index + 1].duration))

    @property
    def duration_s(self) -> float:
        return sum(shot.duration for shot in self.shots)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides the video; its name, batch, limits, priority, labels and notify do not."""
        return hashlib.sha256(canonical(self.content()).encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """The fields that decide the video, without those that hold their defaults; for steps that is 4, said or not."""
        aside = {"id", "batch", "limits", "priority", "notify", "labels"}
        steps = None if self.render.steps == STEPS else self.render.steps
        job = self.model_copy(update={"render": self.render.model_copy(update={"steps": steps})})
        return {"version": self.version} | job.model_dump(mode="json", exclude_defaults=True, exclude=aside)

    def to_json(self) -> str:
        """The canonical form: sorted keys, no blanks, no field that holds its default."""
        return canonical({"version": self.version} | self.model_dump(mode="json", exclude_defaults=True))

    def resolved(self, *, model: str, batch: str, steps: Mapping[str, int] | None = None) -> Self:
        """This job with its model, steps, batch and id written into it, as a queue carries it.

        `steps` are the models' own ones, by name; who does not know them leaves them to the worker.
        """
        model = self.render.model or model
        render = _with(self.render, model, self.render.steps or (steps or {}).get(model))
        job = self.model_copy(update={"render": render, "batch": self.batch or batch})
        return job if job.id else job.model_copy(update={"id": job.fingerprint[:16]})


@lru_cache(maxsize=256)
def _with(render: Render, model: str, steps: int | None) -> Render:
    """Shared by all jobs of a manifest that say the same."""
    return render.model_copy(update={"model": model, "steps": steps})


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
