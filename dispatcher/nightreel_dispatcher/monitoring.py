"""Google's SDK for Cloud Monitoring: how many messages of a subscription are not acked yet. The only module that imports it.

The figures are sampled once a minute and can be seen up to two minutes later; an idle subscription may have none.
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import NamedTuple

import grpc  # type: ignore[import-untyped]  # has no types
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.monitoring_v3 import ListTimeSeriesRequest, MetricServiceClient, TimeInterval, TimeSeries
from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport

from .backlog import NoFigures, Unacked

COUNT = "pubsub.googleapis.com/subscription/num_undelivered_messages"
AGE = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
BACK = dt.timedelta(minutes=10)  # how far back a last point is looked for: older ones say nothing of now
IDLE_S = 180.0  # a subscription that has no sample for so long, while the other one has, is idle
CALL_S = 20.0


class _Point(NamedTuple):
    value: int
    at: float


class Monitoring:
    """The figures of one queue. Safe to use from several threads."""

    def __init__(self, project: str, subscription: str, urgent: str, channel: grpc.Channel | None = None) -> None:
        """The two subscriptions of a queue. channel: to another server than Google's."""
        self._project, self._subscription, self._urgent, self._channel = project, subscription, urgent, channel
        self._lock = threading.Lock()
        self._client: MetricServiceClient | None = None

    def unacked(self) -> Unacked | None:
        """As in the protocol: the older of two samples is when they were taken."""
        try:
            counts = self._latest(COUNT)
            ages = self._latest(AGE) if any(point.value for point in counts.values()) else {}
        except (exceptions.PermissionDenied, exceptions.Unauthenticated, DefaultCredentialsError) as exc:
            raise NoFigures(
                f"Cloud Monitoring of {self._project} may not be read ({_first_line(exc)}): grant roles/monitoring.viewer"
            ) from exc
        except (exceptions.GoogleAPICallError, exceptions.RetryError) as exc:
            raise NoFigures(f"Cloud Monitoring of {self._project} does not answer ({_first_line(exc)})") from exc
        if not counts:
            return None
        at = min(point.at for point in counts.values())
        urgent = counts[self._urgent].value if self._urgent in counts else 0
        oldest_s = max((point.value for point in ages.values()), default=0)
        return Unacked(at, sum(point.value for point in counts.values()), urgent, oldest_s)

    def _latest(self, metric: str) -> dict[str, _Point]:
        """The latest sample of each subscription that has one."""
        names = f'"{self._subscription}", "{self._urgent}"'
        now = dt.datetime.now(dt.UTC)
        request = ListTimeSeriesRequest(
            name=f"projects/{self._project}",
            filter=f'metric.type = "{metric}" AND resource.labels.subscription_id = one_of({names})',
            interval=TimeInterval(start_time=now - BACK, end_time=now),
            view=ListTimeSeriesRequest.TimeSeriesView.FULL,
        )
        series = self._open().list_time_series(request, timeout=CALL_S, retry=None)
        found = {each.resource.labels["subscription_id"]: _latest_point(each) for each in series if each.points}
        newest = max((point.at for point in found.values()), default=0.0)
        return {name: point for name, point in found.items() if newest - point.at < IDLE_S}

    def _open(self) -> MetricServiceClient:
        """At the first use, so that a dispatcher starts without credentials and says what is missing."""
        with self._lock:
            if self._client is None:
                transport = MetricServiceGrpcTransport(channel=self._channel) if self._channel else None
                self._client = MetricServiceClient(transport=transport)
            return self._client


def _latest_point(series: TimeSeries) -> _Point:
    """Of a series that has some; the API gives the latest first, and does not promise it."""
    latest = max(series.points, key=lambda point: point.interval.end_time)
    return _Point(latest.value.int64_value, latest.interval.end_time.timestamp())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
