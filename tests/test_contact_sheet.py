"""Contact sheets: what they show of which film, and that they replace nothing but older ones."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from house import House, Run
from PIL import Image

from nightreel.sheet import NAME, keep_sheets, sheet_names, sheets_of
from nightreel_pipelines.contact_sheet import (
    FILMS,
    POSTERS,
    STORYBOARD,
    Film,
    Style,
    first_middle_last,
    is_sheet,
    sheets,
    spread,
)
from nightreel_pipelines.encode import Encoder
from nightreel_pipelines.errors import BadVideo
from nightreel_pipelines.fonts import Fonts
from nightreel_pipelines.stills import stills
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError
from nightreel_storage.receipts import OutputFile, Receipt, Receipts, Video, utc_now

Pixels = npt.NDArray[np.uint8]
FRAMES, WIDE, HIGH = 40, 96, 64


def plain(*color: int, width: int = 320, height: int = 180) -> Pixels:
    return np.full((height, width, 3), color, np.uint8)


def seen(jpeg: bytes) -> Pixels:
    return np.array(Image.open(io.BytesIO(jpeg)).convert("RGB")).clip(0, 240)


def drawn(films: list[Film], style: Style) -> list[Pixels]:
    return [seen(jpeg) for jpeg in sheets("films", iter(films), len(films), style, Fonts())]


def pixels_of(sheet: Pixels, color: tuple[int, ...]) -> int:
    """How many pixels have a colour of multiples of 20, give or take what JPEG does to it."""
    codes = (sheet[:, :, 0] + 10) // 20 * np.uint16(256) + (sheet[:, :, 1] + 10) // 20 * np.uint16(16)
    wanted = color[0] // 20 * 256 + color[1] // 20 * 16 + color[2] // 20
    return int((codes + (sheet[:, :, 2] + 10) // 20 == wanted).sum())


def colors(count: int) -> list[tuple[int, int, int]]:
    """Apart from each other, and from paper and ink."""
    return [(40 + 40 * (index % 5), 40 + 40 * (index // 5 % 4), 60 + 60 * (index // 20)) for index in range(count)]


# The picture


def test_a_sheet_has_a_cell_of_each_film_with_all_its_pictures() -> None:
    known = colors(40)
    [sheet] = drawn([Film("film", "8 s", [plain(*color)] * 3) for color in known], FILMS)

    width, height = FILMS.picture_size(320, 180)
    inside = 3 * (width - 2) * (height - 2)
    assert sheet.shape[1] == 1600
    for color in known:
        assert 0.97 * inside < pixels_of(sheet, color) < 1.15 * inside  # more: edges of grey letters
    assert pixels_of(sheet, (20, 20, 20)) > 40 * 60  # the names, in ink


@pytest.mark.parametrize(
    ("style", "films", "pages"), [(FILMS, 40, [40]), (FILMS, 41, [40, 1]), (POSTERS, 3, [3]), (STORYBOARD, 13, [12, 1])]
)
def test_many_films_go_onto_several_sheets(style: Style, films: int, pages: list[int]) -> None:
    known = colors(films)
    made = drawn([Film("film", "8 s", [plain(*color)]) for color in known], style)

    shown = [sum(pixels_of(sheet, color) > 1000 for color in known) for sheet in made]
    assert shown == pages
    assert list(sheet_names("sheet.jpg", films, style.films)) == ["sheet.jpg", "sheet-2.jpg"][: len(pages)]


def test_films_of_all_shapes_keep_theirs_and_cover_nothing() -> None:
    shapes = [(320, 180), (180, 320), (64, 64), (2160, 64), (64, 2160)]
    known = colors(5)
    films = [
        Film("a name " * 20, "8 s", [plain(*color, width=shape[0], height=shape[1])] * 2)
        for color, shape in zip(known, shapes, strict=True)
    ]
    [sheet] = drawn(films, FILMS)

    for color, shape in zip(known, shapes, strict=True):
        width, height = FILMS.picture_size(*shape)
        assert width / height == pytest.approx(shape[0] / shape[1], rel=0.2)
        assert pixels_of(sheet, color) >= 2 * (width - 3) * (height - 3)


def test_a_sheet_is_known_by_its_mark_and_another_jpeg_is_not() -> None:
    [jpeg] = sheets("films", [Film("film", "8 s", [plain(1, 2, 3)])], 1, FILMS, Fonts())
    other = io.BytesIO()
    Image.new("RGB", (64, 64)).save(other, "JPEG")

    assert is_sheet(jpeg)
    assert not is_sheet(other.getvalue())


def test_shots_are_spread_evenly_when_there_are_too_many() -> None:
    assert spread(3, 24) == [0, 1, 2]
    assert spread(1, 24) == [0]
    assert spread(101, 5) == [0, 25, 50, 75, 100]


# Frames out of a video


def grey(frame: int) -> int:
    return 20 + 5 * frame


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose grey tells their number."""
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    with Encoder(path, width=WIDE, height=HIGH, fps=12, crf=10) as encoder:
        for frame in range(FRAMES):
            encoder.write(plain(*[grey(frame)] * 3, width=WIDE, height=HIGH))
    return path


