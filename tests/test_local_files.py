"""Pictures on the user's own disk: copied into the store by content, and nothing else of the disk is ever read."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import House, Run, verdict
from test_inputs import BLUE, RED, colors, near, picture, showing

from nightreel_queue import local_files
from nightreel_queue.errors import InvalidJob
from nightreel_queue.manifest import load_manifest
from nightreel_queue.problems import parse_job
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError
from nightreel_storage.folder import FolderStore
from nightreel_storage.inputs import REFRESH_DAYS, Changed, StoredInputs, input_name
from nightreel_worker.errors import Missing, TooLarge
from nightreel_worker.inputs import Inputs, Rules
from nightreel_worker.web import Web

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HEAD = """
batch: b
defaults:
  render: {model: faulty}
  output: {width: 64, height: 64, fps: 8}
  transition: {type: cut}
  shot: {duration: 0.5, motion: still}
jobs:
"""
FILM = "- {id: film, shots: [{image: pictures/red.png}, {image: more/blue.webp}]}\n"


def address(content: bytes, kind: str = "png") -> str:
    return f"input:sha256:{hashlib.sha256(content).hexdigest()}.{kind}"


def write_pictures(folder: Path) -> None:
    for name, color in {"pictures/red.png": RED, "pictures/again.png": RED, "more/blue.webp": BLUE}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture(color))  # a PNG, whatever it is called


def nightreel(house: House, *arguments: str, **settings: str) -> Run:
    return house.work(sys.executable, "-m", "nightreel", *arguments, **settings)


def inputs_of(house: House) -> list[str]:
    return [entry.name.rpartition("/")[2] for entry in house.store.list(".nightreel/inputs/")]


def test_pictures_are_copied_by_content_and_shown_by_workers_elsewhere(any_house: House) -> None:
    write_pictures(any_house.folder)
    rest = "- {id: other, shots: [{image: pictures/again.png}, {prompt: x, init: {image: pictures/red.png}}]}\n"
    (any_house.folder / "films.yaml").write_text(HEAD + FILM + rest)

    run = nightreel(any_house, "enqueue", "films.yaml")
    assert run.code == 0, run.err
    kept = sorted(address(picture(color)).removeprefix("input:sha256:") for color in (RED, BLUE))
    assert inputs_of(any_house) == kept

    # When the user's own files are gone
    for path in any_house.folder.glob("*/*.png"):
        path.unlink()
    assert any_house.work_all().code == 0

    verdict(any_house, "film", "other")
    first, last = colors(any_house, "film")
    assert near(first, RED)
    assert near(last, BLUE)
    made = any_house.receipt("film").made
    assert made is not None
    assert made.inputs == tuple(hashlib.sha256(picture(color)).hexdigest() for color in (RED, BLUE))


def test_render_shows_pictures_of_this_machine_and_the_same_again_copies_nothing(house: House) -> None:
    write_pictures(house.folder)
    (house.folder / "films.csv").write_text(
        "job,image,duration,motion,output.width,output.height,output.fps,render.model\n"
        "film,pictures/red.png,0.5,still,64,64,8,faulty\n"
        "film,../FOLDER/more/blue.webp,0.5,still,,,,\n".replace("FOLDER", house.folder.name)
    )

    run = nightreel(house, "render", "films.csv")

    assert run.code == 0, run.err
    [video] = [entry for entry in house.store.list("films-") if entry.name.endswith(".mp4")]
    house.batch = video.name.partition("/")[0]
    assert near(colors(house, "film")[0], RED)
    before = list(house.store.list(".nightreel/inputs/"))
    again = nightreel(house, "render", "films.csv")
    assert "no model work was done" in again.out
    assert list(house.store.list(".nightreel/inputs/")) == before


def problems_of(folder: Path, manifest: str, **options: Any) -> list[str]:
    (folder / "films.yaml").write_text(manifest)
    with pytest.raises(InvalidJob) as caught:
        load_manifest(folder / "films.yaml", **options)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.png", "cannot be read (No such file or directory): check the path; it begins at the manifest's folder"),
        ("more", "is a folder: name a file"),
        ("note.png", "is not a PNG, JPEG or WebP picture: save it as one"),
        ("empty.png", "is not a PNG, JPEG or WebP picture: save it as one"),
        ("large.png", "has 2 MB; 1 are allowed: make it smaller"),
        ("a\\0b.png", "cannot be read"),
        ("pipe", "is no ordinary file: name one"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_picture_is_told_with_its_place_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    monkeypatch.setattr(local_files, "MAX_FILE_MB", 1.0)
    write_pictures(tmp_path)
    (tmp_path / "note.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.png").write_bytes(picture() + bytes(2_000_000))

    (problem,) = problems_of(tmp_path, f'shots:\n- x\n- image: "{path}"\n', local_files=True)

    if "0b" not in path:
        assert problem.startswith(f"films.yaml:3: shots[1].image: {tmp_path / path} ")
    assert words in problem


def test_all_files_that_are_wrong_are_told_each_at_the_field_that_names_it(tmp_path: Path) -> None:
    text = "defaults: {shot: {init: {image: a.png}}}\njobs:\n- shots: [x]\n- shots:\n  - image: b.png\n    init: null\n"

    problems = problems_of(tmp_path, text, local_files=True)

    assert [problem.partition(": /")[0] for problem in problems] == [
        "films.yaml:1: defaults.shot.init.image",
        "films.yaml:5: jobs[1].shots[0].image",
    ]


def test_a_manifest_from_elsewhere_reads_no_file_of_this_machine(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    for path in ("pictures/red.png", str(tmp_path / "pictures/red.png"), "~/x.png"):
        (problem,) = problems_of(tmp_path, f"shots: [{{image: '{path}'}}]")
        assert "must be an address" in problem


def test_addresses_stay_what_they_are(tmp_path: Path) -> None:
    kept = ["gs://bucket/a.png", "https://example.com/a.png", address(b"x")]
    (tmp_path / "films.yaml").write_text(f"shots: [{', '.join(f'{{image: {each!r}}}' for each in kept)}]")

    manifest = load_manifest(tmp_path / "films.yaml", local_files=True)

    assert [shot.image for shot in manifest.jobs[0].shots] == kept
    assert manifest.files == {}


def test_a_file_is_read_once_however_many_jobs_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path)
    (tmp_path / "films.csv").write_text("image,seed\n" + "".join(f"pictures/red.png,{seed}\n" for seed in range(50)))
    looks: list[str] = []
    look = local_files.LocalFiles._look

    def counted(self: local_files.LocalFiles, text: str, picture: bool) -> Any:
        looks.append(text)
        return look(self, text, picture)

    monkeypatch.setattr(local_files.LocalFiles, "_look", counted)

    manifest = load_manifest(tmp_path / "films.csv", local_files=True)

    assert len(manifest.jobs) == 50
    assert looks == ["pictures/red.png"]
    assert manifest.files == {address(picture()): tmp_path / "pictures/red.png"}


def test_workers_elsewhere_need_a_store_that_was_chosen_for_them(house: House) -> None:
    write_pictures(house.folder)
    (house.folder / "films.yaml").write_text(HEAD + FILM)

    run = nightreel(house, "enqueue", "films.yaml", queue="pubsub://demo/films", store="")

    assert run.code == 2
    assert "which goes into the store, and none is given: name the workers' own with --store" in run.err


class TestStored:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "red.png"
        file.write_bytes(picture())
        return file

    def test_equal_content_is_kept_once_and_renewed_before_a_bucket_clears_it_away(
        self, store_url: str, file: Path
    ) -> None:
        store = open_store(store_url)
        kept, name = StoredInputs(store), address(picture())

        assert kept.put(name, file, NOW)
        first = store.head(input_name(name))
        assert not kept.put(name, file, NOW + dt.timedelta(days=REFRESH_DAYS - 1))
        assert store.head(input_name(name)) == first
        assert kept.put(name, file, NOW + dt.timedelta(days=REFRESH_DAYS))
        assert store.get(input_name(name))[0] == picture()

    def test_a_file_that_changed_since_is_not_kept_under_the_old_content(self, tmp_path: Path, file: Path) -> None:
        store = FolderStore(tmp_path / "out")
        file.write_bytes(picture(BLUE))

        with pytest.raises(Changed, match="changed while it was read: run the same command again"):
            StoredInputs(store).put(address(picture()), file, NOW)
        assert list(store.list()) == []

    def test_what_does_not_hold_its_name_is_refused(self, tmp_path: Path, file: Path) -> None:
        store = FolderStore(tmp_path / "out")
        store.put(input_name(address(picture())), b"other")

        with pytest.raises(StoreError, match="does not hold what its name says: move it away"):
            StoredInputs(store).put(address(picture()), file, NOW)


class TestMessages:
    """A message may name an input too, whoever publishes it: it reaches content, and nothing else."""

    @pytest.mark.parametrize(
        "image",
        [
            "input:sha256:../../b/film.mp4",
            f"input:sha256:{'a' * 64}",
            f"input:sha256:{'a' * 63}.png",
            f"input:sha256:{'A' * 64}.png",
            f"input:sha256:{'a' * 64}.png/../x",
            f"input:sha256:{'a' * 64}.png\n",
            f"input:md5:{'a' * 64}.png",
        ],
    )
    def test_no_other_form_is_an_address(self, image: str) -> None:
        with pytest.raises(InvalidJob, match=r"^shots\[0\]\.image: .*must be an address"):
            parse_job(json.dumps({"shots": [{"image": image}]}))
        with pytest.raises(ValueError, match="is not input:sha256"):
            input_name(image)

    def test_an_input_needs_no_permission_and_must_be_what_it_says(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "out")
        inputs = Inputs(Rules(max_mb=0.01), Web(), store)
        good, gone, false, large = (address(each) for each in (picture(), b"gone", b"false", bytes(20_000)))
        for name, content in ((good, picture()), (false, b"other"), (large, bytes(20_000))):
            store.put(input_name(name), content)

        def fetch(name: str) -> bytes:
            folder = tmp_path / name[-30:]
            folder.mkdir()
            return inputs.fetch(showing("film", {"image": name}), folder)[name].path.read_bytes()

        assert fetch(good) == picture()
        with pytest.raises(Missing, match=r"shots\[0\]\.image: the store has no .*: enqueue its manifest again"):
            fetch(gone)
        with pytest.raises(Missing, match=r"shots\[0\]\.image: the store's .* holds other content: enqueue"):
            fetch(false)
        with pytest.raises(TooLarge, match=r"shots\[0\]\.image: .* has 20,000 bytes; 10,000 are allowed"):
            fetch(large)

    def test_a_job_whose_input_is_gone_fails_and_says_what_to_do(self, make_house: Callable[..., House]) -> None:
        with contextlib.closing(make_house()) as house:
            house.enqueue(showing("film", {"image": address(b"gone")}))

            assert house.work_all().code == 0
            verdict(house, "film", failed=["film"])
            assert "enqueue its manifest again, from where the file is, then retry" in house.receipt("film").reason
