"""Frames between two keyframes: by optical flow for walks, by the known camera move for feedback."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from nightreel_pipelines.base import no_pictures
from nightreel_pipelines.beginning import beginning, in_colors_of, moved
from nightreel_pipelines.carry import Carry
from nightreel_pipelines.drift import similarity
from nightreel_pipelines.inbetween import Flow
from nightreel_pipelines.recipe import Recipe, Start, Warp

Picture = npt.NDArray[np.uint8]
SIZES = [(96, 160), (160, 96), (128, 128), (360, 640)]
STILL = Warp(1.0, (0.0, 0.0), 0.0, 0.5)


def texture(height: int, width: int, seed: int = 0) -> Picture:
    """Soft coloured clouds with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for cells in 4, 9, 20:
        spread = 6.0 / math.sqrt(float(cells))
        spots = rng.normal(size=(cells, cells * width // height + 1, 3)).astype(np.float32)
        total += cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC) * spread
    return np.clip(128 + 18 * total, 0, 255).astype(np.uint8)


def psnr(one: Picture, other: Picture) -> float:
    error = float(np.mean((one.astype(float) - other) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def middle(picture: Picture, part: float = 0.15) -> Picture:
    """Without the border: what comes into sight cannot be known."""
    height, width = picture.shape[:2]
    y, x = round(part * height), round(part * width)
    return picture[y : height - y, x : width - x]


# Flow


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_between_two_equal_pictures_lies_that_picture(height: int, width: int, at: float) -> None:
    picture = texture(height, width)

    assert np.abs(Flow(picture, picture).frame(at).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("shift", [(6, 0), (0, -5), (9, 4), (-3.5, 2.25)])
@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_what_moves_evenly_is_found_on_its_way(shift: tuple[float, float], at: float) -> None:
    large = texture(160, 240)

    def view(share: float) -> Picture:
        offset = np.array([[1, 0, share * shift[0]], [0, 1, share * shift[1]]], dtype=float)
        moved_ = cv2.warpAffine(large, offset, (240, 160), flags=cv2.INTER_CUBIC)
        return moved_[32:128, 40:200].astype(np.uint8)

    found = Flow(view(0), view(1)).frame(at)

    mixed = cv2.addWeighted(view(0), 1 - at, view(1), at, 0).astype(np.uint8)
    assert psnr(middle(found), middle(view(at))) > 38
    assert psnr(middle(found), middle(view(at))) > psnr(middle(mixed), middle(view(at))) + 6


def test_a_turn_and_a_zoom_are_followed_as_well_as_a_shift() -> None:
    large = texture(160, 240)

    def view(share: float) -> Picture:
        return moved(large, Warp(1.25, (0.0, 0.0), 8.0, share))[32:128, 40:200]

    assert psnr(middle(Flow(view(0), view(1)).frame(0.5)), middle(view(0.5))) > 38


def test_at_the_border_the_picture_that_has_what_is_seen_is_shown() -> None:
    large = texture(160, 240)

    def view(share: float) -> Picture:
        left = round(40 + 6 * share)
        return large[32:128, left : left + 160]

    found = Flow(view(0), view(1)).frame(0.5)

    for part in (slice(0, 5), slice(-5, None)):
        assert psnr(found[8:-8, part], view(0.5)[8:-8, part]) > 38


def landscape(
    sky: tuple[int, int, int], low: tuple[int, int, int], hill: tuple[int, int, int], sun: tuple[int, int, int]
) -> Picture:
    y = np.linspace(0, 1, 128, dtype=np.float32)[:, None, None]
    picture = np.broadcast_to((1 - y) * np.array(sky, np.float32) + y * np.array(low, np.float32), (128, 192, 3)).copy()
    picture[np.arange(128)[:, None] > 80 + 10 * np.sin(np.arange(192) / 20)[None]] = hill
    cv2.circle(picture, (120, 40), 14, sun, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 1.5).round().astype(np.uint8)


def test_a_sunset_becomes_night_in_place() -> None:
    """Flow that is not held back tears skies apart where the light changes."""
    day = landscape((80, 40, 110), (255, 150, 70), (40, 70, 160), (230, 60, 30))
    night = landscape((5, 5, 20), (25, 25, 70), (40, 20, 60), (240, 240, 220))

    found = Flow(day, night).frame(0.5).astype(int)

    assert np.abs(found - (day.astype(int) + night) / 2).mean() < 2.2


def test_something_that_passes_before_a_ground_leaves_no_ghost() -> None:
    # Given a red square that moves before a still ground
    ground = texture(128, 192, seed=3)

    def view(x: int) -> Picture:
        picture = ground.copy()
        cv2.rectangle(picture, (x, 50), (x + 28, 78), (220, 30, 30), -1)
        return picture

    # When the frame halfway is made
    found = Flow(view(70), view(80)).frame(0.5).astype(int)

    # Then it lies halfway, and the ground shows where it was and where it will be
    assert np.abs(found[55:73, 80:100] - (220, 30, 30)).mean() < 6
    for left, right in ((64, 71), (108, 115)):
        assert np.abs(found[52:76, left:right] - ground[52:76, left:right]).mean() < 12


@pytest.mark.parametrize("seed", range(3))
def test_pictures_that_have_nothing_in_common_dissolve_without_seams(seed: int) -> None:
    # Given a bright picture and a dark one that nothing joins
    first, second = texture(96, 160, seed), texture(96, 160, seed + 10) // 4

    # When the frame halfway is made
    found = Flow(first, second).frame(0.5)

    # Then it is hardly rougher than the two mixed
    def roughness(picture: Picture) -> float:
        return float(np.abs(cv2.Laplacian(picture.astype(np.float32), cv2.CV_32F)).mean())

    mixed = cv2.addWeighted(first, 0.5, second, 0.5, 0).astype(np.uint8)
    assert roughness(found) < 1.5 * roughness(mixed)
    assert abs(float(found.mean()) - float(mixed.mean())) < 3


def test_nightfall_is_no_motion() -> None:
    day = texture(96, 160)
    night = (day * 0.4).astype(np.uint8)

    found = Flow(day, night).frame(0.5).astype(int)

    mixed = (day.astype(int) + night) / 2
    assert np.abs(found - mixed).mean() < 2


def test_frames_near_a_keyframe_are_nearly_that_keyframe() -> None:
    first, second = texture(96, 160), np.roll(texture(96, 160), 5, axis=1)
    flow = Flow(first, second)

    assert np.abs(flow.frame(0.01).astype(int) - first).mean() < 2
    assert np.abs(flow.frame(0.99).astype(int) - second).mean() < 2


def test_frames_do_not_depend_on_the_number_of_threads_or_on_each_other() -> None:
    first, second = texture(180, 320), np.roll(texture(180, 320), 5, axis=1)
    threads = cv2.getNumThreads()
    try:
        found = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            flow = Flow(first, second)
            flow.frame(0.3 if count == 2 else 0.8)
            found.append(flow.frame(0.5))
    finally:
        cv2.setNumThreads(threads)

    assert all(np.array_equal(found[0], other) for other in found)


# Known moves


@pytest.mark.parametrize(
    "warp",
    [
        Warp(1.0, (0.0, 0.0), 0.0, 1.0),
        Warp(1.3, (0.1, -0.2), 30.0, 1.0),
        Warp(0.5, (0.0, 0.5), -170.0, 1.0),
        Warp(1.0 + 1e-9, (0.3, 0.0), 1e-8, 1.0),
        Warp(1.0, (0.3, 0.1), 0.0, 1.0),
    ],
)
def test_to_move_for_one_second_and_then_for_two_is_to_move_for_three(warp: Warp) -> None:
    def matrix(seconds: float) -> Any:
        return np.vstack([similarity(warp, seconds, 160, 96), (0, 0, 1)])

    assert matrix(2) @ matrix(1) == pytest.approx(matrix(3), abs=1e-6)
    assert matrix(-1) @ matrix(1) == pytest.approx(np.eye(3), abs=1e-6)
    assert matrix(0) == pytest.approx(np.eye(3), abs=1e-12)


def test_a_move_goes_where_its_fields_say() -> None:
    def place(warp: Warp, x: float, y: float) -> Any:
        return np.array(similarity(warp, 1.0, 200, 100)) @ (x, y, 1)

    assert place(Warp(2.0, (0, 0), 0, 1), 110, 50) == pytest.approx((120, 50))  # things grow, away from the middle
    assert place(Warp(1.0, (0.1, 0), 0, 1), 100, 50) == pytest.approx((80, 50))  # the camera goes right
    assert place(Warp(1.0, (0, 0.1), 0, 1), 100, 50) == pytest.approx((100, 40))  # and down
    assert place(Warp(1.0, (0, 0), 90, 1), 110, 50) == pytest.approx((100, 40))  # the camera turns clockwise


@pytest.mark.parametrize("warp", [Warp(1.2, (0, 0), 0, 0.5), Warp(1.0, (0.2, 0), 0, 0.5), Warp(0.8, (0, 0.1), 9, 0.5)])
@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_a_picture_that_was_only_moved_is_carried_evenly(warp: Warp, at: float) -> None:
    # Given a picture and the same after a move, seen through a window, so that both are whole
    large = texture(240, 400)

    def view(share: float) -> Picture:
        scaled = Warp(warp.zoom, (warp.pan[0] * 160 / 400, warp.pan[1] * 96 / 240), warp.rotate, share * warp.seconds)
        return moved(large, scaled)[72:168, 120:280]

    # When it is carried, then it is where the camera would see it, up to its borders
    found = Carry(view(0), view(1), warp).frame(at)
    assert psnr(found, view(at)) > 33
    assert psnr(middle(found), middle(view(at))) > 38


def test_a_camera_that_stands_still_shows_what_is_drawn_anew_fade_in() -> None:
    first, second = texture(96, 160), (texture(96, 160) * 0.8).astype(np.uint8)

    found = Carry(first, second, STILL).frame(0.5).astype(int)

    assert np.abs(found - (first.astype(int) + second) / 2).mean() < 1.5


def test_what_was_drawn_a_little_aside_slides_there_and_is_never_double() -> None:
    # Given an edge that the model drew six pixels further than the camera moved it
    def view(x: int) -> Picture:
        picture = np.full((96, 160, 3), 200, dtype=np.uint8)
        picture[:, x:] = 40
        return cv2.GaussianBlur(picture, (0, 0), 2.0).astype(np.uint8)

    # When the frame halfway is made
    found = Carry(view(77), view(83), STILL).frame(0.5)

    # Then there is one edge, halfway
    assert np.abs(middle(found).astype(int) - middle(view(80))).mean() < 1.7


@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_what_a_pan_brings_into_sight_is_seen_from_the_keyframe_that_has_it(at: float) -> None:
    large = texture(240, 400)

    def view(share: float) -> Picture:
        return moved(large, Warp(1.0, (0.08, 0.0), 0.0, share * 0.5))[72:168, 120:280]

    found = Carry(view(0), view(1), Warp(1.0, (0.2, 0.0), 0.0, 0.5)).frame(at)

    assert psnr(found[:, -12:], view(at)[:, -12:]) > 30
    assert psnr(found[:, :12], view(at)[:, :12]) > 30


# The picture that a keyframe begins with


RECIPE = Recipe("flux/1", "abc", "fp32", "a sun", seed=5, steps=4, guidance=0.0, width=160, height=96)


def start(**fields: Any) -> Recipe:
    return Recipe(**{name: getattr(RECIPE, name) for name in RECIPE.__slots__} | {"start": Start("x", 0.5, **fields)})


def test_a_given_picture_of_any_shape_is_cut_around_its_middle() -> None:
    wide = np.zeros((48, 480, 3), dtype=np.uint8)
    wide[:, 200:280] = 255

    found = beginning(start(), {"x": wide}.__getitem__)

    assert found is not None
    assert found.shape == (96, 160, 3)
    assert found[:, 20:140].min() == 255


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = texture(96, 160)

    found = beginning(start(), {"x": picture}.__getitem__)

    assert found is not None
    assert np.array_equal(found, picture)
    assert beginning(RECIPE, no_pictures) is None


def test_what_comes_into_sight_is_the_mirror_image() -> None:
    picture = texture(96, 160)

    found = moved(picture, Warp(1.0, (0.25, 0.0), 0.0, 1.0))  # 40 pixels to the right

    assert np.array_equal(found[:, :120], picture[:, 40:])
    assert np.array_equal(found[:, 120:], picture[:, :119:-1])


def test_colors_are_taken_over_and_nothing_else() -> None:
    wanted, picture = texture(96, 160, 1), np.clip(texture(96, 160, 2) * 0.6 + 60, 0, 255).astype(np.uint8)

    found = in_colors_of(wanted, picture)

    means = [cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).mean((0, 1)) for each in (found, wanted)]
    assert means[0] == pytest.approx(means[1], abs=0.7)
    assert np.corrcoef(found.ravel(), picture.ravel())[0, 1] > 0.85
    assert np.abs(in_colors_of(picture, picture).astype(int) - picture).max() <= 1


def test_a_plain_picture_is_not_blown_up_to_the_contrast_of_another() -> None:
    plain = np.full((96, 160, 3), 100, dtype=np.uint8)
    plain[0, 0] = 101

    assert np.ptp(in_colors_of(texture(96, 160), plain).astype(int), axis=(0, 1)).max() < 10
