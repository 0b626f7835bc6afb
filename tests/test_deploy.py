"""scripts/deploy and scripts/destroy: the real gcloud against recorded APIs, Nightreel's own commands against emulators."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_google
import gcloud_server
import pytest
import yaml
from fake_gcs import FakeGcs
from fake_google import NUMBER, PROJECT, Asked, FakeGoogle
from pubsub_emulator import Emulator

from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_queue.pubsub_setup import check

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from deployment import alerts, grants
from deployment.settings import DeployError, Settings, read_settings
from deployment.steps import holds

URL = f"https://nightreel-dispatcher-{NUMBER}.us-central1.run.app"
CALLER = f"nightreel-caller@{PROJECT}.iam.gserviceaccount.com"
BUCKET = "demo-project-nightreel"


MADE = [
    "POST serviceusage projects/demo-project/services:batchEnable",
    "POST artifactregistry projects/demo-project/locations/us-central1/repositories",
    "POST storage v1/b",
    "POST storage v1/b",
    "POST iam projects/demo-project/serviceAccounts",
    "POST iam projects/demo-project/serviceAccounts",
    "POST iam projects/demo-project/serviceAccounts",
    "POST iam projects/demo-project/serviceAccounts",
    "POST secretmanager projects/demo-project/secrets",
    "POST secretmanager projects/demo-project/secrets/nightreel-webhook:addVersion",
    "POST secretmanager projects/demo-project/secrets",
    "POST secretmanager projects/demo-project/secrets/nightreel-console:addVersion",
    "PUT pubsub projects/demo-project/topics/films-manifests",
    "POST serviceusage projects/demo-project/services/pubsub.googleapis.com:generateServiceIdentity",
    "POST storage upload/storage/v1/b/demo-project-nightreel-builds/o",
    "PUT storage demo-project-nightreel-builds",
    "POST cloudbuild projects/demo-project/locations/us-central1/builds",
    "POST run run.googleapis.com/v1/namespaces/demo-project/jobs",
    "POST run serving.knative.dev/v1/namespaces/demo-project/services",
    "POST storage v1/b/demo-project-nightreel/notificationConfigs",
    "PUT pubsub projects/demo-project/subscriptions/films-manifests",
    "POST cloudscheduler projects/demo-project/locations/us-central1/jobs",
    "POST monitoring projects/demo-project/notificationChannels",
    *["POST monitoring projects/demo-project/alertPolicies"] * len(alerts.FILES),
]
"""All that is changed in an empty project, policies apart."""


MENDED = [
    "nightreel-webhook:setIamPolicy",
    "o",
    "PUT storage demo-project-nightreel-builds",
    "builds",
    "nightreel-worker",
    "nightreel-dispatcher",
    "films-manifests",
    "nightreel-memory-runs-out",
]
"""A role, the source of an image, its upload, its build, both users of the image, the push, and an alert."""


@dataclass
class Desk:
    """Where an operator sits: a deploy.env, gcloud and nightreel, all led to what is recorded here."""

    folder: Path
    google: FakeGoogle
    environment: dict[str, str]

    def run(self, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
        self.google.asked.clear()
        command = [str(ROOT / "scripts" / script), "--settings", str(self.folder / "deploy.env"), *flags]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=300
        )

    def deploy(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.run("deploy", "--tag", "t1", "--filled", str(self.folder / "filled"), *flags)

    @property
    def changes(self) -> list[str]:
        """What Google was told to change, in order, without what is read."""
        return [f"{asked.method} {asked.api} {asked.path.split('/', 1)[1]}" for asked in self.google.changes]

    def body(self, ending: str) -> Any:
        """Of the last request of change to a path with this ending."""
        return [asked.body for asked in self.google.changes if asked.path.endswith(ending)][-1]


def write_settings(folder: Path, **changed: str) -> Path:
    """deploy.env.example, for the demo project, with these lines changed."""
    text = (ROOT / "deploy.env.example").read_text().replace("my-project", PROJECT)
    for key, value in changed.items():
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
    (folder / "deploy.env").write_text(text)
    return folder / "deploy.env"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(write_settings(tmp_path))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Without emulators: nothing gets as far as Nightreel's own commands."""
    sdk = gcloud_server.find_sdk()
    if sdk is None:
        pytest.skip("needs the gcloud CLI: https://cloud.google.com/sdk/docs/install")
    write_settings(tmp_path)
    with fake_google.running() as google, gcloud_server.serving(sdk, tmp_path) as programs:
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        yield Desk(tmp_path, google, os.environ | google.environment(tmp_path / "config") | {"PATH": path})


def grants_of(settings: Settings, google: FakeGoogle) -> set[tuple[str, str, str]]:
    """Thing, role and member of every binding that was made."""
    return {
        (path.rpartition("/")[2], binding["role"], member)
        for path, policy in google.policies.items()
        for binding in policy["bindings"]
        for member in binding["members"]
    }


