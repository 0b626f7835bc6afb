"""structlog, set up once: JSON in Cloud Logging's fields, or lines for a person."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from nightreel_queue.job import Job

from .events import Advanced, Ended, Event
from .settings import Settings

log = structlog.get_logger()

LABELS = "logging.googleapis.com/labels"
OPERATION = "logging.googleapis.com/operation"
PRODUCER = "nightreel"  # of operations, whose ids are BATCH/JOB
FIRST, LAST = "claimed", "job_ended"  # lines of a job's life


def configure(settings: Settings, level: str | None = None) -> None:
    """Send every log line to standard error, from `level` (default: the setting's) upwards."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    last: list[Processor] = (
        [CloudFields(), structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[(level or settings.log_level).upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


@dataclass(frozen=True, slots=True)
class CloudFields:
    """Renames what Cloud Logging knows under other names, and groups lines by run and by job.

    A line of a job has `batch` and `job`. They become labels, which are indexed, together with the job's own, and an
    operation, by which the Logs Explorer shows a job's whole life: every attempt, in whichever run.
    """

    run: str = ""
    """Id of the run whose process this is."""

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        kind = event.pop("event")
        own = {f"label.{key}": value for key, value in event.pop("job_labels", {}).items()}
        of = {name: str(event[name]) for name in ("batch", "job") if event.get(name)}
        labels = ({"run": self.run} if self.run else {}) | of | own
        fields: dict[str, Any] = {"severity": str(event.pop("level")).upper(), "message": kind}
        if labels:
            fields[LABELS] = labels
        if len(of) == 2:
            at = {"first": True} if kind == FIRST else {"last": True} if kind == LAST else {}
            fields[OPERATION] = {"id": f"{of['batch']}/{of['job']}", "producer": PRODUCER, **at}
        return fields | dict(event)


def name_run(run: str) -> None:
    """Label every line from now on with a run's id, whichever thread logs it."""
    before = structlog.get_config()["processors"]
    structlog.configure(
        processors=[replace(each, run=run) if isinstance(each, CloudFields) else each for each in before]
    )


def name_job(job: Job) -> None:
    """Say in every line that this thread logs from now on which job it is of."""
    bind_contextvars(batch=job.batch, job=job.id, **({"job_labels": dict(job.labels)} if job.labels else {}))


def log_event(event: Event) -> None:
    """A line for each event, but for what a progress bar shows; one that failed is a warning."""
    match event:
        case Ended(receipt=receipt, earlier=earlier):
            tell = log.warning if receipt.state == "failed" and not earlier else log.info
            tell("job_ended", batch=receipt.batch, job=receipt.job, round=receipt.round, state=receipt.state,
                 reason=receipt.reason, earlier=earlier, labels=receipt.labels,
                 made=receipt.made and receipt.made.model_dump())  # fmt: skip
        case Advanced():
            pass
        case _:
            log.info(type(event).__name__.lower(), **{name: getattr(event, name) for name in event.__slots__})
