"""scripts/deploy and scripts/destroy: the real gcloud against recorded APIs, Nightreel's own commands against emulators."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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

from nightreel_queue.pubsub_setup import check

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from deployment import grants, plan
from deployment.settings import DeployError, Settings, read_settings

URL = f"https://nightreel-dispatcher-{NUMBER}.us-central1.run.app"
CALLER = f"nightreel-caller@{PROJECT}.iam.gserviceaccount.com"
BUCKET = "demo-project-nightreel"


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
    desk: Desk, settings: Settings, emulator: Emulator, gcs_server: FakeGcs
) -> None:
    # Given an empty project, of which one part learns late of an account that was just made
    desk.environment |= {"PUBSUB_EMULATOR_HOST": emulator.host, "STORAGE_EMULATOR_HOST": gcs_server.url}
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
    assert made == EXPECTED
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
    assert plan.holds(sent["spec"], filled["spec"])
    key = base64.b64decode(desk.body("/secrets/nightreel-webhook:addVersion")["payload"]["data"]).decode()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", key)
    assert key not in first.stdout + first.stderr
    assert "nightreel-worker is ready" in first.stdout
    assert URL in first.stdout

    # When it is deployed again
    again = desk.deploy()

    # Then nothing is changed
    assert again.returncode == 0, again.stderr
    assert [change for change in desk.changes if "generateServiceIdentity" not in change] == []
    assert "is so already" in again.stdout

    # When somebody led the push elsewhere and took a role away, and the image's tag is another
    name = f"projects/{PROJECT}/subscriptions/films-manifests"
    desk.google.resources[f"pubsub/v1/{name}"]["pushConfig"]["pushEndpoint"] = "https://elsewhere.example"
    del desk.google.policies["secretmanager/v1/projects/demo-project/secrets/nightreel-webhook"]
    third = desk.run("deploy", "--tag", "t2", "--filled", str(desk.folder / "filled"))

    # Then these are mended, and nothing else
    assert third.returncode == 0, third.stderr
    assert [change for change in desk.changes if "generateServiceIdentity" not in change] == MENDED
    assert desk.google.resources[f"pubsub/v1/{name}"]["pushConfig"]["pushEndpoint"] == f"{URL}/events"

    # When it is taken down
    down = desk.run("destroy", "--yes")

    # Then all goes but the buckets and what is in them
    assert down.returncode == 0, down.stderr
    assert [change for change in desk.changes if change.startswith("DELETE storage")] == [
        f"DELETE storage v1/b/{BUCKET}/notificationConfigs/{REMOVED}"
    ]
    left = {key.rpartition("/")[2] for key in desk.google.resources}
    assert {f"{BUCKET}-weights", f"{BUCKET}-builds"} <= left
    assert not {"nightreel-worker", "nightreel-dispatcher", "films-manifests", "nightreel-webhook"} & left
    project = desk.google.policies[f"cloudresourcemanager/v1/projects/{PROJECT}"]
    assert project["bindings"] == []


EXPECTED: list[str] = []
MENDED: list[str] = []
REMOVED = "?"
