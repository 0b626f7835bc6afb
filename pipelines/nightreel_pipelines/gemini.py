"""Whole clips from Google's Veo, by the Gemini API.

The only module that imports google-genai, and only when a clip is wanted. The SDK repeats nothing by itself here: an order
that is repeated is paid for twice.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from .base import Description, Tick
from .clips import description
from .errors import DrawingFailed, InDoubt, SourceAway, SourceUnavailable, Unrenderable
from .models import ModelSpec
from .recipe import Recipe
from .remote import Terms

NEEDED = "pip install 'nightreel[gemini]'"
BACKOFF_S = (2.0, 4.0, 8.0, 16.0, 32.0)  # between orders that meet a quota; Google counts requests by the minute
LONGEST_WAIT_S = 90.0  # that Google may ask for, before the job goes back to the queue
LANES = (
    4  # jobs at once; each job's clips are all ordered at its begin, and Google's quota says how many are made at once
)
CHUNK_S = 0.25  # between two ticks
MAX_CLIP_BYTES = 500_000_000
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, QUOTA, UNAVAILABLE = 400, 401, 403, 404, 429, 503
INVALID_ARGUMENT = 3  # google.rpc.Code of an operation's error

T = TypeVar("T")


class GeminiSettings(BaseSettings):
    """Of the models whose source is gemini."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_GEMINI_", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    api_key: SecretStr | None = Field(None, description="key of the Gemini API; without it, no clip is ordered")
    monthly_usd: float = Field(
        0.0,
        ge=0,
        description="most that all workers of a store may pay for clips in a month (UTC); 0: no clip is ordered",
    )
    poll_s: float = Field(10.0, gt=0, description="seconds between two looks whether a clip is finished")
    timeout_s: float = Field(
        1800.0, gt=0, description="seconds after its order when a clip counts as one that never ends"
    )
    answer_s: float = Field(60.0, gt=0, description="seconds that Google may take to answer one request")
    url: str = Field("", description="address of the API, for a proxy of your own; empty: Google's")


class GeminiClips:
    """Orders, asks, downloads. Safe to use from several threads."""

    def __init__(self, spec: ModelSpec, settings: BaseSettings | None) -> None:
        """`settings` are GeminiSettings; None: the environment's. Raises SourceUnavailable."""
        own = settings if isinstance(settings, GeminiSettings) else GeminiSettings()
        self._description = description(spec)
        if not own.api_key or not own.monthly_usd:
            raise SourceUnavailable(
                f"model {spec.name} is paid for by the clip, and off until NIGHTREEL_GEMINI_API_KEY and"
                " NIGHTREEL_GEMINI_MONTHLY_USD are set"
            )
        if not (spec.clips and self._description.revision):
            raise SourceUnavailable(f"model {spec.name}: its entry needs clips, clip_price and options.model")
        self._genai = _sdk(spec.name)
        self._client = self._genai.Client(
            api_key=own.api_key.get_secret_value(),
            vertexai=False,
            http_options=self._genai.types.HttpOptions(base_url=own.url or None, timeout=round(own.answer_s * 1000)),
        )
        self._terms = Terms(own.monthly_usd, own.poll_s, own.timeout_s, own.answer_s)

    @property
    def lanes(self) -> int:
        return LANES

    @property
    def terms(self) -> Terms:
        return self._terms

    def describe(self) -> Description:
        return self._description

    def order(self, recipe: Recipe, tick: Tick) -> str:
        for pause_s in (*BACKOFF_S, None):
            try:
                return self._order(recipe)
            except _BusyError as exc:
                wait_s = max(pause_s or 0.0, exc.wait_s)
                if pause_s is None or wait_s > LONGEST_WAIT_S:
                    raise SourceAway(f"{exc}: the quota stands in AI Studio, under usage and limits") from exc
            wait(wait_s, tick)
        raise AssertionError

    def _order(self, recipe: Recipe) -> str:
        types = self._genai.types
        config = types.GenerateVideosConfig(
            number_of_videos=1,
            duration_seconds=recipe.clip_s,
            aspect_ratio="16:9" if recipe.width >= recipe.height else "9:16",
            resolution=f"{min(recipe.width, recipe.height)}p",
        )
        source = types.GenerateVideosSource(prompt=recipe.prompt)
        try:
            operation = self._client.models.generate_videos(model=recipe.revision, source=source, config=config)
        except self._genai.errors.APIError as exc:
            raise _not_taken(exc, recipe.revision) from exc
        except (
            Exception
        ) as exc:  # whatever happened to the connection: it may have happened after Google had read the order
            if "Connect" in type(exc).__name__:
                raise SourceAway(f"the Gemini API cannot be reached: {exc}") from exc
            raise InDoubt(f"the order was not answered ({type(exc).__name__}: {exc})") from exc
        if not operation.name:
            raise InDoubt("the order was answered without the name of an operation")
        return str(operation.name)

    def finished(self, operation: str) -> str | None:
        wanted = self._genai.types.GenerateVideosOperation(name=operation)
        found = self._asked(lambda: self._client.operations.get(wanted), f"operation {operation}")
        if not found.done:
            return None
        if found.error:
            code, message = found.error.get("code"), found.error.get("message", "")
            kind = Unrenderable if code == INVALID_ARGUMENT else DrawingFailed
            raise kind(f"the Gemini API made no clip: {message} (code {code})")
        videos = (found.response and found.response.generated_videos) or []
        if not videos:
            reasons = (found.response and found.response.rai_media_filtered_reasons) or ["it gave no reason"]
            raise Unrenderable(f"Google's safety filter refused the clip: {'; '.join(reasons)}: change the prompt")
        return str(videos[0].video.uri)

    def download(self, address: str, path: Path, tick: Tick) -> None:
        video = self._genai.types.Video(uri=address)
        with path.open("wb") as file:
            sink = _Sink(file, tick)
            try:
                self._asked(lambda: self._client.files.download(file=video, destination=sink), f"clip {address}")
            except SourceAway:
                if sink.error:
                    raise sink.error from None
                raise

    def health(self) -> Iterator[tuple[Literal["ok", "fail"], str]]:
        model = self._description.revision
        try:
            found = self._client.models.get(model=model)
        except self._genai.errors.APIError as exc:
            yield "fail", f"the Gemini API refuses NIGHTREEL_GEMINI_API_KEY, or model {model}: {_said(exc)}"
        except Exception as exc:  # noqa: BLE001  # whatever the connection does, it is what is to be told
            yield "fail", f"the Gemini API cannot be reached: {exc}"
        else:
            yield "ok", f"Gemini API: {found.name}; {self._terms.monthly_usd:.2f} USD a month"

    def close(self) -> None:
        self._client.close()

    def _asked(self, call: Callable[[], T], what: str) -> T:
        try:
            return call()
        except self._genai.errors.APIError as exc:
            if exc.code == NOT_FOUND:
                raise InDoubt(f"the Gemini API does not know {what} any more: it keeps them for two days") from exc
            raise _unavailable(exc) or SourceAway(f"the Gemini API does not tell of {what}: {_said(exc)}") from exc
        except Exception as exc:
            raise SourceAway(f"the Gemini API does not tell of {what}: {type(exc).__name__}: {exc}") from exc


