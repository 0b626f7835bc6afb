"""Frames between two keyframes of which only the pictures are known: motion is found, followed and mixed.

OpenCV's DIS optical flow (T. Kroeger and others, 2016) is taken both ways, between pictures whose light and contrast are
evened out, so that nightfall is no motion. For a place between the two, each picture is moved along its own flow, and the
two are mixed. Three rules keep artefacts away:

- A flow is trusted where the way back leads to where it began, and the same is seen there. Elsewhere the flow of the
  trusted surrounding stands in, and fades with distance: what cannot be followed dissolves in place.
- Where all around is followed well and one of the two pictures has something that the other lacks, that picture is
  shown. Where little can be followed, the two are mixed evenly: there the difference is no question of what hides what.
- Every field is smooth, so no seam shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float32]
V = TypeVar("V", "npt.NDArray[np.float32]", "npt.NDArray[np.uint8]")

FLOW_PIXELS = 480 * 270  # flow is looked for in pictures reduced to about this: finer is slower and no better
SMALLEST_PX = 32  # side of those pictures
ROUNDS = 3  # of looking for where a pixel came from
SLACK = 0.015  # of a picture's height: a flow whose way back misses by this much is a third trusted
SURROUNDING = 0.06  # of a picture's height: standard deviation of what counts as around a pixel
QUIET = 6.0  # grey levels: contrast below this is not raised much
CONTRAST = 48.0  # grey levels that evened pictures give to the contrast of a surrounding
UNLIKE = 0.7  # of that contrast: where the flow leads to something so different, it is a third trusted
OTHER_LIGHT = 30.0  # grey levels: pictures that differ by this all around count as hardly followed
STIFF = 0.05  # mean trust of a surrounding below which its flow fades


class Flow:
    """Two pictures of one size and how each becomes the other."""

    def __init__(self, first: Picture, second: Picture) -> None:
        """uint8 (H, W, 3), RGB."""
        self._sides = first, second
        greys = _reduced(first), _reduced(second)
        evened = _evened(greys[0]), _evened(greys[1])
        flows = _flow(*evened), _flow(*evened[::-1])
        self._paths = (
            _Path(flows[0], flows[1], greys, evened),
            _Path(flows[1], flows[0], greys[::-1], evened[::-1]),
        )

    def frame(self, at: float) -> Picture:
        """The picture at a place between the two: 0 < at < 1."""
        (first, seen, followed), (second, other_seen, other_followed) = (
            path.carried(picture, share)
            for path, picture, share in zip(self._paths, self._sides, (at, 1 - at), strict=True)
        )
        hides = np.minimum(followed, other_followed)
        only_first, only_second = hides * seen * (1 - other_seen), hides * other_seen * (1 - seen)
        weight, other_weight = (1 - at) * (1 - only_second), at * (1 - only_first)
        share = other_weight / (weight + other_weight)
        return _mixed(first, second, share.astype(np.float32, copy=False))

    def displacements(self, at: float) -> tuple[Floats, Floats]:
        """For each pixel of the frame at this place, where it lies in the first picture and in the second.

        (h, w, 2) each, x and y as differences from its own place, in pixels of pictures reduced to h x w.
        """
        first, second = (path.origins(share) for path, share in zip(self._paths, (at, 1 - at), strict=True))
        return first, second


class _Path:
    """How one picture becomes the other."""

    def __init__(self, flow: Floats, back: Floats, greys: tuple[Picture, ...], evened: tuple[Picture, ...]) -> None:
        there = _grid(flow) + flow
        returned = flow + sampled(back, there)
        missed = np.sum(returned**2, axis=2) / (SLACK * len(flow)) ** 2
        unlike = cv2.GaussianBlur((sampled(evened[1], there).astype(np.float32) - evened[0]) / CONTRAST, (0, 0), 2.0)
        trust = _spread(np.exp(-missed - (unlike / UNLIKE) ** 2), _inside(there))
        light = (sampled(greys[1], there).astype(np.float32) - greys[0]) / OTHER_LIGHT
        followed = _around(trust * np.exp(-(light**2)))
        self._trust = cv2.GaussianBlur(trust, (0, 0), 1.5).astype(np.float32, copy=False)
        self._followed = np.minimum(1.25 * followed, 1)
        near = (self._trust * self._followed)[:, :, None]
        calm = _around(flow * trust[:, :, None]) / (_around(trust) + STIFF)[:, :, None]
        self._flow = near * flow + (1 - near) * calm

    def carried(self, picture: Picture, share: float) -> tuple[Picture, Floats, Floats]:
        """The picture after a share of the way; where it is seen rightly, and where all around is followed (0 to 1)."""
        grid, origins = _grid(self._flow), self.origins(share)
        places = grid + origins
        missed = origins + share * sampled(self._flow, places)
        certain = np.exp(-np.sum(missed**2, axis=2)) * _inside(places)
        scale = np.array((picture.shape[1] / grid.shape[1], picture.shape[0] / grid.shape[0]), dtype=np.float32)
        fine = _grid(picture) + _resized(origins * scale, picture)
        return sampled(picture, fine), certain, sampled(self._followed, places)

    def origins(self, share: float) -> Floats:
        """(h, w, 2): from each place after a share of the way, how far back it was at the start."""
        grid = _grid(self._flow)
        origins: Floats = np.zeros_like(self._flow)
        for _ in range(ROUNDS):
            origins = np.float32(-share) * sampled(self._flow, grid + origins)
        return origins


def _reduced(picture: Picture) -> Picture:
    """Grey, of at most FLOW_PIXELS."""
    height, width = picture.shape[:2]
    scale = min(1.0, (FLOW_PIXELS / (width * height)) ** 0.5)
    size = max(SMALLEST_PX, round(width * scale)), max(SMALLEST_PX, round(height * scale))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _evened(grey: Picture) -> Picture:
    """Differences from the surrounding in units of its contrast: about the same by day and by night."""
    away = grey.astype(np.float32) - _around(grey.astype(np.float32))
    contrast = np.sqrt(_around(away**2) + QUIET**2)
    levels: Picture = np.clip(np.rint(128 + CONTRAST * away / contrast), 0, 255).astype(np.uint8)
    return levels


def _flow(one: Picture, other: Picture) -> Floats:
    """(H, W, 2): how far each pixel of `one` has gone in `other`, in pixels."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(one, other, None).astype(np.float32, copy=False)  # type: ignore[call-overload,no-any-return]  # stubs refuse None


