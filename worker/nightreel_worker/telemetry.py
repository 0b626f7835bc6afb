"""Metrics to whoever collects them, by OpenTelemetry: the only module that imports its SDK, and only when it is asked to.

All of it happens in threads that a process does not wait for. What goes wrong is a line in the log: a run neither fails
nor stays for its metrics.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import structlog

from .metrics import METRICS, Metric, Reading

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics.export import MetricReader

log = structlog.get_logger()

Exporter = Literal["none", "prometheus", "otlp", "gcp"]
GOOGLE = "https://telemetry.googleapis.com/v1/metrics"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/monitoring.write"
SAME_S = 0.5  # for which a reading serves all metrics
OPEN_S = 1.0  # that a short run's end waits for what is still being set up


class Telemetry:
    """Exports the metrics of one run. `start` and `finish` return whatever happens."""

    def __init__(self, exporter: Exporter, run: str, read: Callable[[], Reading]) -> None:
        self._exporter, self._run, self._read = exporter, run, read
        self._latest: tuple[float, Reading] | None = None
        self._opened = threading.Event()
        self._closing: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Set up in the background: the SDK takes a while to import, and work does not wait for it."""
        if self._exporter != "none":
            threading.Thread(target=self._open, name="metrics", daemon=True).start()

    def finish(self) -> None:
        """Export what there is now, and stop. Takes as long as the receiver does: give it a thread of its own."""
        if self._exporter == "none" or not self._opened.wait(OPEN_S):
            return
        for close in self._closing:
            try:
                close()
            except Exception as exc:  # noqa: BLE001  # whatever an exporter raises is no reason to fail
                log.warning("metrics_not_exported", reason=str(exc))

    def _open(self) -> None:
        try:
            self._set_up()
        except ImportError as exc:
            log.warning("metrics_off", reason=f"run: pip install 'nightreel[metrics]' ({exc})")
        except Exception as exc:  # noqa: BLE001  # a port that is taken, credentials that are missing, a wrong OTEL_ variable
            log.warning("metrics_off", reason=f"{type(exc).__name__}: {exc}")
        self._opened.set()

    def _set_up(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        _quieten()
        reader, close = _readers[self._exporter]()
        resource = Resource.create(
            {
                "service.name": "nightreel-worker",
                "service.version": importlib.metadata.version("nightreel"),
                "service.instance.id": self._run,
            }
        )
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter("nightreel")
        for metric in METRICS:
            make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            make(metric.name, [self._observed(metric)], unit=metric.unit, description=metric.meaning)
        self._closing += [provider.shutdown, close]
        log.info("metrics_on", exporter=self._exporter)

    def _observed(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        from opentelemetry.metrics import Observation

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for value, attributes in metric.points(self._now()):
                yield Observation(value, attributes)

        return observe

    def _now(self) -> Reading:
        with self._lock:
            if self._latest is None or time.monotonic() - self._latest[0] > SAME_S:
                self._latest = time.monotonic(), self._read()
            return self._latest[1]


def _prometheus() -> tuple[MetricReader, Callable[[], object]]:
    """A page for a Prometheus server to fetch. Address and port are those of OpenTelemetry's own variables."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost")
    server, _ = start_http_server(int(os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "9464")), host, registry)
    log.info("metrics_served", address=f"http://{host}:{server.server_port}/metrics")

    def close() -> None:
        server.shutdown()
        server.server_close()

    return reader, close


def _otlp() -> tuple[MetricReader, Callable[[], object]]:
    """To a collector, as OTEL_EXPORTER_OTLP_ENDPOINT and its kin say."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return PeriodicExportingMetricReader(OTLPMetricExporter()), lambda: None


def _gcp() -> tuple[MetricReader, Callable[[], object]]:
    """To Cloud Monitoring, which takes OTLP; Google gives up its own exporters in favour of that."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    credentials, _ = google.auth.default(scopes=[GOOGLE_SCOPE])
    session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]  # google-auth has annotations in part
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", GOOGLE)
    return PeriodicExportingMetricReader(OTLPMetricExporter(endpoint, session=session)), session.close


_readers: Mapping[Exporter, Callable[[], tuple[MetricReader, Callable[[], object]]]] = {
    "prometheus": _prometheus,
    "otlp": _otlp,
    "gcp": _gcp,
}


class _ToLog(logging.Handler):
    """What the SDK has to say, as lines of ours: a receiver that is down is no news each time."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            log.warning("metrics_trouble", reason=record.getMessage()[:500])


def _quieten() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(each, _ToLog) for each in logger.handlers):
        logger.addHandler(_ToLog(logging.WARNING))
    logger.propagate = False