def test_stills_are_the_very_frames_that_were_asked_for(video: Path) -> None:
    at = [*first_middle_last(FRAMES), 7]
    found = stills(video, at, fps=12, width=48, height=32)

    assert at == [0, 20, 39, 7]
    assert [frame.shape for frame in found] == [(32, 48, 3)] * 4
    assert [round(float(frame.mean())) for frame in found] == pytest.approx([grey(frame) for frame in at], abs=2)


def test_stills_of_what_is_no_video_or_has_not_so_many_frames_are_refused(video: Path, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")

    with pytest.raises(BadVideo, match=r"no\.mp4 does not decode"):
        stills(tmp_path / "no.mp4", [0], fps=12, width=48, height=32)
    with pytest.raises(BadVideo, match=r"film\.mp4 does not decode"):
        stills(video, [0, 400], fps=12, width=48, height=32)


# In a store


def finish(
    store: Store, name: str, video: Path, *, state: str = "done", poster: tuple[int, int, int] = (9, 9, 9)
) -> None:
    """A job of the batch "night" that ended."""
    image = io.BytesIO()
    Image.new("RGB", (WIDE, HIGH), poster).save(image, "JPEG")
    entries = [
        store.put(f"night/{name}.mp4", video, content_type="video/mp4"),
        store.put(f"night/{name}.jpg", image.getvalue(), content_type="image/jpeg"),
    ]
    outputs = [
        OutputFile(name=each.name, sha256=each.sha256, size_bytes=each.size_bytes, content_type=each.content_type)
        for each in entries
    ]
    length = FRAMES / 12
    fields: dict[str, Any] = {
        "state": state,
        "batch": "night",
        "job": name,
        "fingerprint": "0" * 64,
        "ended_at": utc_now(),
        "outputs": outputs,
        "video": Video(width=WIDE, height=HIGH, fps=12, frames=FRAMES, duration_s=length, digest="0"),
    }
    Receipts(store).commit(Receipt(**fields), None)


def sheet_in(store: Store, name: str = NAME) -> Pixels:
    return seen(store.get(f"night/{name}")[0])


def test_a_batch_has_its_sheet_beside_its_videos_and_no_job_can_have_its_name(store_url: str, video: Path) -> None:
    store = open_store(store_url)
    for name in ("sun", "moon"):
        finish(store, name, video)

    [place] = sheets_of(store, "night")

    # Three frames of both videos are on it
    assert place == store.url("night/contact.sheet.jpg")
    for frame in (0, 20):
        assert pixels_of(sheet_in(store), (grey(frame),) * 3) > 1000
    # And what reads the batch does not trip over it
    assert {receipt.job for receipt in Receipts(store).list("night")} == {"sun", "moon"}


def test_an_older_sheet_is_replaced_and_a_sheet_that_shows_all_is_left_alone(store_url: str, video: Path) -> None:
    store = open_store(store_url)
    for name in ("sun", "moon"):
        finish(store, name, video)
    sheets_of(store, "night")
    first = store.head(f"night/{NAME}")

    # Nothing new: nothing is written
    sheets_of(store, "night")
    assert store.head(f"night/{NAME}") == first

    # Another video: the sheet is a new one
    finish(store, "star", video)
    sheets_of(store, "night")
    second = store.head(f"night/{NAME}")
    assert first is not None
    assert second is not None
    assert second.generation != first.generation
    assert sheet_in(store).shape[0] > 400


def test_a_file_of_somebody_else_is_never_replaced(store_url: str, video: Path) -> None:
    store = open_store(store_url)
    for name in ("sun", "moon"):
        finish(store, name, video)
    store.put(f"night/{NAME}", b"my own", content_type="image/jpeg")

    with pytest.raises(StoreError, match="is no contact sheet"):
        sheets_of(store, "night")
    assert store.get(f"night/{NAME}")[0] == b"my own"


def test_failed_jobs_are_not_on_it_and_one_video_needs_none(tmp_path: Path, video: Path) -> None:
    store = open_store(str(tmp_path))
    finish(store, "sun", video)
    finish(store, "moon", video, state="failed")

    assert sheets_of(store, "night") == []
    assert store.head(f"night/{NAME}") is None


def test_a_damaged_video_leaves_its_place_empty_and_the_others_are_shown(
    tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path))
    finish(store, "sun", video)
    broken = tmp_path / "broken"
    broken.write_bytes(b"no video")
    finish(store, "moon", broken)

    sheets_of(store, "night")

    assert "nightreel: moon: video.mp4 does not decode" in capsys.readouterr().err
    assert pixels_of(sheet_in(store), (grey(20),) * 3) > 1000