def test_a_deployment_is_made_once_mended_where_it_was_changed_and_taken_down(
    desk: Desk, settings: Settings, emulator: Emulator, gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an empty project, of which one part learns late of an account that was just made
    write_settings(desk.folder, ALERT_EMAIL="somebody@example.com")
    desk.environment |= {"PUBSUB_EMULATOR_HOST": emulator.host, "STORAGE_EMULATOR_HOST": gcs_server.url}
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    late = [1]

    def refuse(asked: Asked) -> tuple[int, dict[str, Any]] | None:
        if asked.path.endswith("films:setIamPolicy") and late:
            late.pop()
            return 400, {"error": {"code": 400, "message": "Service account nightreel-worker does not exist."}}
        return None

    desk.google.refuse = refuse

    # When it is deployed
    first = desk.deploy()

    # Then everything is there, in an order in which each part finds what it needs
    assert first.returncode == 0, first.stderr + first.stdout
    assert "once more in 1 s" in first.stdout
    made = [change for change in desk.changes if "IamPolicy" not in change and not change.endswith("/iam")]
    assert made == MADE
    assert check(f"pubsub://{PROJECT}/films") == []
    expected = {
        (grants.thing(settings, grant), grant.role, grants.member(settings, grant.account, NUMBER))
        for grant in grants.BEFORE + grants.AFTER
    }
    assert grants_of(settings, desk.google) == expected
    assert desk.body("/subscriptions/films-manifests")["pushConfig"] == {
        "pushEndpoint": f"{URL}/events",
        "oidcToken": {"serviceAccountEmail": CALLER, "audience": URL},
    }
    tick = desk.body("/locations/us-central1/jobs")
    assert (tick["schedule"], tick["httpTarget"]["uri"]) == ("*/5 * * * *", f"{URL}/tick")
    assert tick["httpTarget"]["oidcToken"] == {"serviceAccountEmail": CALLER, "audience": URL}
    notice = desk.body(f"b/{BUCKET}/notificationConfigs")
    assert (notice["event_types"], notice["object_name_prefix"]) == (["OBJECT_FINALIZE"], "films/manifests/")
    filled = yaml.safe_load((desk.folder / "filled" / "cloudrun-jobs.yaml").read_text())
    sent = desk.body(f"/namespaces/{PROJECT}/jobs")
    assert holds(sent["spec"], filled["spec"])
    key = base64.b64decode(desk.body("/secrets/nightreel-webhook:addVersion")["payload"]["data"]).decode()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", key)
    token = base64.b64decode(desk.body("/secrets/nightreel-console:addVersion")["payload"]["data"]).decode()
    assert DispatcherSettings(token=token).guarded
    assert not [told for told in (key, token) if told in first.stdout + first.stderr]
    service = desk.body(f"/namespaces/{PROJECT}/services")["spec"]["template"]["spec"]["containers"][0]
    read = next(each["valueFrom"] for each in service["env"] if each["name"] == "NIGHTREEL_DISPATCHER_TOKEN")
    assert read["secretKeyRef"]["name"] == "nightreel-console"
    assert "nightreel-worker is ready" in first.stdout
    assert URL in first.stdout

    channel = desk.body("/notificationChannels")
    assert (channel["type"], channel["labels"]) == ("email", {"email_address": "somebody@example.com"})
    policies = [its for key, its in desk.google.resources.items() if "/alertPolicies/" in key]
    told = f"projects/{PROJECT}/notificationChannels/nightreel-operator"
    assert [each["notificationChannels"] for each in policies] == [[told]] * len(alerts.FILES)

    # When it is deployed again, after somebody led the push elsewhere, took a role away and changed an alert, with another tag
    name = f"projects/{PROJECT}/subscriptions/films-manifests"
    desk.google.resources[f"pubsub/v1/{name}"]["pushConfig"]["pushEndpoint"] = "https://elsewhere.example"
    del desk.google.policies["secretmanager/v1/projects/demo-project/secrets/nightreel-webhook"]
    [changed] = [each for each in policies if each["displayName"] == "nightreel: memory runs out"]
    changed["conditions"][0]["conditionThreshold"]["thresholdValue"] = 0.99
    again = desk.run("deploy", "--tag", "t2", "--filled", str(desk.folder / "filled"))

    # Then these are mended, and nothing else is changed
    assert again.returncode == 0, again.stderr
    assert [change.rpartition("/")[2] for change in desk.changes if "generateServiceIdentity" not in change] == MENDED
    assert desk.google.resources[f"pubsub/v1/{name}"]["pushConfig"]["pushEndpoint"] == f"{URL}/events"
    assert (
        desk.body("/alertPolicies/nightreel-memory-runs-out")["conditions"][0]["conditionThreshold"]["thresholdValue"]
        == 0.875
    )

    # When it is taken down
    down = desk.run("destroy", "--yes")

    # Then all goes but the buckets and what is in them
    assert down.returncode == 0, down.stderr
    assert [change for change in desk.changes if change.startswith("DELETE storage")] == [
        f"DELETE storage v1/b/{BUCKET}/notificationConfigs/1"
    ]
    left = {key.rpartition("/")[2] for key in desk.google.resources}
    assert {f"{BUCKET}-weights", f"{BUCKET}-builds"} <= left
    assert (
        not {"nightreel-worker", "nightreel-dispatcher", "films-manifests", "nightreel-webhook", "nightreel-console"}
        & left
    )
    assert not [key for key in desk.google.resources if key.startswith("monitoring/")]
    project = desk.google.policies[f"cloudresourcemanager/v1/projects/{PROJECT}"]
    assert project.get("bindings", []) == []


def test_a_dry_run_prints_every_command_with_its_reason_and_asks_nobody(desk: Desk) -> None:
    result = desk.deploy("--dry-run")

    assert result.returncode == 0, result.stderr
    assert desk.google.asked == []
    lines = result.stdout.splitlines()
    commands = [number for number, line in enumerate(lines) if re.match(r"gcloud|nightreel", line)]
    assert len(commands) == 21 + len(grants.BEFORE + grants.AFTER) + len(alerts.FILES)
    assert [lines[number] for number in commands if not lines[number - 1].startswith("#")] == []
    assert "whsec_" not in result.stdout


def test_what_is_sent_to_be_built_is_what_the_images_copy(desk: Desk) -> None:
    listed = subprocess.run(
        ["gcloud", "meta", "list-files-for-upload", str(ROOT)],
        env=desk.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    sent = {path.partition("/")[0] for path in listed}

    copied = {
        file
        for name in ("Dockerfile", "dispatcher.Dockerfile")
        for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / name).read_text(), re.MULTILINE)
        for file in line.split()[:-1]
    }
    assert sent == copied - {"weights"} | {"Dockerfile", "dispatcher.Dockerfile", ".dockerignore"}
    assert "worker/nightreel_worker/prices.toml" in listed
    assert [path for path in listed if "__pycache__" in path] == []


