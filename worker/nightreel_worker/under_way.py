"""One delivery, from its claim to its settlement."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightreel_pipelines.errors import Cancelled
from nightreel_queue.base import Delivery

from .admission import Work
from .errors import Preempted
from .leases import Lease
from .settle import Claim


@dataclass(eq=False, slots=True)
class UnderWay:
    """One delivery in this worker's hands."""

    lease: Lease
    scratch: Path
    claim: Claim
    stage: Literal["waiting", "rendering", "commit"] = "waiting"
    work: Work | None = None
    off: threading.Event = field(default_factory=threading.Event)
    """The job is called off, or not ours any more."""
    thread: threading.Thread = field(default_factory=threading.Thread)

    def call_off(self, key: str) -> None:
        """If it is the one with this key."""
        if self.work and self.work.key == key:
            self.off.set()

    def check(self, leaving: threading.Event) -> None:
        """Raises Cancelled when the job is off, Preempted when the run leaves."""
        if self.off.is_set():
            raise Cancelled
        if leaving.is_set():
            raise Preempted("the worker is leaving")

    @property
    def delivery(self) -> Delivery:
        return self.claim.delivery