def test_of_more_videos_than_one_sheet_holds_the_posters_are_shown(tmp_path: Path, video: Path) -> None:
    # Given 41 videos, the last of which lost its file: posters alone are read
    store, known = open_store(str(tmp_path)), colors(41)
    for index, color in enumerate(known):
        finish(store, f"film-{index:02}", video, poster=color)
    (tmp_path / "night/film-40.mp4").unlink()
    made = [receipt for receipt in Receipts(store).list("night") if receipt.state == "done"]

    places = keep_sheets(store, "night", made)

    assert [Path(place).name for place in places] == ["contact.sheet.jpg", "contact.sheet-2.jpg"]
    first, second = sheet_in(store), sheet_in(store, "contact.sheet-2.jpg")
    assert all(pixels_of(first, color) > 1000 for color in known[:40])
    assert pixels_of(second, known[40]) > 1000


# The commands


class Desk(House):
    """A house with a person in it, who types commands."""

    def nightreel(self, *arguments: str) -> Run:
        return self.work(sys.executable, "-m", "nightreel", *arguments)

    def render(self, *names: str) -> Run:
        films: dict[str, Any] = {
            "batch": "night",
            "defaults": {"render": {"model": "testcard", "megapixels": 0.004}, "output": {"width": 64, "height": 64}},
            "jobs": [{"id": name, "shots": [{"prompt": name, "duration": 0.5, "motion": "still"}]} for name in names],
        }
        (self.folder / "films.yaml").write_text(yaml.safe_dump(films))
        return self.nightreel("render", "films.yaml")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with contextlib.closing(Desk(tmp_path)) as desk:
        yield desk


def test_render_leaves_a_sheet_and_the_verb_copies_it(desk: Desk) -> None:
    run = desk.render("sun", "moon")
    place = desk.folder / "out/night/contact.sheet.jpg"
    assert run.code == 0, run.err
    assert run.out.splitlines()[-1] == f"Contact sheet: {place}"

    # Written to a file it is the same, and may be replaced there
    for _ in range(2):
        run = desk.nightreel("sheet", "night", "-o", "both.jpg")
        assert (run.code, run.out, run.err) == (0, "both.jpg\n", "")
    assert (desk.folder / "both.jpg").read_bytes() == place.read_bytes()

    # Asked for in the store, it is made when it is not there
    place.unlink()
    run = desk.nightreel("sheet", "night")
    assert (run.code, run.out) == (0, f"{place}\n")
    assert (desk.folder / "both.jpg").read_bytes() == place.read_bytes()


def test_a_run_whose_sheet_cannot_be_made_is_no_failure(desk: Desk) -> None:
    place = desk.folder / "out/night/contact.sheet.jpg"
    place.parent.mkdir(parents=True)
    place.write_text("my own")

    run = desk.render("sun", "moon")

    assert run.code == 0
    assert run.err == (
        "nightreel: no contact sheet was made: night/contact.sheet.jpg is there already and is no contact sheet: move it"
        " away, or use -o\n"
    )
    assert place.read_text() == "my own"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("sheet night", "batch night has no finished video; see: nightreel status night"),
        ("sheet sun -o x.png", "-o x.png: contact sheets are JPEG files: call it x.jpg"),
        ("sheet sun -o none/x.jpg", "-o none/x.jpg: there is no folder none: make it first"),
        ("sheet sun -o mine.jpg", "mine.jpg is there already and is no contact sheet: move it away"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(desk: Desk, video: Path, command: str, complaint: str) -> None:
    (desk.folder / "mine.jpg").write_text("my own")
    if "sun" in command:
        finish(desk.store, "sun", video)

    run = desk.nightreel(*command.replace("sheet sun", "sheet night").split())

    assert (run.code, run.out, run.err) == (2, "", f"nightreel: {complaint}\n")
    assert (desk.folder / "mine.jpg").read_text() == "my own"
