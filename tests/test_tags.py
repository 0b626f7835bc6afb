"""A film says what made it, to everyone who looks into the file, and nothing that is private."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nightreel_pipelines.base import Description
from nightreel_pipelines.encode import ffmpeg
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_pipelines.tags import tags
from nightreel_queue.job import Job

PROMPT = "a red sun over blue hills"
SPEC = ModelSpec(name="any", source="any", megapixels=0.004)


def job(*shots: dict[str, Any], **fields: Any) -> Job:
    """Resolved, as a worker gets it."""
    content = {"id": "sky", "batch": "b", "shots": shots} | fields
    return Job.model_validate_json(json.dumps(content)).resolved(model="any", batch="")


def of(asked: Job, description: Description) -> dict[str, str]:
    layout = plan(asked, SPEC, description, dict.fromkeys(asked.inputs, "5a" * 32))
    return dict(tags(asked, layout, SPEC.name))


def container(video: Path) -> dict[str, str]:
    """What ffmpeg reads in the file's header, as `ffprobe -show_format` would say it."""
    said = subprocess.run((ffmpeg(), "-hide_banner", "-i", str(video)), capture_output=True, text=True, check=False)
    header = said.stderr.partition("  Metadata:\n")[2].partition("  Duration:")[0]
    pairs = (line.partition(": ") for line in header.splitlines())
    return {name.strip(): value for name, _, value in pairs}


def test_a_rendered_film_names_its_job_its_model_and_nightreel(tmp_path: Path) -> None:
    # Given a job with a prompt, a label and a style
    fields = {"id": "sky", "labels": {"client": "secretive"}, "style_prefix": "in pastel"}
    output = {"width": 64, "height": 96, "fps": 8}
    asked = fields | {"output": output, "shots": [{"prompt": PROMPT, "duration": 0.5}]}
    (tmp_path / "evening.json").write_text(json.dumps({"jobs": [asked]}))

    # When it is rendered with pocket
    command = (sys.executable, "-m", "nightreel", "render", "evening.json", "--store", "out")
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=True)

    # Then the container says what the receipt says
    (video,) = tmp_path.glob("out/*/sky.mp4")
    receipt = json.loads(video.with_suffix(".json").read_text())
    made = receipt["made"]
    said = container(video)
    assert said["title"] == f"{receipt['batch']}/sky"
    assert said["comment"] == (
        f"fingerprint: {receipt['fingerprint']}; model: pocket; source: {made['source']}; revision: {made['revision']};"
        f" precision: {made['precision']}"
    )
    assert said["encoder"] == f"Nightreel {version('nightreel')}"

    # And nothing of what the author wrote, of this machine, of this run, or of the time
    content = video.read_bytes()
    private = (PROMPT, "in pastel", "secretive", str(tmp_path), receipt["run"])
    assert not [word for word in private if word.encode() in content]
    assert set(said) == {"major_brand", "minor_version", "compatible_brands", "title", "comment", "encoder"}


def test_a_model_without_weights_has_no_revision_to_tell() -> None:
    said = of(job({"prompt": PROMPT}), Description("card/1", "", "", "cpu"))

    assert said["comment"].partition("; ")[2] == "model: any; source: card/1"


def test_a_film_of_given_pictures_alone_names_no_model_because_none_made_it() -> None:
    asked = job({"image": "https://example.org/a.png"}, {"image": "https://example.org/b.png"})

    assert of(asked, Description("flux/1", "3f", "fp8", "cuda"))["comment"] == f"fingerprint: {asked.fingerprint}"


def test_the_machine_and_the_notices_of_a_job_leave_no_trace() -> None:
    asked = job({"prompt": PROMPT})
    told = job({"prompt": PROMPT}, notify={"topic": "films"}, labels={"client": "x"}, priority="urgent")

    assert of(asked, Description("flux/1", "3f", "fp8", "cuda")) == of(told, Description("flux/1", "3f", "fp8", "cpu"))


@pytest.mark.parametrize("field", ["source", "revision", "precision"])
def test_whatever_else_makes_other_keyframes_is_told(field: str) -> None:
    made = Description(source="flux/1", revision="3f", precision="fp8", device="cuda")
    change: dict[str, Any] = {field: "other"}
    changed = replace(made, **change)

    one, other = (of(job({"prompt": PROMPT}), each) for each in (made, changed))

    assert f"; {field}: {getattr(made, field)}" in one["comment"]
    assert f"; {field}: other" in other["comment"]