class _Sink(io.RawIOBase):
    """A file that is written with ticks, and only so far; remembers why it was stopped."""

    def __init__(self, file: io.BufferedWriter, tick: Tick) -> None:
        self._file, self._tick = file, tick
        self._left = MAX_CLIP_BYTES
        self.error: Exception | None = None

    def write(self, data: Any) -> int:
        try:
            self._tick()
            if (left := self._left - len(data)) < 0:
                raise DrawingFailed(f"the clip has more than {MAX_CLIP_BYTES / 1e6:.0f} MB")
        except Exception as exc:
            self.error = exc
            raise
        self._left = left
        return self._file.write(data)


class _BusyError(Exception):
    """A quota is used up for now."""

    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.wait_s = wait_s


def wait(seconds: float, tick: Tick) -> None:
    """Sleep, with ticks."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        tick()
        time.sleep(min(CHUNK_S, left))
    tick()


def _sdk(model: str) -> Any:
    try:
        import google.genai.errors
        import google.genai.types
    except ImportError as exc:
        raise SourceUnavailable(f"model {model} needs google-genai: {NEEDED}") from exc
    if int(google.genai.__version__.partition(".")[0]) > 2:
        raise SourceUnavailable(
            f"google-genai {google.genai.__version__} orders no clips from the Gemini API any more: {NEEDED}"
        )
    return google.genai


def _not_taken(error: Any, model: str) -> Exception:
    """What an answered order means that was not taken, or may have been."""
    said = f"the Gemini API refuses the order: {_said(error)}"
    match error.code:
        case _ if found := _unavailable(error):
            return found
        case code if code == QUOTA:
            return _BusyError(f"the Gemini API's quota is used up: {_said(error)}", _retry_after_s(error))
        case code if code == UNAVAILABLE:
            return _BusyError(f"the Gemini API has no room: {_said(error)}", _retry_after_s(error))
        case code if code == NOT_FOUND:
            return SourceUnavailable(f"{said}: look at options.model of the models file, which says {model}")
        case code if BAD_REQUEST <= code < 500 and code != 408:
            return Unrenderable(f"{said}: change the prompt")
    return InDoubt(f"the order was answered with an error that does not say whether it was taken: {_said(error)}")


def _unavailable(error: Any) -> SourceUnavailable | None:
    """For errors that every other order would meet: the key, the account, the country."""
    bad_key = error.code == BAD_REQUEST and "API_KEY_INVALID" in str(error.details)
    if bad_key or error.code in (UNAUTHORIZED, FORBIDDEN) or error.status == "FAILED_PRECONDITION":
        return SourceUnavailable(f"the Gemini API refuses NIGHTREEL_GEMINI_API_KEY: {_said(error)}")
    return None


def _said(error: Any) -> str:
    return f"{error.code} {error.status or ''} {error.message or ''}".strip()


def _retry_after_s(error: Any) -> float:
    """What the answer asks for: its header, or google.rpc.RetryInfo among its details; 0 when it does not say."""
    headers = getattr(error.response, "headers", None) or {}
    body = error.details if isinstance(error.details, dict) else {}
    details = body.get("error", {}).get("details", [])
    told = [headers.get("retry-after", "")] + [str(each.get("retryDelay", "")).removesuffix("s") for each in details]
    return max((float(each) for each in told if each.replace(".", "", 1).isdigit()), default=0.0)
