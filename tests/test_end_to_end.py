"""What the README promises, done as it says, with pocket FLUX."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from nightreel_pipelines.base import Picture

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {"harbour": (640, 360, 192), "long-evening": (360, 640, 192), "three-homes": (480, 480, 168)}


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command as a user would, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")}
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=600, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The README's first command, from another folder: where it put things, and what it said."""
    folder = tmp_path_factory.mktemp("user")
    command: tuple[str | Path, ...] = (ROOT / "scripts/render",)
    if not (ROOT / ".venv").exists():  # not run by scripts/test: do not install a second environment for it
        command = (sys.executable, "-m", "nightreel", "render")
    said = run(*command, ROOT / "examples/nightly.yaml", cwd=folder)
    batch = next(path for path in (folder / "out").iterdir() if path.name.startswith("nightly-"))
    return batch, said


def frames(video: Path) -> list[Picture]:
    capture = cv2.VideoCapture(str(video))
    found = []
    while (got := capture.read())[0]:
        found.append(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB).astype(np.uint8))
    return found


def test_the_example_makes_three_videos_with_posters_and_receipts(rendered: tuple[Path, str]) -> None:
    batch, said = rendered

    assert "3 of 3 videos made" in said
    assert {path.name for path in batch.iterdir()} == {"contact.sheet.jpg"} | {
        f"{name}{suffix}" for name in SHAPES for suffix in (".mp4", ".jpg", ".json")
    }
    for name, (width, height, count) in SHAPES.items():
        film = frames(batch / f"{name}.mp4")
        assert len(film) == count
        assert {frame.shape for frame in film} == {(height, width, 3)}
        assert cv2.imread(str(batch / f"{name}.jpg")) is not None
        receipt = json.loads((batch / f"{name}.json").read_text())
        assert (receipt["state"], receipt["attempts"], receipt["made"]["model"]) == ("done", 1, "pocket")


def test_the_pictures_show_what_the_prompts_say(rendered: tuple[Path, str]) -> None:
    """Coarsely, by light and colour: a person has to look at the rest."""
    batch, _ = rendered
    harbour = [frame.astype(float) for frame in frames(batch / "harbour.mp4")]
    noon, sunset, night = harbour[24], harbour[100], harbour[-5]
    sky = np.s_[:100]

    assert noon[sky].mean() > 1.5 * night[sky].mean()
    assert noon[sky][..., 2].mean() > noon[sky][..., 0].mean()  # a blue sky
    assert sunset[60:160][..., 0].mean() > sunset[60:160][..., 2].mean()  # a red one


def test_the_camera_moves_and_no_frame_is_a_copy_of_another(rendered: tuple[Path, str]) -> None:
    batch, _ = rendered
    film = frames(batch / "long-evening.mp4")

    assert len({frame.tobytes() for frame in film}) == len(film)


def test_a_second_render_does_no_model_work_and_says_so(rendered: tuple[Path, str]) -> None:
    batch, _ = rendered
    before = {path: path.read_bytes() for path in batch.iterdir()}

    said = run(sys.executable, "-m", "nightreel", "render", ROOT / "examples/nightly.yaml", cwd=batch.parent.parent)

    assert "All 3 videos were there already; no model work was done." in said
    assert {path: path.read_bytes() for path in batch.iterdir()} == before


def test_a_changed_camera_move_costs_no_keyframe(rendered: tuple[Path, str], tmp_path: Path) -> None:
    batch, _ = rendered
    text = (ROOT / "examples/nightly.yaml").read_text()
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace("pan: [0.12, 0]", "rotate: 5"))
    assert changed.read_text() != text

    said = run(sys.executable, "-m", "nightreel", "render", changed, cwd=batch.parent.parent)

    assert "0 keyframes rendered, 8 from the store" in said


def test_the_same_job_gives_the_same_frames_in_another_store(tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(
        "jobs: [{id: same, output: {width: 160, height: 96, fps: 8}, shots: [a red sun over blue hills, a boat]}]"
    )
    receipts = []
    for store in ("one", "two"):
        run(sys.executable, "-m", "nightreel", "render", "same.yaml", "--store", store, cwd=tmp_path)
        receipt = next((tmp_path / store).glob("same-*/same.json"))
        receipts.append(json.loads(receipt.read_text()))

    one, two = receipts
    assert one["video"]["digest"] == two["video"]["digest"]
    assert one["outputs"][0]["sha256"] == two["outputs"][0]["sha256"]
    assert one["run"] != two["run"]


def test_a_prompt_becomes_a_video_where_the_user_wants_it(tmp_path: Path) -> None:
    said = run(sys.executable, "-m", "nightreel", "render", "a red sun over blue hills", "-o", "sun.mp4", cwd=tmp_path)

    assert said.splitlines()[-1] == "sun.mp4"
    assert len(frames(tmp_path / "sun.mp4")) == 120


def test_enqueue_and_work_are_the_same_in_two_steps(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/storyboard.jsonl", tmp_path / "manifest.jsonl")
    nightreel = (sys.executable, "-m", "nightreel")

    run(*nightreel, "enqueue", "manifest.jsonl", "--queue", "sqlite:///nightreel.db", cwd=tmp_path)
    run(*nightreel, "work", "--queue", "sqlite:///nightreel.db", "--store", "out/", cwd=tmp_path)
    status = json.loads(
        run(*nightreel, "status", "--queue", "sqlite:///nightreel.db", "--store", "out/", "--json", cwd=tmp_path)
    )

    assert [batch["open"] for batch in status["batches"]] == [0]
    assert status["batches"][0]["done"] == status["batches"][0]["jobs"]
