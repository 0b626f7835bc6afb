"""Metrics: what the page tells, whom they go to, and that a run neither fails nor stays for them. Real exporters."""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from house import House, job
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from structlog.testing import capture_logs
from test_imports import imported_by
from test_run_page import receipt, report
from web_servers import Connection, Request, Server

from nightreel_queue.base import Backlog
from nightreel_worker.gpus import Gpu, Gpus
from nightreel_worker.metrics import METRICS, Reading
from nightreel_worker.telemetry import Exporter, Telemetry

PAGE = (Path(__file__).parent.parent / "docs/reference/metrics.md").read_text(encoding="utf-8")
SDK = {"opentelemetry", "prometheus_client", "pynvml", "google"}
LONG_S = 30.0
ACCOUNT = "worker@demo.iam.gserviceaccount.com"
READING = Reading(
    report(receipt("one"), receipt("bad", "failed", "no")),
    drawn=3,
    backlog=Backlog(ready=2),
    gpus=(Gpu("GPU-1", "NVIDIA L4", 0.5, 10, 20), Gpu("MIG-2", "a slice", None, 1, 2)),
)


@pytest.fixture
def collector() -> Iterator[Server]:
    """Takes whatever it is sent, as an OTLP collector does."""

    def reply(connection: Connection) -> None:
        body = ExportMetricsServiceResponse().SerializeToString()
        connection.answer(200, body, Content_Type="application/x-protobuf", Connection="close")

    with Server(reply) as server:
        yield server


def export(exporter: Exporter) -> list[dict[str, Any]]:
    """Let the metrics of READING go out once; the lines that were logged."""
    with capture_logs() as log:
        telemetry = Telemetry(exporter, "a-run", lambda: READING)
        telemetry.start()
        telemetry._opened.wait(LONG_S)
        telemetry.finish()
    return [dict(line) for line in log]


def sent(server: Server) -> tuple[Request, dict[str, Any]]:
    """The last request with metrics, and what it says: points by metric and attributes."""
    request = next(each for each in reversed(server.requests) if each.target == "/v1/metrics")
    message = ExportMetricsServiceRequest.FromString(request.body)
    [resource] = message.resource_metrics
    points: dict[str, Any] = {each.key: each.value.string_value for each in resource.resource.attributes}
    for metric in resource.scope_metrics[0].metrics:
        for point in (metric.sum or metric.gauge).data_points or metric.gauge.data_points:
            attributes = sorted(f"{each.key}={each.value.string_value}" for each in point.attributes)
            points[" ".join([metric.name, *attributes])] = point.as_int or point.as_double
    return request, points


# What there is


