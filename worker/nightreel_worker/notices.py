"""What is said of a job that ended: one body for topics and webhooks, the same each time that it is said."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Self

from nightreel_queue.job import canonical
from nightreel_storage.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Notice:
    """A receipt as others are told of it."""

    id: str
    """Of this round of this job: who is told twice knows it by that."""
    batch: str
    job: str
    body: bytes
    """JSON: type, timestamp (when the job ended) and data, the receipt without its `request`."""
    attributes: dict[str, str]
    """Of the message on a topic."""

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        name = json.dumps([receipt.batch, receipt.job, receipt.round, receipt.ended_at.isoformat()])
        data = receipt.model_dump(mode="json", exclude={"request"})
        kind = f"job.{receipt.state}"
        body = canonical({"type": kind, "timestamp": data["ended_at"], "data": data})
        attributes = {
            "type": kind,
            "batch": receipt.batch,
            "job": receipt.job,
            "round": str(receipt.round),
            "state": receipt.state,
        }
        id_ = f"msg_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        return cls(id_, receipt.batch, receipt.job, body.encode(), attributes)
