"""What a camera move looks like: where it looks, how smoothly, and that it never shows a border."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nightreel_pipelines.camera import WORKING_MEGAPIXELS, Camera, Pyramid
from nightreel_pipelines.easing import ease
from nightreel_queue.motions import DEFAULT_MOTION, Motion, Move

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIZES = ((320, 180), (180, 320), (128, 128), (320, 64))
EASES: tuple[Literal["linear", "in", "out", "in_out"], ...] = ("linear", "in", "out", "in_out")
BACKGROUND = 20.0


def random_motions(count: int) -> list[Move]:
    rng = np.random.default_rng(7)
    motions = []
    for _ in range(count):
        zoom, pan = tuple(rng.uniform(1, 4, 2).tolist()), tuple(rng.uniform(-1, 1, 2).tolist())
        fields: dict[str, Any] = {"zoom": zoom, "pan": pan, "rotate": float(rng.uniform(-180, 180))}
        kept = {name: value for name, value in fields.items() if rng.random() < 0.7} or {"zoom": zoom}
        focus = tuple(rng.uniform(0.1, 0.9, 2).tolist())
        motions.append(Move(**kept, focus=focus, ease=EASES[int(rng.integers(4))]))
    return motions


def dot(width: int, height: int, at: tuple[float, float], sigma: float) -> Picture:
    """A soft dot at a place in the keyframe, in keyframe sizes."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    away = (x - at[0] * width) ** 2 + (y - at[1] * height) ** 2
    grey = BACKGROUND + 200 * np.exp(-away / (2 * sigma**2))
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def noise(width: int, height: int) -> Picture:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def centroid(frame: Picture, near: Floats) -> Floats:
    """Of the dot that is seen about there; its faint rim, which is mostly rounding, does not count."""
    left, top = (int(max(0, side - 50)) for side in near)
    grey = frame[top : top + 100, left : left + 100, 0].astype(float)
    grey = np.maximum(grey - BACKGROUND - 10, 0)
    x, y = np.arange(grey.shape[1]) + 0.5 + left, np.arange(grey.shape[0]) + 0.5 + top
    return np.array([(grey.sum(0) * x).sum(), (grey.sum(1) * y).sum()]) / float(grey.sum())


def seen_at(camera: Camera, place: Floats) -> Floats:
    """(frames, 2): where in each frame, in pixels, a place of the picture is seen, by the closed form."""
    return np.array([np.linalg.solve(view[:, :2], place - view[:, 2]) for view in camera.views])


def in_picture(at: tuple[float, float], keyframe: tuple[int, int], frame: tuple[int, int]) -> Floats:
    """A place in the keyframe (keyframe sizes) as a place in the picture: cropped around the middle, not squeezed."""
    scale = min(keyframe[0] / frame[0], keyframe[1] / frame[1])
    crop = (frame[0] * scale, frame[1] * scale)
    return np.array([(at[axis] * keyframe[axis] - (keyframe[axis] - crop[axis]) / 2) / crop[axis] for axis in (0, 1)])


@pytest.mark.parametrize("size", SIZES)
def test_no_motion_ever_looks_past_the_pictures_border(size: tuple[int, int]) -> None:
    for motion in random_motions(60):
        camera = Camera(motion, *size, frames=25)

        corners = camera.corners

        assert corners.min() >= -1e-9, motion
        assert corners.max() <= 1 + 1e-9, motion


def test_a_picture_is_enlarged_no_more_than_its_motion_needs() -> None:
    for motion in random_motions(60):
        camera = Camera(motion, 320, 180, frames=25)

        touching = min(camera.corners.min(), 1 - camera.corners.max())

        assert camera.overscan == 1.0 or touching == pytest.approx(0, abs=1e-9), motion


@pytest.mark.parametrize("keyframe", [(336, 176), (90, 200), (1000, 400)])
def test_what_lies_outside_the_crop_never_shows(keyframe: tuple[int, int]) -> None:
    # Given a green keyframe of another shape than the film, red where the crop to the film's shape must cut it off
    width, height = keyframe
    crop = np.array((320, 180)) * min(width / 320, height / 180)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[:, :, 0] = 255
    left, top = np.ceil((np.array(keyframe) - crop) / 2 - 8).clip(0).astype(int)
    picture[top : height - top, left : width - left] = (0, 255, 0)

    # When all kinds of moves are rendered
    frames = [
        Pyramid(picture, Camera(motion, 320, 180, 9)).frame(index) for motion in random_motions(20) for index in (0, 8)
    ]

    # Then every pixel is green (a filter may reach eight keyframe pixels over the crop's edge, never further)
    assert max(int(frame[:, :, 0].max()) for frame in frames) == 0
    assert min(int(frame[:, :, 1].min()) for frame in frames) == 255


