"""What a server is asked for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from ..recipe import Recipe
from .workflow import Workflow

DEPTH = 2  # of ours at one server: one is drawn, the next waits there, so that no GPU waits for us


@dataclass(frozen=True, slots=True)
class Order:
    """One keyframe to draw."""

    recipe: Recipe
    workflow: Workflow
    picture: Path | None
    """What it is drawn over."""
    again: int = 0
    """How often that went wrong."""

    @property
    def prompt(self) -> str:
        """The same for the same keyframe: what a killed worker left in a server's queue or history is found again."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.recipe.fingerprint}{f' {self.again}' if self.again else ''}"))
