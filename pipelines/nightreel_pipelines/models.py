"""Models by name: which source makes their pictures, from which weights, with which limits. No torch here."""

from __future__ import annotations

import difflib
import importlib
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings

from nightreel_queue.job import MAX_STEPS, STEPS

from .base import Source
from .errors import SourceUnavailable
from .remote import ClipService, RemoteSource

_REMOTE = {
    "comfyui": "nightreel_pipelines.comfyui.source:ComfyuiSource",
    "gemini": "nightreel_pipelines.gemini:GeminiClips",
}
_SOURCES = {
    "flux": "nightreel_pipelines.flux.source:FluxSource",
    "testcard": "nightreel_pipelines.testcard:TestcardSource",
}


class ModelSpec(BaseModel):
    """One entry of models.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    summary: str = ""
    source: str
    weights: str | None = None
    megapixels: float = Field(gt=0)
    steps: int = Field(STEPS, ge=1, le=MAX_STEPS, description="denoising steps when the job does not say")
    max_steps: int = Field(8, ge=1, le=MAX_STEPS, description="most that a job may ask for")
    expected_s: float = Field(
        0.0, ge=0, description="seconds that one run of the model is guessed to take for each megapixel of a keyframe"
    )
    expected_load_s: float = Field(0.0, ge=0, description="seconds that loading it is guessed to take")
    guidance: float = 0.0
    max_sequence_length: int | None = Field(
        None, ge=1, description="T5 tokens that prompts may have and are padded to; stands in recipes"
    )
    prompt_tokens: int = Field(256, ge=1)
    sequence: tuple[Annotated[int, Field(ge=1)], ...] = ()
    multiple: int = Field(16, ge=2, description="keyframe sides are multiples of this many pixels")
    precision: str = Field("auto", pattern=r"^(auto|fp32|bf16|bf16-exact|fp8)$")
    batch: int = Field(1, ge=1, le=64, description="keyframes of one size that are made together, on a GPU")
    gpu_memory_gib: float = Field(0.0, ge=0, description="most GPU memory that is used; 0: all of it")
    attention: str = Field(
        "native", pattern=r"^[a-z0-9_]{1,40}$", description="diffusers' name of an attention backend"
    )
    compile: str = Field(
        "off", pattern=r"^(off|cached|on)$", description="whether the transformer is compiled, on a GPU"
    )
    clips: tuple[Annotated[int, Field(ge=1, le=60)], ...] = Field(
        (), description="seconds that its clips may last, of a source that makes clips instead of keyframes"
    )
    clip_price: str = Field("", description="entry of the list of prices for each second of a clip")
    control: dict[Literal["pose"], str] = Field({}, description="folders of control checkpoints, by what they read")
    stands_in_for: tuple[str, ...] = Field((), description="models whose jobs a worker of this one makes as well")
    options: dict[str, Any] = Field({}, description="for the source alone")

    def tuned(self, **settings: object) -> Self:
        """With the worker's settings where this entry does not say otherwise; `settings` are fields of this class."""
        unsaid = {name: value for name, value in settings.items() if name not in self.model_fields_set}
        return self.model_copy(update=unsaid)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps > self.max_steps:
            raise ValueError(f"steps: {self.steps} are more than max_steps ({self.max_steps}): raise max_steps too")
        if self.sequence and max(self.sequence) < self.prompt_tokens:
            raise ValueError("sequence: the longest must hold prompt_tokens")
        if bool(self.clips) != bool(self.clip_price):
            raise ValueError("clips, clip_price: a source of clips has both, any other one none")
        if self.max_sequence_length and self.model_fields_set & {"prompt_tokens", "sequence"}:
            raise ValueError("max_sequence_length: stands for prompt_tokens and sequence: leave those out")
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """T5 tokens that prompts are padded to, ascending: the smallest that holds the prompt is taken."""
        return tuple(sorted(self.sequence)) or (self.longest_prompt,)

    @property
    def longest_prompt(self) -> int:
        """T5 tokens that a prompt may have."""
        return self.max_sequence_length or self.prompt_tokens

    def folder(self, weights_root: Path | None) -> Path:
        """Where the weights lie. Raises SourceUnavailable when the folder is not there."""
        return self._folder(self.weights or self.name, weights_root, f"model {self.name}")

    def control_folders(self, weights_root: Path | None) -> dict[str, Path]:
        """Where the control checkpoints lie, by type. Raises SourceUnavailable."""
        return {
            kind: self._folder(wanted, weights_root, f"control.{kind} of model {self.name}")
            for kind, wanted in self.control.items()
        }

    def _folder(self, wanted: str, weights_root: Path | None, what: str) -> Path:
        if wanted.startswith("package:"):
            return Path(str(files("nightreel_pipelines"))) / wanted.removeprefix("package:")
        if weights_root is None and not Path(wanted).is_absolute():
            raise SourceUnavailable(f"{what} needs weights: set NIGHTREEL_WEIGHTS to the folder that holds {wanted}/")
        folder = (weights_root or Path()) / wanted
        if not folder.is_dir():
            raise SourceUnavailable(f"{what}: no folder {folder}; put its weights there, in diffusers' layout")
        return folder


def load_models(extra: Path | None = None) -> dict[str, ModelSpec]:
    """The models by name: Nightreel's own, then those of the operator's file. Raises SourceUnavailable with the mend."""
    models = dict(_builtin())
    if extra is not None:
        try:
            models |= _parse(extra.read_text(encoding="utf-8"))
            _check_stand_ins(models)
        except (OSError, ValueError, TypeError) as exc:
            raise SourceUnavailable(f"cannot use models file {extra}: {exc}") from exc
    return models


def own_steps(models: Mapping[str, ModelSpec]) -> dict[str, int]:
    """Each model's own denoising steps, as `Job.resolved` takes them."""
    return {name: spec.steps for name, spec in models.items()}


def no_model(name: str, known: Collection[str]) -> str:
    """What to say of a model's name that is none."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"no model {name}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}")


def make_source(spec: ModelSpec, weights_root: Path | None) -> Source:
    """Construct the source that makes this model's pictures on this machine. Raises SourceUnavailable."""
    source: Source = _factory(spec, _SOURCES.get(spec.source, spec.source))(spec, weights_root)
    return source


def make_remote(spec: ModelSpec, settings: BaseSettings | None) -> RemoteSource | ClipService | None:
    """Construct the source that has this model's pictures or clips made elsewhere; None for one that makes them here.

    `settings` are those of its source; None: the environment's. Raises SourceUnavailable.
    """
    if spec.source not in _REMOTE:
        return None
    source: RemoteSource | ClipService = _factory(spec, _REMOTE[spec.source])(spec, settings)
    return source


def _factory(spec: ModelSpec, path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as exc:
        raise SourceUnavailable(f"model {spec.name}: source {spec.source!r} cannot be imported: {exc}") from exc


def _check_stand_ins(models: Mapping[str, ModelSpec]) -> None:
    """Raises ValueError: a misspelt name would stand in for nothing, and nobody would notice."""
    for spec in models.values():
        for name in spec.stands_in_for:
            if name not in models:
                raise ValueError(f"{spec.name}: stands_in_for: {no_model(name, models)}")


@cache
def _builtin() -> dict[str, ModelSpec]:
    return _parse(files("nightreel_pipelines").joinpath("models.toml").read_text(encoding="utf-8"))


def _parse(text: str) -> dict[str, ModelSpec]:
    return {name: ModelSpec(name=name, **table) for name, table in tomllib.loads(text).items()}
