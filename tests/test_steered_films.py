"""From a manifest to films, as a user has it: poses from the web, a checkpoint in a models file, and models that have none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_flux
import yaml
from PIL import Image
from web_servers import Server, says

MODELS = """
[tiny]
source = "flux"
megapixels = 0.004
prompt_tokens = 77
control = {pose = "poses"}

[slow]
source = "flux"
weights = "tiny"
megapixels = 0.004
prompt_tokens = 77
steps = 12
max_steps = 20
"""
NIGHTREEL = (sys.executable, "-W", "error", "-m", "nightreel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    tiny_flux.build(folder / "weights/tiny")
    tiny_flux.build_control(folder / "weights/poses")
    (folder / "models.toml").write_text(MODELS)
    return folder


def nightreel(verb: str, folder: Path, jobs: list[dict[str, Any]], code: int, *trusted: str) -> str:
    """`nightreel render` or `enqueue` of these jobs; what it said."""
    output, shot = {"width": 64, "height": 64, "fps": 8}, {"duration": 0.5, "motion": "still", "seed": 1}
    document = {"batch": "b", "defaults": {"output": output, "shot": shot}, "jobs": jobs}
    (folder / "films.yaml").write_text(yaml.safe_dump(document))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")} | {
        "NIGHTREEL_MODELS": str(folder / "models.toml"),
        "NIGHTREEL_MODEL": "tiny",
        "NIGHTREEL_WEIGHTS": str(folder / "weights"),
        "NIGHTREEL_INPUT_HTTPS": "true",
        "NIGHTREEL_TRUSTED_HOSTS": ",".join(trusted),
    }
    done = subprocess.run(
        [*NIGHTREEL, verb, "films.yaml"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def rendered(folder: Path) -> tuple[str, int]:
    """Films of all kinds in `folder`; what was said of them, and how often the web was asked."""
    with Server(says(200, sticks())) as web:
        control = {"type": "pose", "image": web.url + "pose.png", "scale": 1.5, "end": 1.0}
        shot = {"prompt": "a dancer", "control": control}
        jobs: list[dict[str, Any]] = [
            {"id": "free", "shots": ["a dancer"]},
            {"id": "steered", "shots": [shot]},
            {"id": "walked", "shots": [shot | {"motion": {"walk": {"to": "a runner"}}, "duration": 1}]},
            {"id": "narrow", "shots": [shot | {"control": control | {"end": 0.2}}]},
            {"id": "pocket", "shots": ["a boat", shot], "render": {"model": "pocket"}},
            {"id": "card", "shots": [shot], "render": {"model": "testcard"}},
            {"id": "own", "shots": ["a sun"], "render": {"model": "slow"}},
            {"id": "four", "shots": ["a sun"], "render": {"model": "slow", "steps": 4}},
        ]
        said = nightreel("render", folder, jobs, 1, web.host)
        return said, len(web.requests)


def receipt(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"out/b/{name}.json").read_text())
    return found


def first_frame(folder: Path, name: str) -> np.ndarray[Any, Any]:
    capture = cv2.VideoCapture(str(folder / f"out/b/{name}.mp4"))
    return np.asarray(capture.read()[1]).astype(int)


def sticks() -> bytes:
    content = io.BytesIO()
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[16:80, 40:48], picture[32:40, 16:80] = (255, 0, 0), (0, 255, 85)
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def test_a_pose_from_the_web_steers_the_film(folder: Path, rendered: tuple[str, int]) -> None:
    assert "5 of 8 videos made" in rendered[0]
    made = receipt(folder, "steered")["made"]
    assert made["placement"].endswith("; control.pose: 0.00 GiB fp32 on cpu")
    assert made["inputs"] == [hashlib.sha256(sticks()).hexdigest()]
    free, steered, walked = (first_frame(folder, name) for name in ("free", "steered", "walked"))
    assert (
        np.abs(walked - steered).mean() < np.abs(free - steered).mean() / 3
    )  # x264 rounds, with an eye on what follows


def test_models_that_cannot_say_so_in_the_receipt_before_anything_is_fetched(
    folder: Path, rendered: tuple[str, int]
) -> None:
    reasons = {name: receipt(folder, name)["reason"] for name in ("pocket", "card", "narrow")}

    mend = "control checkpoint for pose: leave it out, take another model, or have the models file name one"
    assert reasons["pocket"] == f"shots[1].control: pocket has no {mend}"
    assert reasons["card"] == f"shots[0].control: testcard has no {mend}"
    assert reasons["narrow"].startswith("shots[0].control: none of a keyframe's 4 steps lies wholly between")
    assert {receipt(folder, name)["state"] for name in reasons} == {"failed"}
    assert rendered[1] == 2  # by the two jobs that were made


def test_a_models_own_steps_are_written_into_the_job(folder: Path, rendered: tuple[str, int]) -> None:
    (record,) = (folder / "out/.nightreel/batches").glob("*b*")
    asked = json.loads(record.read_text())["jobs"]
    steps = {job["id"]: json.loads(job["message"])["render"]["steps"] for job in asked}

    assert (steps["own"], steps["four"], steps["free"]) == (12, 4, 4)
    assert not np.array_equal(first_frame(folder, "own"), first_frame(folder, "four"))


def test_more_steps_than_a_model_takes_are_refused_at_once(folder: Path) -> None:
    jobs = [{"id": "long", "shots": ["a sun"], "render": {"steps": 9}}]

    said = nightreel("enqueue", folder, jobs, 2)

    assert "job long: render.steps: is 9; tiny takes 1 to 8: lower it, or leave it out for 4" in said
