"""Storyboard films: drawn without a model, with the timing of the real ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from house import House, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from web_servers import Server, says

from nightreel_pipelines.animatic import Animatic, cuts, timecode
from nightreel_pipelines.base import Description
from nightreel_pipelines.camera import Camera
from nightreel_pipelines.fonts import MARK, Fonts
from nightreel_pipelines.models import load_models
from nightreel_pipelines.motion_sign import ACCENT, INK, PAPER
from nightreel_pipelines.plan import plan
from nightreel_pipelines.shot_card import Layout, ShotCard
from nightreel_queue.job import Job

Pixels = npt.NDArray[np.uint8]

FONTS = Fonts()
FPS = 12
FILMS: dict[str, Any] = {
    "defaults": {"output": {"width": 320, "height": 180, "fps": FPS}, "shot": {"duration": 1}},
    "jobs": [
        {
            "id": "harbour",
            "output": {"width": 640, "height": 360},
            "shots": [
                {
                    "prompt": "a harbour",
                    "motion": {"zoom": [1, 2], "focus": [0.3, 0.6], "ease": "out"},
                    "transition": {"type": "cut"},
                },
                {"prompt": "a boat", "motion": {"pan": [0.5, 0]}},
                {"prompt": "a moon", "motion": {"rotate": 40}, "duration": 1.25},
            ],
        },
        {"id": "upright", "output": {"width": 90, "height": 160}, "shots": ["a tree"]},
        {"id": "tiny", "output": {"width": 64, "height": 64}, "shots": ["a tent", "a house"]},
    ],
}


def animatic(job: Job, fonts: Fonts = FONTS, given: dict[str, Pixels] | None = None) -> Animatic:
    spec = load_models()["pocket"]
    layout = plan(job, spec, Description("", "", "", ""), {each: each for each in job.inputs})
    return Animatic(job, layout, fonts, given or {})


def film(*shots: dict[str, Any], width: int = 320, height: int = 180, **fields: Any) -> Animatic:
    output = {"width": width, "height": height, "fps": FPS}
    whole = [{"duration": 1, "seed": 1} | shot if "prompt" in shot else {"duration": 1} | shot for shot in shots]
    return animatic(Job.model_validate_json(json.dumps({"id": "film", "output": output, "shots": whole} | fields)))


def card(*shots: dict[str, Any], fonts: Fonts = FONTS, **fields: Any) -> Pixels:
    """The first shot's card at its first frame, without the clock."""
    made = film(*shots, **fields)
    return ShotCard(made.job, made.plan, 0, fonts, {}).frame(0)


