"""What an operator can set for the dispatcher's entrances. Each field is a variable with the prefix NIGHTREEL_DISPATCHER_."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREDICT_MAX_S = 900.0


class DispatcherSettings(BaseSettings):
    """Built once, at the command line, and passed down. Queue, store and model are the worker's own settings."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_DISPATCHER_",
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    token: SecretStr | None = Field(
        None, min_length=16, description="who sends it as a bearer token may ask; at least 16 characters"
    )
    audience: str = Field(
        "", description="audience of Google's identity tokens, which are asked for then; usually the service's address"
    )
    accounts: str = Field(
        "", description="e-mail addresses of the accounts whose identity tokens count, separated by commas"
    )
    max_manifest_mb: float = Field(
        32.0, gt=0, description="size of a request or a manifest; Cloud Run takes requests of at most 32"
    )
    queue_limit: int = Field(0, ge=0, description="messages in the queue at which more are refused; 0: no limit")
    predict_wait_s: float = Field(
        60.0, ge=0, le=PREDICT_MAX_S, description="seconds that POST /predict waits unless the request says otherwise"
    )
    intake_timeout_s: float = Field(
        120.0, gt=0, description="seconds after which a manifest that was begun and not ended is taken up again"
    )

    @property
    def allowed(self) -> frozenset[str]:
        """The accounts that may ask."""
        return frozenset(part.strip().lower() for part in self.accounts.split(",") if part.strip())

    @property
    def guarded(self) -> bool:
        """Is anybody kept out? If not, only this machine may ask."""
        return bool(self.token or self.audience)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.audience) != bool(self.allowed):
            raise ValueError("audience and accounts go together: anybody can have Google sign a token for any audience")
        return self
