"""structlog, set up once: JSON in Cloud Logging's fields, or lines for a person."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .settings import Settings


def configure(settings: Settings, level: str | None = None) -> None:
    """Send every log line to standard error, from `level` (default: the setting's) upwards."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    last: list[Processor] = (
        [_cloud_fields, structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
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


def _cloud_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Rename what Cloud Logging knows under other names: `severity`, `message`."""
    fields: dict[str, Any] = {"severity": str(event.pop("level")).upper(), "message": event.pop("event")}
    return fields | dict(event)
