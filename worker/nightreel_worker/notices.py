"""What is said of a job that ended: one body for topics and webhooks, the same each time that it is said; and of a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Self

from nightreel_queue.job import canonical
from nightreel_storage.receipts import Receipt

from .report import LISTS, RunReport

RUN_FORMAT = 1  # of what is said of a run; raised when a field changes its meaning, not when one is added


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


def run_message(report: RunReport, page: str) -> tuple[bytes, dict[str, str]]:
    """What a results topic hears of a run that has ended: body and attributes. page: where its page is, or empty."""
    figures = report.model_dump(mode="json", exclude=LISTS)
    body = canonical(
        {"type": "run.ended", "timestamp": figures["ended_at"], "data": {"format": RUN_FORMAT, "page": page, **figures}}
    )
    return body.encode(), {"type": "run.ended", "run": report.run}