def decoded(video: Path) -> list[Pixels]:
    """RGB frames."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][:, :, ::-1], dtype=np.uint8))
    return frames


def job_of(id_: str) -> Job:
    defaults: dict[str, Any] = FILMS["defaults"]
    fields = next(each for each in FILMS["jobs"] if each["id"] == id_)
    shots = [{"duration": 1} | ({"prompt": shot} if isinstance(shot, str) else shot) for shot in fields["shots"]]
    output = defaults["output"] | fields.get("output", {})
    return Job.model_validate_json(json.dumps(fields | {"shots": shots, "output": output}))


def accented(frame: Pixels) -> Pixels:
    """Where a decoded frame has the colour of what moves."""
    red, green, blue = (frame[:, :, at].astype(int) for at in range(3))
    return np.asarray((red > 150) & (green < red - 60) & (blue < red - 60))


def preview(house: House, manifest: Any, *arguments: str) -> Run:
    (house.folder / "films.yaml").write_text(manifest if isinstance(manifest, str) else yaml.safe_dump(manifest))
    return house.work(sys.executable, "-m", "nightreel", "preview", "films.yaml", *arguments)


# The films


class Made:
    """What one command made of the manifest."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run

    def frames(self, job: str) -> list[Pixels]:
        return decoded(self.folder / f"{job}.preview.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    house = House(tmp_path_factory.mktemp("films"))
    run = preview(house, FILMS)
    house.close()
    return Made(house.folder / "preview/films", run)


def test_each_job_becomes_a_film_and_all_of_them_a_contact_sheet(made: Made) -> None:
    assert made.run.code == 0, made.run.err
    assert made.run.err == ""
    assert sorted(file.name for file in made.folder.iterdir()) == [
        "contact-sheet.jpg",
        "harbour.preview.mp4",
        "tiny.preview.mp4",
        "upright.preview.mp4",
    ]
    assert made.run.out.splitlines() == [
        "harbour: 3.25 s, 39 frames: preview/films/harbour.preview.mp4",
        "upright: 1 s, 12 frames: preview/films/upright.preview.mp4",
        "tiny: 2 s, 24 frames: preview/films/tiny.preview.mp4",
        "preview/films/contact-sheet.jpg",
    ]


@pytest.mark.parametrize(
    ("job", "frames", "size"), [("harbour", 39, (360, 640)), ("upright", 12, (160, 90)), ("tiny", 24, (64, 64))]
)
def test_a_film_has_the_jobs_frames_and_size(made: Made, job: str, frames: int, size: tuple[int, int]) -> None:
    shown = made.frames(job)

    assert (len(shown), shown[0].shape[:2]) == (frames, size)


@pytest.mark.parametrize("job", ["harbour", "upright", "tiny"])
def test_every_frame_has_its_own_time_code(made: Made, job: str) -> None:
    # Given the upper right corner as it is drawn for each frame
    shown, box = made.frames(job), Layout(*job_of(job).output.size).head_line
    corner = (slice(box.top, box.bottom), slice(box.left + box.width // 2, box.right))
    drawn = np.array([frame[corner] for frame in animatic(job_of(job)).frames()], dtype=float)

    # Then each decoded frame looks like its own, and like no other
    for at, frame in enumerate(shown):
        off = np.abs(drawn - frame[corner]).mean((1, 2, 3))
        assert int(off.argmin()) == at
        assert np.delete(off, at).min() > 1.2 * off[at]


def test_time_codes_count_frames_within_the_second() -> None:
    assert [timecode(frame, 24) for frame in (0, 23, 24, 24 * 61 + 5)] == [
        "00:00:00:00",
        "00:00:00:23",
        "00:00:01:00",
        "00:01:01:05",
    ]
    assert timecode(60 * 3600 + 59, 60) == "01:00:00:59"


def test_the_time_line_has_a_part_for_each_shot_and_grows_with_time(made: Made) -> None:
    job = job_of("harbour")
    line = Layout(*job.output.size).time_line
    for at, frame in enumerate(made.frames("harbour")):
        red = np.flatnonzero(accented(frame)[line.top : line.bottom].any(0))
        begin = max(cut for cut in (0, 12, 24) if cut <= at)
        wanted = [line.left + line.width * part / 39 for part in (begin, at + 1)]
        assert abs(red[-1] + 1 - wanted[1]) < 4, at
        assert abs(red[0] - wanted[0]) < 4, at


def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "films.yaml").write_text("jobs: [{output: {width: 64, height: 64, fps: 8}, shots: [a boat]}]")
    program = (
        "import sys\nfrom nightreel.main import app\napp(['preview', 'films.yaml'], standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'diffusers', 'transformers'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout.splitlines()[-1] == "[]"


# Transitions


def test_shots_crossfade_as_in_the_real_film() -> None:
    made = film(
        {"prompt": "one", "motion": "still"}, {"prompt": "two", "motion": "still"}, transition={"duration": 0.5}
    )
    frames, box = list(made.frames()), Layout(320, 180).prompt
    place = (slice(box.top, box.bottom), slice(box.left, box.right))
    one, two = frames[0][place].astype(float), frames[-1][place].astype(float)

    # Given half a second at 12 frames a second: the third frame of six has 2.5 sixths of the coming shot
    share = 2.5 / 6
    assert np.abs(one - two).max() > 100
    assert np.abs(frames[9 + 2][place] - (one * (1 - share) + two * share)).max() <= 1
    assert np.array_equal(frames[8][place], one)
    assert np.array_equal(frames[15][place], two)


def test_a_cut_shows_no_frame_of_both() -> None:
    made = film({"prompt": "one", "motion": "still"}, {"prompt": "two", "motion": "still"}, transition={"type": "cut"})
    box = Layout(320, 180).prompt
    places = [frame[box.top : box.bottom, box.left : box.right] for frame in made.frames()]

    assert cuts(made.plan) == [0, 12, 24]
    assert all(np.array_equal(place, places[0]) for place in places[:12])
    assert all(np.array_equal(place, places[-1]) for place in places[12:])


# The sign of the motion


def rectangle(frame: Pixels, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what has the moving colour in the sign, as parts of its box."""
    box = Layout(width, height).sign
    around = 4
    place = accented(frame)[box.top - around : box.bottom + around, box.left - around : box.right + around]
    rows, columns = np.flatnonzero(place.any(1)) - around, np.flatnonzero(place.any(0)) - around
    return (
        columns[0] / box.width,
        rows[0] / box.height,
        (columns[-1] + 1) / box.width,
        (rows[-1] + 1) / box.height,
    )


@pytest.mark.parametrize("at", [0, 5, 11, 14, 20, 30, 38])
def test_the_moving_frame_is_where_the_camera_will_be(made: Made, at: int) -> None:
    job = job_of("harbour")
    layout = animatic(job).plan
    # The cut after the first shot: from there on the second one's frames are counted; a crossfade leads to the third.
    index = 0 if at < 12 else 1 if at < 21 else 2
    shot = layout.shots[index]
    corners = Camera(job.shots[index].motion, 640, 360, shot.frames).corners[at - shot.start]

    found = rectangle(made.frames("harbour")[at], 640, 360)

    assert np.abs(np.array(found) - [*corners.min(0), *corners.max(0)]).max() < 0.03  # the line is two pixels wide


def test_a_flight_shrinks_towards_its_end_at_its_own_rate() -> None:
    made = film({"prompt": "a tunnel", "motion": {"feedback": {"zoom": 2.0}}, "duration": 2}, width=640, height=360)
    frames = list(made.frames())

    for seconds in (0, 1, 1.5):
        left, top, right, bottom = rectangle(frames[round(seconds * FPS)], 640, 360)
        assert right - left == pytest.approx(2**-seconds, abs=0.05)
        assert bottom - top == pytest.approx(2**-seconds, abs=0.07)


def test_a_flight_out_of_the_picture_stays_in_its_box() -> None:
    made = film({"prompt": "out", "motion": {"feedback": {"zoom": 0.5, "pan": [1, -1], "rotate": 90}}, "duration": 5})
    sign = ShotCard(made.job, made.plan, 0, FONTS, {}).sign
    box = Layout(320, 180).sign

    assert sign.frames.min((0, 1)).tolist() >= [box.left - 0.01, box.top - 0.01]
    assert (sign.frames.max((0, 1)) <= (box.right + 0.01, box.bottom + 0.01)).all()


def test_a_walk_shows_both_prompts_and_how_far_it_is() -> None:
    walk = {"prompt": "a house", "motion": {"walk": {"to": "a palace of glass"}}}
    # Both prompts are there: another end, another picture of it
    other = {"prompt": "a house", "motion": {"walk": {"to": "a shed"}}}
    box = Layout(320, 180).prompt
    place = (slice(box.top, box.bottom), slice(box.left, box.right))
    assert (card(walk)[place] != card(other)[place]).any()

    # And the bar below the sign grows
    sign = Layout(320, 180).sign
    for at, frame in enumerate(film(walk).frames()):
        bar = accented(frame)[sign.bottom - 1, sign.left : sign.right]
        assert bar.mean() == pytest.approx(at / 11, abs=0.06)


def test_a_still_shot_has_a_plain_frame_that_does_not_move() -> None:
    made = film({"prompt": "a stone", "motion": "still"})
    sign = Layout(320, 180).sign
    places = [frame[sign.top : sign.bottom, sign.left : sign.right] for frame in made.frames()]

    assert all(np.array_equal(place, places[0]) for place in places)
    assert not accented(places[0]).any()
    assert (places[0] < 100).all(2).any()


# Type

LETTERS = "aaeeiioodtnWMj g,-.  \nÉßж\u0627日🚤"
SIZES = [(64, 64), (128, 72), (90, 160), (320, 180), (240, 240), (640, 360)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1000), st.integers(2, len(LETTERS)), st.randoms(), st.sampled_from(SIZES))
def test_a_prompt_of_any_length_is_fitted_into_its_box(
    length: int, variety: int, random: Random, size: tuple[int, int]
) -> None:
    prompt = "W" + "".join(random.choices(LETTERS[:variety], k=length - 1))
    # Given the same card with a prompt that is hardly there
    width, height = size
    full = card({"prompt": prompt, "motion": "still"}, width=width, height=height)
    bare = card({"prompt": ".", "motion": "still"}, width=width, height=height)

    # Then they differ only in the prompt's box, where something is written; accents may reach into the gap above it
    rows, columns = np.nonzero((full != bare).any(2))
    layout = Layout(width, height)
    box = layout.prompt
    assert rows.size
    assert columns.min() >= box.left - 1
    assert columns.max() <= box.right + 1
    assert rows.min() >= layout.head_line.bottom - 1
    assert rows.max() <= box.bottom


@pytest.mark.parametrize("size", SIZES)
def test_the_type_is_as_large_as_the_prompt_leaves_room_for(size: tuple[int, int]) -> None:
    def ink(prompt: str) -> int:
        """Height of the first line that is written."""
        shown = card({"prompt": prompt, "motion": "still"}, width=size[0], height=size[1])
        box = Layout(*size).prompt
        rows = (shown[box.top : box.bottom, box.left : box.right] < 150).any((1, 2)).astype(int)
        first = int(rows.argmax())
        return int(np.append(rows[first:], 0).argmin())

    assert ink("HHH") > ink("HHH HHH " * 40) >= 6  # pixels of a capital: type of 9 px


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=60).filter(str.strip))
def test_no_text_breaks_a_card(prompt: str) -> None:
    shown = card({"prompt": prompt, "motion": "still"}, style_prefix=prompt, style_suffix=prompt, width=128, height=128)

    assert shown.shape == (128, 128, 3)


@pytest.mark.parametrize("size", [(2160, 64), (64, 2160), (66, 64), (1080, 1920), (1920, 1080)])
def test_extreme_shapes_have_their_time_code_and_prompt(size: tuple[int, int]) -> None:
    made = film({"prompt": "a red boat on a calm sea", "motion": {"rotate": 30}}, width=size[0], height=size[1])
    first = next(made.frames())
    layout = Layout(*size)

    for box in (layout.head_line, layout.prompt):
        assert (first[box.top : box.bottom, box.left : box.right] < 100).all(2).any()


def test_style_is_shown_in_small_around_the_prompt() -> None:
    plain = card({"prompt": "a boat", "motion": "still"})
    styled = card({"prompt": "a boat", "motion": "still"}, style_prefix="oil on canvas,", style_suffix="muted colours")
    box = Layout(320, 180).prompt

    rows = np.flatnonzero((styled != plain)[box.top : box.bottom, box.left : box.right].any((1, 2)))
    assert rows[0] < 10
    assert rows[-1] > 35


def test_letters_come_from_the_fonts_that_are_here() -> None:
    fonts = Fonts()
    if not any(fonts.setting("жé").faces[0].has(letter) for letter in "жé"):
        pytest.skip("needs an installed font with Cyrillic letters, such as DejaVu Sans")

    setting = fonts.setting("жук и café")

    assert (setting.text, fonts.missing) == ("жук и café", set())
    assert len(setting.faces) == 1  # one face has all of it


def test_without_fonts_letters_are_simplified_or_marked_and_remembered() -> None:
    fonts = Fonts(folders=())

    assert fonts.setting("Café \u2013 日\u200d本\n\tnow").text == f"Cafe - {MARK}{MARK} now"
    assert fonts.missing == {"é", "\u2013", "日", "本"}
    assert fonts.setting("plain words").text == "plain words"


def test_a_file_that_is_no_font_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "NoSuchSans.ttf").write_bytes(b"nothing of the kind")

    assert Fonts([tmp_path]).setting("日").text == MARK


def test_what_no_font_has_is_told_once(house: House) -> None:
    shots = ["a \U000f0000 boat", "the \U000f0000 boat again"]  # for private use: in no font of a system
    run = preview(house, FILMS | {"jobs": [{"id": "odd", "shots": shots}, {"id": "again", "shots": shots}]})

    assert run.code == 0, run.err
    [line] = run.err.splitlines()
    assert line.startswith("nightreel: no font here has \U000f0000 (U+F0000): ")


def test_what_is_read_leftward_is_set_to_the_right() -> None:
    hebrew = "שלום עולם"
    if Fonts().setting(hebrew).text != hebrew:
        pytest.skip("needs an installed font with Hebrew letters, such as DejaVu Sans")
    assert all(unicodedata.bidirectional(letter) == "R" for letter in hebrew if letter != " ")
    box = Layout(640, 360).prompt

    shown = card({"prompt": hebrew, "motion": "still"}, width=640, height=360)[box.top : box.bottom]

    dark = np.flatnonzero((shown[:, box.left : box.right] < 100).any((0, 2)))
    assert dark[-1] > box.width - 8
    assert dark[0] > box.width / 3


# Pictures that are given


def png(color: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (96, 54), color).save(content, "PNG")
    return content.getvalue()


def with_picture(url: str) -> dict[str, Any]:
    jobs = [{"id": "shown", "shots": [{"image": url, "motion": "still"}]}, {"id": "drawn", "shots": ["a boat"]}]
    return FILMS | {"jobs": jobs}


def sign_colour(house: House) -> list[int]:
    box = Layout(320, 180).sign
    frame = decoded(house.folder / "preview/films/shown.preview.mp4")[3]
    return [int(value) for value in frame[box.top + box.height // 2, box.left + box.width // 2]]


def test_a_given_picture_is_shown_in_small(house: House) -> None:
    with Server(says(200, png((20, 40, 190)))) as server:
        house.environment |= {"NIGHTREEL_INPUT_HTTPS": "true", "NIGHTREEL_TRUSTED_HOSTS": server.host}
        run = preview(house, with_picture(server.url + "blue.png"))

    assert (run.code, run.err) == (0, "")
    red, _, blue = sign_colour(house)
    assert blue > red + 60


def test_a_picture_that_cannot_be_had_is_shown_by_its_name(house: House) -> None:
    run = preview(house, with_picture("https://example.com/pictures/blue.png?size=2"))

    assert run.code == 0
    assert run.err == (
        "nightreel: shown: shots[0].image: this worker takes no files from the web: put it into a bucket, or have"
        " NIGHTREEL_INPUT_HTTPS set; its pictures are shown by their names\n"
    )
    red, _, blue = sign_colour(house)
    assert abs(blue - red) < 30
    box = Layout(320, 180).prompt
    frame = decoded(house.folder / "preview/films/shown.preview.mp4")[3]
    assert (frame[box.top : box.bottom, box.left : box.right] < 80).all(2).any()


def test_a_broken_picture_stops_its_own_job_alone(house: House) -> None:
    with Server(says(200, b"no picture")) as server:
        house.environment |= {"NIGHTREEL_INPUT_HTTPS": "true", "NIGHTREEL_TRUSTED_HOSTS": server.host}
        run = preview(house, with_picture(server.url + "blue.png"))

    assert run.code == 1
    assert run.err.startswith(
        f"nightreel: shown: shots[0].image: {server.url}blue.png is not a whole PNG, JPEG or WebP"
    )
    folder = house.folder / "preview/films"
    assert sorted(file.name for file in folder.iterdir()) == ["contact-sheet.jpg", "drawn.preview.mp4"]


# Where they go


def test_previews_replace_previews_and_nothing_else(house: House) -> None:
    small = FILMS | {"jobs": FILMS["jobs"][2:]}
    assert preview(house, small, "-o", "mine").code == 0
    before = (house.folder / "mine/tiny.preview.mp4").read_bytes()
    (house.folder / "mine/tiny.mp4").write_text("my own")

    # An older preview is replaced
    text = yaml.safe_dump(small).replace("a tent", "a lighthouse")
    assert preview(house, text, "-o", "mine").code == 0
    after = (house.folder / "mine/tiny.preview.mp4").read_bytes()
    assert after != before

    # A contact sheet that is none of ours is not, and then nothing is made
    (house.folder / "mine/contact-sheet.jpg").write_bytes(png((1, 2, 3)))
    run = preview(house, small, "-o", "mine")
    assert (run.code, run.out) == (2, "")
    assert run.err == "nightreel: mine/contact-sheet.jpg is there already and is no contact sheet: move it away\n"
    assert (house.folder / "mine/contact-sheet.jpg").read_bytes() == png((1, 2, 3))
    assert (house.folder / "mine/tiny.preview.mp4").read_bytes() == after
    assert (house.folder / "mine/tiny.mp4").read_text() == "my own"


def test_one_job_is_made_alone_beside_the_sheet_of_all(made: Made, house: House) -> None:
    run = preview(house, FILMS, "--job", "upright", "--output", "one")

    assert run.code == 0, run.err
    assert sorted(file.name for file in (house.folder / "one").iterdir()) == [
        "contact-sheet.jpg",
        "upright.preview.mp4",
    ]
    sheet = (house.folder / "one/contact-sheet.jpg").read_bytes()
    assert sheet == (made.folder / "contact-sheet.jpg").read_bytes()


@pytest.mark.parametrize(
    ("manifest", "arguments", "complaint"),
    [
        (FILMS, ["--job", "moon"], "--job moon: films.yaml has no such job; there are harbour, upright, tiny"),
        (FILMS, ["-o", "films.yaml"], "-o films.yaml is a file: name a folder"),
        (
            "jobs: [{shots: ['']}]",
            [],
            "films.yaml:1: jobs[0].shots[0].prompt: is empty; must be text of 1 to 8000 characters",
        ),
        (
            "jobs: [{render: {model: pocked}, shots: [a]}]",
            [],
            "render.model: no model pocked; did you mean pocket?",
        ),
    ],
)
def test_bad_input_is_refused_in_a_line(house: House, manifest: Any, arguments: list[str], complaint: str) -> None:
    run = preview(house, manifest, *arguments)

    assert (run.code, run.out, run.err) == (2, "", f"nightreel: {complaint}\n")
    assert not (house.folder / "preview").exists()


def test_a_folder_that_cannot_be_written_is_told_in_a_line(house: House, make_house: Callable[..., House]) -> None:
    (house.folder / "preview").write_text("a file where a folder should be")

    run = preview(house, FILMS)

    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("nightreel: preview/films: ")
    assert len(run.err.splitlines()) == 1


def test_the_paper_is_the_same_on_every_card() -> None:
    for shot in ({"prompt": "a"}, {"prompt": "b", "motion": {"feedback": {}}}, {"image": "gs://bucket/c.png"}):
        assert card(shot)[0, 0].tolist() == list(PAPER)
    assert ACCENT != INK
