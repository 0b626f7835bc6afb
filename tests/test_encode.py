"""Frames become a video, and a video is what it should be, by the real ffmpeg."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nightreel_pipelines.encode import Decoded, Encoder, check, ffmpeg
from nightreel_pipelines.errors import BadVideo, Cancelled, EncoderFailed

Picture = npt.NDArray[np.uint8]

WIDTH, HEIGHT, FPS, FRAMES = 96, 64, 12, 30


def moving(count: int = FRAMES) -> list[Picture]:
    """A texture that travels: every frame differs, none is trivial to encode."""
    texture = np.random.default_rng(5).integers(0, 256, (HEIGHT // 4, WIDTH // 4 + 8, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(texture).resize((WIDTH + 64, HEIGHT)))
    return [np.ascontiguousarray(large[:, index % 64 : index % 64 + WIDTH]) for index in range(count)]


def encode(video: Path, frames: Iterable[Picture], *, crf: int = 18) -> Path:
    with Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=crf, preset="veryfast") as encoder:
        write(encoder, frames)
    return video


def write(encoder: Encoder, frames: Iterable[Picture]) -> None:
    for frame in frames:
        encoder.write(frame)


def checked(video: Path, **wrong: Any) -> Decoded:
    expected: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "frames": FRAMES}
    return check(video, poster=video.with_suffix(".jpg"), **expected | wrong)


def children() -> list[int]:
    """Processes that this one started and that still run, or wait to be collected."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "film.mp4", moving())


def test_a_film_decodes_to_what_was_asked_for(video: Path) -> None:
    decoded = checked(video)

    assert (decoded.width, decoded.height, decoded.fps, decoded.frames) == (WIDTH, HEIGHT, FPS, FRAMES)
    assert decoded.duration_s == FRAMES / FPS
    assert decoded.size_bytes == video.stat().st_size
    assert len(decoded.digest) == 64


def test_its_frames_come_back_in_order_and_nearly_as_they_were(video: Path) -> None:
    # Given a film, when another decoder reads it
    reader = cv2.VideoCapture(str(video))
    back = [reader.read()[1][:, :, ::-1] for _ in range(FRAMES)]
    reader.release()

    # Then every frame is nearest to the one that was written in its place
    frames = moving()
    for index in range(0, FRAMES, 5):
        distances = [np.abs(back[index].astype(int) - frame).mean() for frame in frames]
        assert int(np.argmin(distances)) == index
        assert min(distances) < 12


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 120, 90)]
)
def test_colours_come_back_right(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    # Given a film of one colour
    frames = [np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8)] * 3
    video = encode(tmp_path / "film.mp4", frames, crf=4)

    # When it is decoded by what its tags say
    run = subprocess.run(
        [ffmpeg(), "-v", "error", "-i", video, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"],
        capture_output=True,
        check=True,
    )
    back = np.frombuffer(run.stdout, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)

    # Then the colour is the same, and in the poster too
    checked(video, frames=3)
    poster = np.asarray(Image.open(tmp_path / "film.jpg").convert("RGB"))
    assert np.abs(back.astype(int) - colour).max() <= 3
    assert np.abs(poster.astype(int) - colour).max() <= 6


def test_a_film_says_which_colours_it_means(video: Path) -> None:
    said = subprocess.run([ffmpeg(), "-hide_banner", "-i", video], capture_output=True, text=True, check=False).stderr

    assert "yuv420p(tv, bt709, progressive)" in said  # one name for matrix, primaries and transfer


def test_a_player_can_start_before_the_whole_film_is_there(video: Path) -> None:
    content = video.read_bytes()

    assert content.index(b"moov") < content.index(b"mdat")


def test_equal_frames_give_equal_files_and_digests(tmp_path: Path) -> None:
    one, same = (encode(tmp_path / name, moving()) for name in ("one.mp4", "same.mp4"))
    other = encode(tmp_path / "other.mp4", moving()[::-1])

    assert one.read_bytes() == same.read_bytes()
    assert checked(one).digest == checked(same).digest != checked(other).digest
    assert (tmp_path / "one.jpg").read_bytes() == (tmp_path / "same.jpg").read_bytes()


def test_the_poster_is_the_frame_at_a_third_of_the_film(video: Path) -> None:
    checked(video)

    poster = np.asarray(Image.open(video.with_suffix(".jpg")).convert("RGB")).astype(int)
    distances = [np.abs(poster - frame).mean() for frame in moving()]
    assert int(np.argmin(distances)) == FRAMES // 3


def test_a_film_of_one_frame_has_a_poster(tmp_path: Path) -> None:
    video = encode(tmp_path / "film.mp4", moving(1))

    assert checked(video, frames=1).frames == 1
    assert (tmp_path / "film.jpg").is_file()


def test_an_encoder_that_is_killed_fails_the_film_and_leaves_no_file(tmp_path: Path) -> None:
    # Given an encoder at work
    video = tmp_path / "film.mp4"
    before = set(children())
    encoder = Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=18)
    encoder.write(moving(1)[0])
    (pid,) = set(children()) - before

    # When the kernel kills it
    os.kill(pid, signal.SIGKILL)

    # Then the next frames cannot be written, and the error says why
    with pytest.raises(EncoderFailed, match="signal 9") as failed:
        write(encoder, moving(200))
    assert isinstance(failed.value.__cause__, BrokenPipeError)
    assert pid not in children()
    assert not video.exists()