def _grid(field: npt.NDArray[Any]) -> Floats:
    """(H, W, 2): x and y of each pixel."""
    height, width = field.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=2)


def sampled(field: V, places: Floats, *, mirror: bool = False) -> V:
    """What lies at these places (H, W, 2), between the pixels too; beyond the border its last pixel, or a mirror image."""
    border = cv2.BORDER_REFLECT if mirror else cv2.BORDER_REPLICATE
    # No second map, as both x and y are in the first. OpenCV's types do not know that None may be said; an empty array,
    # which they would accept, is taken for a map (5.0.0).
    found = cv2.remap(field, places, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload]  # stubs refuse None
    return found.astype(field.dtype, copy=False)  # type: ignore[no-any-return]  # as above


def _inside(places: Floats) -> Floats:
    """(H, W): 1 for places in the picture, 0 beyond it, in half a pixel's step."""
    height, width = places.shape[:2]
    x, y = places[:, :, 0], places[:, :, 1]
    room = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    inside: Floats = np.clip(1 + 2 * room, 0, 1).astype(np.float32, copy=False)
    return inside


def _spread(trust: Floats, known: Floats) -> Floats:
    """Trust where it is known; what leaves the picture is trusted as its surrounding is."""
    around = _around(trust * known) / (_around(known) + np.float32(1e-3))
    return known * trust + (1 - known) * around


def _around(field: Floats) -> Floats:
    """The mean of each pixel's surrounding."""
    return cv2.GaussianBlur(field, (0, 0), SURROUNDING * len(field)).astype(np.float32, copy=False)


def _resized(field: Floats, picture: Picture) -> Floats:
    size = (picture.shape[1], picture.shape[0])
    return cv2.resize(field, size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def _mixed(first: Picture, second: Picture, share: Floats) -> Picture:
    fine = _resized(share, first)
    return cv2.blendLinear(first, second, 1 - fine, fine).astype(np.uint8, copy=False)
