"""The sources over the network that a run uses."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from pydantic_settings import BaseSettings

from nightreel_pipelines.base import Description
from nightreel_pipelines.clips import description
from nightreel_pipelines.models import ModelSpec, make_remote
from nightreel_pipelines.remote import ClipService, RemoteSource


class Remotes:
    """Each is made when somebody first asks for it, and kept. Safe to use from several threads."""

    def __init__(self, settings: Mapping[str, BaseSettings] = MappingProxyType({})) -> None:
        """`settings` by the name of the source, as models.toml says it."""
        self._settings = settings
        self._lock = threading.Lock()
        self._made: dict[str, RemoteSource | ClipService | None] = {}

    def of(self, spec: ModelSpec) -> RemoteSource | ClipService | None:
        """The source of a model; None for one whose keyframes are made on this machine. Raises SourceUnavailable."""
        with self._lock:
            if spec.name not in self._made:
                self._made[spec.name] = make_remote(spec, self._settings.get(spec.source))
            return self._made[spec.name]

    def describe(self, spec: ModelSpec) -> Description | None:
        """What the source of a model is and can; None as above. Asks nobody. Raises SourceUnavailable.

        Of clips the model's entry says it all: to plan them, or to film stored ones, needs no key.
        """
        if spec.clips:
            return description(spec)
        source = self.of(spec)
        return source.describe() if source else None

    def close(self) -> None:
        """Let go of what is elsewhere."""
        with self._lock:
            for source in self._made.values():
                if source:
                    source.close()