def test_an_encoder_that_is_killed_before_the_end_is_noticed_at_the_end(tmp_path: Path) -> None:
    before = set(children())
    encoder = Encoder(tmp_path / "film.mp4", width=WIDTH, height=HEIGHT, fps=FPS, crf=18)
    (pid,) = set(children()) - before
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(EncoderFailed, match="signal 9"):
        encoder.finish()


def test_an_encoder_that_cannot_write_says_what_ffmpeg_said(tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed, match="No such file or directory"):
        encode(tmp_path / "no folder" / "film.mp4", moving(2))


def test_a_film_without_frames_fails(tmp_path: Path) -> None:
    with pytest.raises((EncoderFailed, BadVideo)):
        checked(encode(tmp_path / "film.mp4", []), frames=0)


def test_a_film_that_is_called_off_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    # Given a film half done
    before = children()
    video = tmp_path / "film.mp4"

    # When the body of its context raises
    def called_off() -> Iterator[Picture]:
        for frame in moving(2000):
            yield frame
            if video.exists():
                raise Cancelled("called off")

    with pytest.raises(Cancelled), Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=18) as encoder:
        write(encoder, called_off())

    # Then nothing of it is left, and aborting again does no harm
    encoder.abort()
    assert not video.exists()
    assert children() == before


def test_even_an_encoder_that_hangs_can_be_aborted(tmp_path: Path) -> None:
    before = set(children())
    encoder = Encoder(tmp_path / "film.mp4", width=WIDTH, height=HEIGHT, fps=FPS, crf=18)
    (pid,) = set(children()) - before
    os.kill(pid, signal.SIGSTOP)

    encoder.abort()

    assert pid not in children()


def test_a_finished_film_is_not_removed_by_a_late_abort(tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    encoder = Encoder(video, width=WIDTH, height=HEIGHT, fps=FPS, crf=18)
    encoder.write(moving(1)[0])
    encoder.finish()

    encoder.abort()

    assert checked(video, frames=1).frames == 1


def test_ffmpeg_stays_in_its_callers_process_group(tmp_path: Path) -> None:
    before = set(children())
    encoder = Encoder(tmp_path / "film.mp4", width=WIDTH, height=HEIGHT, fps=FPS, crf=18)
    (pid,) = set(children()) - before

    group = os.getpgid(pid)
    encoder.abort()

    assert group == os.getpgid(0)


def test_a_frame_of_another_size_is_refused_before_it_can_shift_all_that_follow(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"\(64, 64, 3\)"),
        Encoder(tmp_path / "film.mp4", width=WIDTH, height=HEIGHT, fps=FPS, crf=18) as encoder,
    ):
        encoder.write(np.zeros((64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frames": FRAMES + 1}, "30 frames, the job asked for 31"),
        ({"frames": FRAMES - 1}, "30 frames, the job asked for 29"),
        ({"width": 128}, "96x64, the job asked for 128x64"),
        ({"height": 96}, "96x64, the job asked for 96x96"),
        ({"fps": 24}, "not 24 fps"),
        ({"fps": 6}, "not 6 fps"),
    ],
)
def test_a_film_that_is_not_what_was_asked_for_is_refused_by_name(
    video: Path, wrong: dict[str, int], said: str
) -> None:
    with pytest.raises(BadVideo, match=said):
        checked(video, **wrong)
    assert not video.with_suffix(".jpg").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_film_that_was_cut_short_is_refused(video: Path, share: float) -> None:
    content = video.read_bytes()
    video.write_bytes(content[: int(share * len(content))])

    with pytest.raises(BadVideo):
        checked(video)


def test_a_film_with_damage_in_the_middle_is_refused(video: Path) -> None:
    # Given a film of which a part was overwritten, length and index unharmed
    content = bytearray(video.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 1000] = np.random.default_rng(1).bytes(1000)
    video.write_bytes(content)

    with pytest.raises(BadVideo, match="decode"):
        checked(video)


def test_what_is_not_a_film_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("not a film")

    with pytest.raises(BadVideo, match="does not decode"):
        checked(tmp_path / "film.mp4")
    with pytest.raises(BadVideo, match="No such file"):
        checked(tmp_path / "missing.mp4")


def test_a_check_that_hangs_ends(tmp_path: Path) -> None:
    # Given a pipe that nobody writes to
    os.mkfifo(tmp_path / "film.mp4")

    # When it is checked, then it is given up and ffmpeg is gone
    before, start = children(), time.monotonic()
    with pytest.raises(BadVideo, match=r"more than 0\.5 s"):
        checked(tmp_path / "film.mp4", timeout_s=0.5)
    assert time.monotonic() - start < 15
    assert children() == before


def test_names_with_odd_letters_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / "a %03d b'c"
    folder.mkdir()
    video = encode(folder / "-f:il,m [1] %d.mp4", moving())

    assert checked(video).frames == FRAMES
    assert sorted(path.name for path in folder.iterdir()) == ["-f:il,m [1] %d.jpg", "-f:il,m [1] %d.mp4"]


def test_a_check_needs_neither_numpy_nor_torch_nor_opencv(video: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nightreel_pipelines.encode import check;"
        f"check(Path({str(video)!r}), width={WIDTH}, height={HEIGHT}, fps={FPS}, frames={FRAMES},"
        f" poster=Path({str(video.with_suffix('.jpg'))!r}));"
        "sys.exit(bool({'numpy', 'torch', 'cv2', 'PIL'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
