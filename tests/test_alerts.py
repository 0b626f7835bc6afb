"""Alert policies: each is a message that Cloud Monitoring knows, speaks of metrics that are there, and says what to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.monitoring_v3 import AlertPolicy
from google.protobuf import json_format

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from deployment import alerts
from deployment.settings import Settings, read_settings

from nightreel_worker.logs import LAST
from nightreel_worker.metrics import METRICS

by_file = pytest.mark.parametrize("file", alerts.FILES, ids=lambda file: file.stem)
GOOGLES = {
    "pubsub.googleapis.com/subscription/oldest_unacked_message_age",
    "run.googleapis.com/container/gpu/memory_usages",
    "run.googleapis.com/container/gpu/utilizations",
    "run.googleapis.com/container/memory/utilizations",
}
"""Cloud Run's and Pub/Sub's own metrics that policies may speak of: others are mistakes, or belong in here."""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings(ROOT / "deploy.env.example")


def filled(file: Path, settings: Settings) -> Any:
    return yaml.safe_load(settings.fill(file.read_text(), number="", tag=""))


@by_file
def test_a_policy_has_only_fields_that_cloud_monitoring_knows(file: Path, settings: Settings) -> None:
    message = AlertPolicy.pb(AlertPolicy())
    json_format.ParseDict(filled(file, settings), message)

    assert message.conditions
    assert all(each.WhichOneof("condition") for each in message.conditions)
    assert message.documentation.content.count("`") % 2 == 0
    assert message.user_labels["app"] == settings.name


@by_file
def test_a_policy_speaks_of_metrics_that_there_are(file: Path, settings: Settings) -> None:
    text = str(filled(file, settings))
    own = {metric.name for metric in METRICS}

    assert set(re.findall(r'metric\.type="([^"]+)"', text)) <= GOOGLES
    assert set(re.findall(r'\{"([^"]+)"', text)) <= own
    assert "${" not in text


@by_file
def test_a_threshold_is_watched_for_no_longer_than_a_policy_may(file: Path, settings: Settings) -> None:
    """25 hours, by its documentation; a log's policy must say how often it tells at most, and has one condition."""
    for condition in (policy := filled(file, settings))["conditions"]:
        if "conditionThreshold" in condition:
            [aggregation] = condition["conditionThreshold"]["aggregations"]
            assert 60 <= int(aggregation["alignmentPeriod"].removesuffix("s")) <= 90_000
        if "conditionMatchedLog" in condition:
            assert "notificationRateLimit" in policy["alertStrategy"]
            assert len(policy["conditions"]) == 1


def test_the_policy_of_failed_jobs_looks_for_the_line_that_a_worker_writes(settings: Settings) -> None:
    [condition] = filled(alerts.FILES[0], settings)["conditions"]

    assert f'jsonPayload.message="{LAST}"' in condition["conditionMatchedLog"]["filter"]


def test_what_waits_is_an_alert_two_hours_after_a_worker_should_have_come(settings: Settings) -> None:
    file = next(each for each in alerts.FILES if each.stem == "waiting")
    [condition] = filled(file, settings)["conditions"]

    assert condition["conditionThreshold"]["thresholdValue"] == int(settings.max_wait_s) + 7200


def test_the_page_tells_every_policy() -> None:
    page = (ROOT / "docs/how-to/observe.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| `(\w+)\.yaml` \|", page, re.MULTILINE) == [file.stem for file in alerts.FILES]