def test_zoom_pan_and_rotate_compose_as_the_formula_says() -> None:
    # Given a move with everything in it
    move = Move(zoom=(1.2, 2.0), pan=(0.3, -0.1), rotate=30, focus=(0.3, 0.6), ease="linear")
    camera = Camera(move, 320, 180, 11)

    # When the corner views are computed by hand, one frame and corner at a time
    for frame, (across, down) in itertools.product(range(11), itertools.product((-0.5, 0.5), repeat=2)):
        progress = frame / 10
        total = 1.2 * (2.0 / 1.2) ** progress * camera.overscan
        angle = np.radians(30) * (progress - 0.5)
        x, y = across * 320, down * 180
        turned = ((x * np.cos(angle) - y * np.sin(angle)) / 320, (x * np.sin(angle) + y * np.cos(angle)) / 180)
        by_hand = (
            0.3 + ((0.5 - 0.3) + 0.3 * (progress - 0.5) + turned[0]) / total,
            0.6 + ((0.5 - 0.6) - 0.1 * (progress - 0.5) + turned[1]) / total,
        )

        # Then the camera agrees
        corner = camera.views[frame] @ ((across + 0.5) * 320, (down + 0.5) * 180, 1)
        assert corner == pytest.approx(by_hand, abs=1e-12)


def test_the_focus_stays_where_it_is_while_the_camera_zooms() -> None:
    camera = Camera(Move(zoom=(1.0, 3.0), focus=(0.3, 0.8)), 320, 180, 20)

    places = seen_at(camera, np.array((0.3, 0.8)))

    assert np.abs(places - (0.3 * 320, 0.8 * 180)).max() < 1e-9


def test_a_linear_zoom_enlarges_every_frame_by_the_same_factor() -> None:
    camera = Camera(Move(zoom=(1.0, 2.0), ease="linear"), 320, 180, 31)

    factors = camera.magnifications[1:] / camera.magnifications[:-1]

    assert camera.magnifications[[0, -1]] == pytest.approx((1.0, 2.0))
    assert np.ptp(factors) < 1e-12


@pytest.mark.parametrize(
    ("motion", "direction"),
    [(Move(pan=(0.2, 0)), (-1, 0)), (Move(pan=(0, 0.2)), (0, -1)), (Move(rotate=20), (0, -1))],
    ids=["right", "down", "clockwise"],
)
def test_what_is_seen_moves_against_the_camera(motion: Motion, direction: tuple[int, int]) -> None:
    # Given something at the right of the picture
    camera = Camera(motion, 320, 180, 10)

    # When the camera travels right, travels down or turns clockwise
    places = seen_at(camera, np.array((0.75, 0.5)))

    # Then that thing goes left, goes up or swings up
    way = places[-1] - places[0]
    assert np.sign(way[np.flatnonzero(direction)]) == np.array(direction)[np.flatnonzero(direction)]
    assert np.abs(way).argmax() == np.abs(direction).argmax()


@pytest.mark.parametrize(("kind", "starts", "stops"), [("linear", 1, 1), ("in", 0, 2), ("out", 2, 0), ("in_out", 0, 0)])
def test_an_ease_runs_from_0_to_1_and_starts_and_stops_as_gently_as_its_name_says(
    kind: str, starts: float, stops: float
) -> None:
    progress = np.linspace(0, 1, 10001)

    eased = ease(kind, progress)

    speeds = np.diff(eased) / np.diff(progress)
    assert (eased[0], eased[-1]) == (0, 1)
    assert (speeds >= 0).all()
    assert (speeds[0], speeds[-1]) == pytest.approx((starts, stops), abs=1e-3)
    assert np.abs(np.diff(speeds)).max() < 1e-3  # no kink


@pytest.mark.parametrize("motion", ["still", Move(zoom=(1.5, 1.5))])
def test_every_frame_of_a_shot_without_movement_is_the_same(motion: Motion) -> None:
    camera = Camera(motion, 128, 72, 5)
    pyramid = Pyramid(noise(160, 96), camera)

    frames = [pyramid.frame(index) for index in range(5)]

    assert camera.still
    assert all((frame == frames[0]).all() for frame in frames)


@pytest.mark.parametrize("motion", ["still", DEFAULT_MOTION])
def test_a_keyframe_of_the_films_own_size_is_shown_as_it_is(motion: Motion) -> None:
    keyframe = noise(128, 72)

    first = Pyramid(keyframe, Camera(motion, 128, 72, 30)).frame(0)

    assert (first == keyframe).all()


def test_a_still_shot_is_one_antialiased_resize_of_the_middle() -> None:
    keyframe = noise(300, 200)

    frame = Pyramid(keyframe, Camera("still", 128, 64, 5)).frame(0)

    box = (0, 25, 300, 175)
    expected = Image.fromarray(keyframe).resize((128, 64), Image.Resampling.LANCZOS, box=box)
    assert (frame == np.asarray(expected)).all()


def test_a_single_frame_can_be_had_of_a_move() -> None:
    frame = Pyramid(noise(128, 72), Camera(DEFAULT_MOTION, 128, 72, 1)).frame(0)

    assert frame.shape == (72, 128, 3)
    assert frame.flags.c_contiguous


