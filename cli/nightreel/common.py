"""What all verbs share: flags, exit codes, and errors in one line."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from nightreel_dispatcher.backends import BadBackends
from nightreel_dispatcher.launchers.runpod_settings import RunPodSettings
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_pipelines.comfyui.settings import ComfyuiSettings
from nightreel_pipelines.errors import PipelineError
from nightreel_pipelines.gemini import GeminiSettings
from nightreel_queue.errors import InvalidJob, QueueError, QueueUnavailable
from nightreel_storage.errors import StoreError, StoreUnavailable
from nightreel_worker.errors import BadPrice, RendererUnavailable
from nightreel_worker.remotes import Remotes
from nightreel_worker.settings import Settings

EXIT_OK = 0
EXIT_NOT_ALL_MADE = 1  # some video was not made: failed, cancelled, or the run was interrupted
EXIT_BAD_INPUT = 2  # manifest, job, flag or setting; also what the command line parser uses
EXIT_UNAVAILABLE = 3  # queue, store or renderer could not be had

SETTINGS: tuple[type[BaseSettings], ...] = (
    Settings,
    DispatcherSettings,
    PolicySettings,
    ComfyuiSettings,
    GeminiSettings,
    RunPodSettings,
)
S = TypeVar("S", bound=BaseSettings)

OTHER_VARIABLES = {"NIGHTREEL_ALLOW_CUDA"}  # of scripts/install

QueueFlag = Annotated[
    str | None, typer.Option("--queue", help="Queue's address: sqlite:///FILE or pubsub://PROJECT/SUBSCRIPTION.")
]
StoreFlag = Annotated[str | None, typer.Option("--store", help="Where results go: a folder, or gs://BUCKET/PREFIX.")]
ModelFlag = Annotated[str | None, typer.Option("--model", help="Model of jobs that name none.")]
NightlyFlag = Annotated[str | None, typer.Option(help="Time of day, HH:MM, at which whatever waits is rendered.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings_with(**flags: Any) -> Settings:
    """The environment's settings under the flags that were given. Exits with the field and the mend."""
    return settings_of(Settings, **flags)


def settings_of(kind: type[S], **flags: Any) -> S:
    """The same for the settings of another part."""
    _check_variables()
    try:
        return kind(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as exc:
        for error in exc.errors():
            complain(_wrong_setting(kind, error["loc"], error["msg"], error["input"]))
        raise typer.Exit(EXIT_BAD_INPUT) from None


def remotes() -> Remotes:
    """The sources over the network, by the environment's settings. Exits as above."""
    return Remotes({"comfyui": settings_of(ComfyuiSettings), "gemini": settings_of(GeminiSettings)})


def _wrong_setting(kind: type[BaseSettings], loc: tuple[str | int, ...], message: str, found: object) -> str:
    if not loc:  # it is about several of them
        return f"settings {kind.model_config['env_prefix']}...: {message}"
    name = variables(kind)[str(loc[0])]
    is_secret = SecretStr in get_args(kind.model_fields[str(loc[0])].annotation)
    return f"setting {name}: {message}" + ("" if is_secret else f"; found {found!r}")


def variables(kind: type[BaseSettings]) -> dict[str, str]:
    """The environment variables of some settings, by field."""
    return {name: f"{kind.model_config['env_prefix']}{name.upper()}" for name in kind.model_fields}


def _check_variables() -> None:
    """A misspelt variable must not be a setting that silently is not there."""
    known = {name for kind in SETTINGS for name in variables(kind).values()} | OTHER_VARIABLES
    unknown = [
        name for name in sorted(os.environ) if name.upper().startswith("NIGHTREEL_") and name.upper() not in known
    ]
    for name in unknown:
        near = difflib.get_close_matches(name.upper(), known, n=1)
        complain(f"setting {name}: there is none of that name" + (f"; did you mean {near[0]}?" if near else ""))
    if unknown:
        raise typer.Exit(EXIT_BAD_INPUT)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"nightreel: {text}", file=sys.stderr)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what the packages raise into a line for a person and an exit code."""
    try:
        yield
    except InvalidJob as exc:
        for problem in exc.problems:
            complain(str(problem))
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except (QueueUnavailable, StoreUnavailable, RendererUnavailable) as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    except (QueueError, StoreError, PipelineError, BadPrice, BadBackends) as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_BAD_INPUT) from None
