"""The gallery: its page, its manifest, its script and its pictures belong together, and nothing is left out."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from nightreel_pipelines.encode import Encoder
from nightreel_queue.job import Job
from nightreel_queue.manifest import load_manifest
from nightreel_queue.motions import Move
from nightreel_queue.transitions import Direction, Transition

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import gallery

IMAGES = ROOT / "docs" / "images"
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
FOLDERS = ("motions", "moves", "transitions")
MOST_BYTES, MOST_SHEET_BYTES = 1_500_000, 60_000


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, ...]:
    return load_manifest(gallery.MANIFEST).jobs


def shown() -> list[str]:
    return re.findall(r"^!\[.+\]\(images/(.+)\)$", PAGE, flags=re.MULTILINE)


def test_every_picture_is_on_the_page_once_and_no_other() -> None:
    there = [str(path.relative_to(IMAGES)) for folder in FOLDERS for path in (IMAGES / folder).iterdir()]

    assert sorted(shown()) == sorted(there)


def test_every_video_of_the_manifest_has_its_sheet(jobs: tuple[Job, ...]) -> None:
    sheets = [f"{str(job.id).replace('-', '/', 1)}.jpg" for job in jobs]

    assert sorted(sheets) == sorted(set(shown()) - {f"motions/{gallery.SKETCH}"})


def test_each_line_of_a_manifest_on_the_page_is_one_of_the_example() -> None:
    example = gallery.MANIFEST.read_text(encoding="utf-8")
    lines = re.findall(r"^    (\w+: .+)$", PAGE, flags=re.MULTILINE)

    assert len(lines) >= 17
    assert [line for line in lines if line not in example] == []


def test_the_pictures_are_small() -> None:
    sizes = {path: path.stat().st_size for folder in FOLDERS for path in (IMAGES / folder).iterdir()}

    assert sum(sizes.values()) < MOST_BYTES
    assert max(sizes.values()) < MOST_SHEET_BYTES


def choices(name: str) -> set[Any]:
    return set(get_args(Transition.model_fields[name].annotation))


def test_every_transition_is_shown_in_every_direction(jobs: tuple[Job, ...]) -> None:
    found = [job.transition_after(0)[0] for job in jobs if len(job.shots) > 1]

    assert {each.type for each in found} == choices("type")
    assert {each.direction or "left" for each in found if each.type == "slide"} == set(get_args(Direction))


def test_every_motion_is_shown(jobs: tuple[Job, ...]) -> None:
    shots = [shot for job in jobs for shot in job.shots]
    kinds = {type(shot.motion).__name__ for shot in shots}
    fields = {name for shot in shots if isinstance(shot.motion, Move) for name in shot.motion.model_fields_set}

    assert kinds == {"str", "Move", "WalkMotion", "FeedbackMotion"}
    assert fields == set(Move.model_fields)
    assert any(shot.init for shot in shots)


def test_a_sheet_shows_the_frames_of_its_video_in_order(tmp_path: Path) -> None:
    # Given a video that becomes brighter
    video = tmp_path / "film.mp4"
    with Encoder(video, width=160, height=90, fps=12, crf=10, preset="ultrafast") as encoder:
        for index in range(36):
            encoder.write(np.full((90, 160, 3), 6 * index, dtype=np.uint8))

    # When its sheets are made
    for kind, (columns, width), wanted in (
        ("moves", gallery.LARGE, np.linspace(0, 35, 8).round() * 6),
        ("transitions", gallery.SMALL, np.arange(12, 24) * 6),
    ):
        page = np.asarray(gallery.sheet(video, kind))
        height = page.shape[0] // gallery.ROWS

        # Then each tile is as bright as its frame
        tiles = itertools.product(range(gallery.ROWS), range(columns))
        levels = [int(page[row * height + 9, column * (width + gallery.GAP_PX) + 9, 0]) for row, column in tiles]
        assert np.abs(np.array(levels) - wanted).max() <= 3


def test_the_sketch_on_the_page_is_the_one_that_the_script_serves() -> None:
    kept = np.asarray(Image.open(IMAGES / "motions" / gallery.SKETCH).convert("RGB")).astype(int)

    assert np.abs(cv2.blur(kept - np.asarray(gallery.sketch()).astype(float), (5, 5))).mean() < 2