def test_without_quota_nothing_is_built(desk: Desk) -> None:
    desk.google.quota = 0

    result = desk.deploy()

    assert result.returncode == 1
    assert "https://g.co/cloudrun/gpu-quota" in result.stderr
    assert [asked.api for asked in desk.google.changes] == ["serviceusage"]


def test_a_project_that_is_not_there_is_told_with_its_mend(desk: Desk) -> None:
    desk.google.refuse = lambda asked: (404, fake_google.not_found("project"))

    assert f"gcloud projects create {PROJECT}" in desk.deploy().stderr


def test_a_takedown_wants_a_yes(desk: Desk) -> None:
    result = desk.run("destroy")

    assert result.returncode == 1
    assert "give --yes" in result.stderr
    assert desk.google.changes == []


def test_mistakes_in_the_settings_are_told_by_line_all_at_once(tmp_path: Path) -> None:
    path = write_settings(tmp_path, REGION="us-west1", MAX_WORKERS="0", NIGHTLY="25:00")
    path.write_text(path.read_text().replace("PRICE=", "PRIZE="))

    with pytest.raises(DeployError) as error:
        read_settings(path)

    told = str(error.value).splitlines()
    assert len(told) == 5
    assert all(re.match(r"deploy\.env(:\d+)?: ", line) for line in told)
    for name in ("REGION must be a region with L4 GPUs", "PRIZE", "MAX_WORKERS", "NIGHTLY", "PRICE is missing"):
        assert name in str(error.value)


def test_settings_that_are_missing_are_told_how_to_make(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"cp deploy\.env\.example"):
        read_settings(tmp_path / "deploy.env")


def test_a_monthly_budget_goes_to_the_workers_and_may_be_left_out(tmp_path: Path) -> None:
    job = (ROOT / "cloudrun-jobs.yaml").read_text()

    def told(path: Path) -> str:
        filled = read_settings(path).fill(job, number="1", tag="t1")
        environment = yaml.safe_load(filled)["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"]
        return str(next(each["value"] for each in environment if each["name"] == "NIGHTREEL_MONTHLY_USD"))

    path = write_settings(tmp_path, MONTHLY_USD="50")
    assert told(path) == "50"
    path.write_text(path.read_text().replace("MONTHLY_USD=50\n", ""))  # of an earlier version
    assert told(path) == ""
    with pytest.raises(DeployError, match="MONTHLY_USD must be US dollars that all runs of a month may cost"):
        read_settings(write_settings(tmp_path, MONTHLY_USD="much"))


def test_the_docs_tell_exactly_what_is_granted() -> None:
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text()
    table = re.findall(r"^\| (\S+) \| `(roles/\S+)` \| (\S+)(?: `(\S+)`)? \| (.+) \|$", page, re.MULTILINE)

    granted = [
        (each.account, each.role, each.kind, re.sub("[{}]", "", each.thing).upper(), each.why)
        for each in grants.BEFORE + grants.AFTER
    ]
    assert table == granted
