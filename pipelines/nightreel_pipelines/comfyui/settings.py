"""What an operator can set for ComfyUI. Each field is an environment variable with the prefix NIGHTREEL_COMFYUI_."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ComfyuiSettings(BaseSettings):
    """Built once, at the command line, and passed down."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_COMFYUI_", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    servers: str = Field(
        "http://127.0.0.1:8188", description="addresses of ComfyUI servers, http:// or https://, separated by commas"
    )
    token: SecretStr | None = Field(
        None, description="sent to each server as a bearer token, for the proxy before it; ComfyUI itself asks for none"
    )
    workflow: str = Field(
        "",
        description="your own workflow in API format, and after a comma one that draws over a picture; empty: FLUX.1-schnell",
    )
    timeout_s: float = Field(
        300.0, gt=0, description="seconds without a sign of a keyframe's progress before its server counts as hung"
    )
    retries: int = Field(
        2,
        ge=0,
        le=10,
        description="times that a keyframe is drawn again, on another server if there is one, when a node fails",
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the servers, each once."""
        return tuple(dict.fromkeys(part.strip().rstrip("/") for part in self.servers.split(",") if part.strip()))

    @property
    def workflows(self) -> tuple[str, ...]:
        """Files of the operator's own workflows; none: those of the model's entry."""
        return tuple(part.strip() for part in self.workflow.split(",") if part.strip())

    @field_validator("servers")
    @classmethod
    def _check_servers(cls, value: str) -> str:
        for part in (each.strip() for each in value.split(",") if each.strip()):
            url = urlsplit(part)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("each must be http://HOST:PORT or https://HOST")
            if url.username or url.password or url.query or url.fragment:
                raise ValueError("must hold no password and no ?: put a token into NIGHTREEL_COMFYUI_TOKEN")
            _ = url.port  # raises ValueError for one that is no number
        return value