@pytest.mark.parametrize("keyframe", [(176, 96), (672, 368), (1376, 768)])
@pytest.mark.parametrize(
    "motion",
    [DEFAULT_MOTION, Move(pan=(0.06, 0.03)), Move(zoom=(1.15, 1.0), rotate=2, focus=(0.4, 0.4))],
    ids=["zoom", "pan", "rotate"],
)
def test_a_slow_move_is_smooth_and_where_the_formula_says(motion: Motion, keyframe: tuple[int, int]) -> None:
    # Given a soft dot, in keyframes coarser and finer than the film
    at, frame, frames = (0.58, 0.45), (640, 360), 60
    camera = Camera(motion, *frame, frames)
    pyramid = Pyramid(dot(*keyframe, at, sigma=5 * keyframe[0] / frame[0]), camera)

    # When it is followed through the shot
    expected = seen_at(camera, in_picture(at, keyframe, frame))
    places = np.array([centroid(pyramid.frame(index), expected[index]) for index in range(frames)])

    # Then it is where it should be, and does not shake
    shaking = np.linalg.norm(np.diff(places - expected, 2, axis=0), axis=1)
    assert np.abs(places - expected).max() < 0.05
    assert shaking.mean() < 0.03


def test_a_slow_zoom_of_four_seconds_hardly_accelerates() -> None:
    # Given the default move of a default shot
    camera = Camera(DEFAULT_MOTION, 640, 360, 120)
    pyramid = Pyramid(dot(1360, 768, (0.8, 0.7), sigma=12), camera)

    # When a point is followed
    near = seen_at(camera, np.array((0.8, 0.7)))
    places = np.array([centroid(pyramid.frame(index), near[index]) for index in range(120)])

    # Then its mean acceleration is far below what an eye can see (zoompan: 0.78), and it never steps back
    assert np.linalg.norm(np.diff(places, 2, axis=0), axis=1).mean() <= 0.03
    assert np.diff(places[:, 0])[10:-10].min() > 0


@pytest.mark.parametrize("motion", [DEFAULT_MOTION, Move(pan=(0.02, 0.01)), Move(rotate=3)])
def test_a_pattern_too_fine_for_the_film_does_not_crawl(motion: Motion) -> None:
    # Given stripes of two keyframe pixels, in a keyframe with 2.4 pixels for each of the film's
    keyframe = np.zeros((432, 768, 3), dtype=np.uint8)
    keyframe[:, 1::2] = 255

    # When the camera moves over them
    camera = Camera(motion, 320, 180, 10)
    pyramid = Pyramid(keyframe, camera)

    # Then they are an even grey (but for the outermost, where the keyframe ends)
    for index in range(10):
        assert np.ptp(pyramid.frame(index)[:, 6:-6]) <= 4


def test_sharpness_changes_without_a_jump_in_a_zoom_into_a_keyframe_full_of_detail() -> None:
    # Given a keyframe with four pixels for each of the film's, and a zoom that passes through all of them
    camera = Camera(Move(zoom=(1.0, 3.0), ease="linear"), 192, 108, 60)
    pyramid = Pyramid(noise(768, 432), camera)

    # When the contrast of the finest detail is measured in each frame
    contrast = np.array([np.diff(pyramid.frame(index).astype(float), axis=1).std() for index in range(60)])

    # Then white noise gains contrast with the magnification, frame by frame and in no leaps
    assert contrast[-1] > 1.5 * contrast[0]
    assert np.abs(np.diff(np.log(contrast))).max() < 0.15


def test_frames_do_not_depend_on_the_order_in_which_they_are_made() -> None:
    camera = Camera(Move(zoom=(1.0, 3.0)), 96, 54, 20)
    forward, backward = Pyramid(noise(768, 432), camera), Pyramid(noise(768, 432), camera)

    there = [forward.frame(index) for index in range(20)]
    back = [backward.frame(index) for index in reversed(range(20))]

    assert all((one == other).all() for one, other in zip(there, reversed(back), strict=True))


@pytest.mark.parametrize("motion", [Move(zoom=(1.0, 4.0), pan=(1, 1)), DEFAULT_MOTION])
def test_the_working_picture_of_the_largest_film_stays_small(motion: Motion) -> None:
    # Given the largest keyframe and the largest film
    pyramid = Pyramid(np.zeros((2048, 2048, 3), dtype=np.uint8), Camera(motion, 2160, 2160, 10))

    # When its first and last frames are made
    pixels = []
    for index in (0, 9):
        pyramid.frame(index)
        pixels.append(pyramid.working_pixels)

    # Then no more than two levels are held, none above its limit
    assert max(pixels) <= 2 * WORKING_MEGAPIXELS * 1e6


def test_a_level_that_the_zoom_has_left_behind_is_dropped() -> None:
    # Given a zoom through all the detail of a large keyframe
    camera, keyframe = Camera(Move(zoom=(1.0, 4.0)), 128, 128, 40), np.zeros((1024, 1024, 3), dtype=np.uint8)
    pyramid, fresh = Pyramid(keyframe, camera), Pyramid(keyframe, camera)

    # When all of it is rendered, and elsewhere only its last frame but one
    for index in range(39):
        pyramid.frame(index)
    fresh.frame(38)

    # Then both hold the same
    assert pyramid.working_pixels == fresh.working_pixels > 0