def test_the_page_tells_every_metric_with_its_kind_unit_and_attributes() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \| `(\S+)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)

    assert rows == [
        (each.name, each.kind, each.unit, attributes(each.name), each.meaning) for each in METRICS
    ]  # fmt: skip


def attributes(name: str) -> str:
    """Of a metric, with their values where these are few."""
    [metric] = [each for each in METRICS if each.name == name]
    found: dict[str, list[str]] = {}
    for _, its in metric.points(READING):
        for key, value in its.items():
            found.setdefault(key, []).append(value)
    if name == "nightreel.run.time":
        return "`stage`"
    if name.startswith("hw."):
        return ", ".join(f"`{key}`" for key in found)
    return "; ".join(f"`{key}`: {', '.join(values)}" for key, values in found.items()) or "-"


def test_no_attribute_names_a_job_or_a_batch() -> None:
    """There would be a time series for each."""
    values = [value for metric in METRICS for _, its in metric.points(READING) for value in its.values()]

    assert not {"one", "bad", "b"} & set(values)


def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    assert imported_by("nightreel_worker.telemetry", "nightreel_worker.metrics", "nightreel_worker.gpus") & SDK == set()


# A GPU


def test_a_machine_without_a_gpu_tells_of_none() -> None:
    """The driver's library is missing here; where it is not, this tells of as many as there are."""
    found = Gpus().read()

    assert all(each.total_bytes > 0 for each in found)
    assert found == () or Path("/dev/nvidia0").exists()


def test_a_machine_without_the_package_tells_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert Gpus().read() == ()


# Where they go


def test_a_collector_gets_them_by_otlp(collector: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.host}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "location=us-central1")

    log = export("otlp")

    assert [line["event"] for line in log] == ["metrics_on"]
    _, points = sent(collector)
    assert points["service.name"] == "nightreel-worker"
    assert points["service.instance.id"] == "a-run"
    assert points["location"] == "us-central1"
    assert points["nightreel.jobs state=done"] == points["nightreel.jobs state=failed"] == 1
    assert points["nightreel.keyframes origin=rendered"] == 3
    assert points["nightreel.queue.messages state=ready"] == 2
    assert points["nightreel.run.cost"] == pytest.approx(0.3)
    assert points["nightreel.run.time stage=render"] == pytest.approx(200.0)
    assert points["nightreel.run.cold_start"] == pytest.approx(100.0)
    assert points["hw.gpu.utilization hw.id=GPU-1 hw.name=NVIDIA L4"] == pytest.approx(0.5)
    assert points["hw.gpu.memory.usage hw.id=MIG-2 hw.name=a slice"] == 1
    assert "hw.gpu.utilization hw.id=MIG-2 hw.name=a slice" not in points


def test_google_gets_them_by_otlp_with_a_token_of_the_account(
    collector: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a service account of another universe than Google's own, so that nobody there is asked for tokens
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials(tmp_path)))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://{collector.host}/v1/metrics")

    log = export("gcp")

    assert [line["event"] for line in log] == ["metrics_on"], log
    request, points = sent(collector)
    _, claims, _ = request.headers["authorization"].removeprefix("Bearer ").split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (told["iss"], told["scope"]) == (ACCOUNT, "https://www.googleapis.com/auth/monitoring.write")
    assert points["nightreel.jobs state=done"] == 1


def credentials(folder: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "demo",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": ACCOUNT,
        "token_uri": "https://tokens.example/",
        "universe_domain": "universe.example",
    }
    (folder / "account.json").write_text(json.dumps(account))
    return folder / "account.json"


def test_names_are_such_as_cloud_monitoring_takes() -> None:
    """The Telemetry API refuses others."""
    for metric in METRICS:
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_:./]*", metric.name)
        for _, its in metric.points(READING):
            assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.]*", key) for key in its)


# What goes wrong


@pytest.mark.parametrize("exporter", ["prometheus", "otlp", "gcp"])
def test_without_the_package_a_line_says_what_to_install(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)

    [line] = export(exporter)

    assert (line["event"], line["log_level"]) == ("metrics_off", "warning")
    assert "pip install 'nightreel[metrics]'" in line["reason"]


def test_a_port_that_is_taken_is_a_line_in_the_log(collector: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(collector.port))

    [line] = export("prometheus")

    assert line["event"] == "metrics_off"
    assert "Address already in use" in line["reason"]


def test_credentials_that_are_missing_are_a_line_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    [line] = export("gcp")

    assert line["event"] == "metrics_off"
    assert "none.json" in line["reason"]


def test_figures_that_cannot_be_read_stop_nothing(collector: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.host}")

    def read() -> Reading:
        raise RuntimeError("the queue is closed")

    with capture_logs() as log:
        telemetry = Telemetry("otlp", "a-run", read)
        telemetry.start()
        telemetry._opened.wait(LONG_S)
        telemetry.finish()

    assert {line["event"] for line in log} == {"metrics_on", "metrics_trouble"}
    assert not logging.getLogger("opentelemetry").propagate  # to standard error, as lines that are no JSON


def test_a_worker_does_not_stay_for_a_collector_that_hangs(house: House) -> None:
    # Given a collector that takes connections and never answers, and an exporter that would wait for it
    def hang(connection: Connection) -> None:
        connection.closed.wait()

    with Server(hang) as server:
        house.enqueue(job("one", "x"))
        house.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{server.host}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        }

        # When a worker has done its work
        run = house.work(**(house.calm | {"metrics": "otlp", "idle_timeout_s": "0"}))

        # Then it has left, although it had asked
        assert run.code == 0, run.err
        assert run.report["done"] == 1
        assert server.clients > 0
