"""Says what a small landscape shows, by classical image analysis: numpy and opencv, no model and nothing learned.

It knows pocket's words (scripts/pocket/scene.py), not how its training pictures are drawn: colours are named by their hue,
the thing is what differs from the picture's left and right edges, its kind is the nearest of a few outlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""
Mask = npt.NDArray[np.bool_]
Lab = npt.NDArray[np.float32]
"""float32 (..., 3): CIE L*a*b*, in which distances are about as large as they look; 2 can just be seen."""

Level = TypeVar("Level", bound=np.generic)

SEVERAL, UNCLEAR = "several", ""

HORIZON_ROWS = (0.38, 0.80)
"""Share of the height where sky may meet ground."""
BAND = 0.06
"""Of the shorter side: bands of rows above and below are compared, wide enough to level waves out."""
STRAIGHT = 0.012  # of the shorter side: how far a straight horizon's rows may scatter
EDGE_COLUMNS = 0.08  # of the width, left and right, where nothing stands
EDGE_REACH = 0.16  # of the height: hills at the edges are so much higher or lower than in the middle
LEAST_DISTANCE, LEAST_FAINT = 9.0, 5.0
STRONG, FAINT = 0.33, 0.13
"""Of the strongest distance: what stands out by the first is a thing; what by the second and touches it belongs to it."""
GAP = 0.05  # of the shorter side: what is nearer belongs together, as a sail and its hull
HALO = 0.02  # of the shorter side: how far a soft edge reaches beyond its thing
AREAS = (0.004, 0.35)
"""Shares of the picture: what is smaller is a speck, what is larger is no thing in a landscape."""
SECOND = 0.4  # of the largest: a second thing of this area is one too many
OUTLINE_SIDE = 32
LEAST_LIKENESS = 0.55


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen, in the words of a Scene."""

    thing: str
    """SEVERAL for more than one, UNCLEAR for none or an unknown outline."""
    colour: str
    ground: str
    ground_colour: str
    """Of hills."""
    time: str


@dataclass(frozen=True, slots=True)
class _Blob:
    """A connected part of the picture that is no background."""

    mask: Mask
    left: int
    top: int
    width: int
    height: int
    area: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


def judge(picture: Picture) -> Verdict:
    """What the picture shows; each part is decided by itself, so that one may be wrong and the others right."""
    smooth: Picture = cv2.GaussianBlur(picture, (0, 0), 0.6).astype(np.uint8)
    lab = _lab(smooth)
    time = _time(smooth)
    horizon, scatter = _horizon(lab)
    ground, ground_colour = _ground(smooth, scatter)
    thing, colour = _thing(smooth, lab, horizon, ground == "sea", time)
    return Verdict(thing, colour, ground, ground_colour, time)


# Time of day: the colours of the sky


def _time(picture: Picture) -> str:
    height = len(picture)
    high, low = _median(picture[: height // 10]), _median(_edges(picture[int(0.30 * height) : int(0.40 * height)]))
    if low.max() < 100:
        return "night"
    if low[0] > low[2] + 15:
        return "sunset"
    return "fog" if np.ptp(high) < 40 else "day"


# Ground


def _horizon(lab: Lab) -> tuple[float, float]:
    """The row of the greatest change from top to bottom, and how far it scatters over the columns, as a share of the side."""
    height, width = lab.shape[:2]
    first, last = (int(share * height) for share in HORIZON_ROWS)
    reach = max(2, round(BAND * min(height, width)))
    sums = np.cumsum(_edges(lab, 0.25), axis=0)
    change = np.linalg.norm(sums[2 * reach :] - 2 * sums[reach:-reach] + sums[: -2 * reach], axis=2)
    rows = change[first - reach : last - reach].argmax(0) + first
    middle = float(np.median(rows))
    return middle, float(np.percentile(np.abs(rows - middle), 60)) / min(height, width)


def _ground(picture: Picture, scatter: float) -> tuple[str, str]:
    """The ground and, of hills, its colour: the hue at the bottom, and for blue whether the horizon is straight."""
    hue, _, _ = _hsv(_median(_edges(picture[int(0.85 * len(picture)) :], 0.25)))
    if 185 <= hue < 250:
        return ("sea", "") if scatter <= STRAIGHT else ("hills", "blue")
    if 34 <= hue < 70:
        return "dunes", ""
    if 70 <= hue < 185:
        return "hills", "green"
    return ("hills", "purple") if hue >= 250 else ("hills", "brown")


# The thing


def _thing(picture: Picture, lab: Lab, horizon: float, on_sea: bool, time: str) -> tuple[str, str]:
    distance = _distance_from_edges(lab)
    blobs = _blobs(distance, horizon)
    if on_sea:
        blobs = [blob for blob in blobs if not any(_mirrors(blob, other, horizon) for other in blobs)]
    if not blobs:
        return UNCLEAR, UNCLEAR
    first, *others = blobs
    thing, colour = _disc(picture, first, time) if first.bottom < horizon else _standing(picture, first)
    several = any(blob.area > SECOND * first.area for blob in others)
    return (SEVERAL if several else thing), colour


def _distance_from_edges(lab: Lab) -> npt.NDArray[np.float32]:
    """(H, W): how far each pixel's colour lies from the nearest colour of the edges, at about the same height."""
    height, width = lab.shape[:2]
    columns = max(2, int(EDGE_COLUMNS * width))
    edges = np.stack((lab[:, :columns].mean(1), lab[:, -columns:].mean(1)))
    reach = int(EDGE_REACH * height)
    rows = []
    for row in range(height):
        near = edges[:, max(0, row - reach) : row + reach + 1].reshape(-1, 3)
        rows.append(np.linalg.norm(lab[row][:, None] - near[None], axis=2).min(1))
    return np.stack(rows).astype(np.float32)


def _blobs(distance: npt.NDArray[np.float32], horizon: float) -> list[_Blob]:
    """Connected parts that stand out, the largest first."""
    strongest = float(np.percentile(distance, 99.7))
    strong = _joined(distance > max(LEAST_DISTANCE, STRONG * strongest))
    standing = np.zeros_like(strong)
    standing[int(horizon) :] = strong[int(horizon) :]
    faint = _joined(distance > max(LEAST_FAINT, FAINT * strongest))
    mask = (strong | _touching(faint, standing)).astype(np.uint8)
    count, numbers = cv2.connectedComponents(mask, connectivity=8)
    sharp = _sharp(distance)
    blobs = [_blob(_joined((numbers == number) & sharp)) for number in range(1, count)]
    least, most = (share * distance.size for share in AREAS)
    return sorted((blob for blob in blobs if least <= blob.area <= most), key=lambda blob: -blob.area)


def _sharp(distance: npt.NDArray[np.float32]) -> Mask:
    """Without the halo of soft edges: an edge lies where half of the contrast beside it is left."""
    reach = max(1, round(HALO * min(distance.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    sharp: Mask = distance >= 0.5 * cv2.dilate(distance, kernel)
    return sharp


def _blob(mask: Mask) -> _Blob:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return _Blob(mask, left, top, width, height, int(mask.sum()))


def _joined(mask: Mask) -> Mask:
    """With small gaps closed."""
    reach = max(3, round(GAP * min(mask.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0


def _touching(mask: Mask, seeds: Mask) -> Mask:
    """The connected parts that hold a seed."""
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    held = np.setdiff1d(np.unique(numbers[seeds & mask]), [0])
    touching: Mask = np.isin(numbers, held)
    return touching


def _mirrors(blob: _Blob, disc: _Blob, horizon: float) -> bool:
    """Whether it is the path that a disc in the sky throws on the water."""
    return disc.bottom < horizon and blob.top >= horizon - 2 and abs(blob.middle - disc.middle) < disc.width


def _disc(picture: Picture, blob: _Blob, time: str) -> tuple[str, str]:
    """Sun or moon: a round part of the sky. A white disc is a moon, a yellow one at night too; all others are suns."""
    round_share = blob.area / (np.pi / 4 * max(blob.width, blob.height) ** 2)
    colour = _colour_name(picture[_core(blob)], ("red", "yellow", "orange", "white"))
    if round_share < 0.6 or max(blob.width, blob.height) > 1.5 * min(blob.width, blob.height):
        return UNCLEAR, colour
    return ("moon" if colour == "white" or (colour == "yellow" and time == "night") else "sun"), colour


def _standing(picture: Picture, blob: _Blob) -> tuple[str, str]:
    """The nearest outline, and the colour of its part that is named: a hull, walls, a crown, a tent."""
    likeness = {kind: _likeness(blob, outline, aspect) for kind, (outline, aspect) in OUTLINES.items()}
    upper, lower = (_part(picture, blob, *part) for part in (UPPER_PART, LOWER_PART))
    if len(upper) and len(lower) and _apart(upper, lower) > TWO_COLOURS:
        likeness["boat" if _hsv(_median(upper))[1] < PALE_SAIL else "house"] += SAIL_OR_ROOF
    kind = max(likeness, key=likeness.__getitem__)
    pixels = _part(picture, blob, *NAMED_PARTS[kind])
    colour = _colour_name(pixels, COLOURS[kind]) if len(pixels) else UNCLEAR
    return (kind if likeness[kind] >= LEAST_LIKENESS else UNCLEAR), colour


def _part(picture: Picture, blob: _Blob, rows: tuple[float, float], columns: tuple[float, float]) -> Picture:
    """The blob's pixels between some shares of its height and of its width: uint8 (pixels, 3)."""
    part = np.zeros_like(blob.mask)
    top, bottom = (blob.top + int(share * blob.height) for share in rows)
    left, right = (blob.left + int(share * blob.width) for share in columns)
    part[top:bottom, left:right] = True
    pixels: Picture = picture[part & blob.mask]
    return pixels


def _likeness(blob: _Blob, outline: Mask, aspect: float) -> float:
    """Shared area over the area of both, less for another ratio of width to height."""
    cut = blob.mask[blob.top : blob.bottom, blob.left : blob.left + blob.width].astype(np.uint8)
    shape = cv2.resize(cut, (OUTLINE_SIDE, OUTLINE_SIDE), interpolation=cv2.INTER_NEAREST) > 0
    shared = (shape & outline).sum() / (shape | outline).sum()
    return float(shared - 0.25 * abs(np.log(blob.width / blob.height / aspect)))


def _core(blob: _Blob) -> Mask:
    """The inner part, without soft edges and halo."""
    depth = cv2.distanceTransform(blob.mask.astype(np.uint8), cv2.DIST_L2, 3)
    core: Mask = depth > 0.5 * depth.max()
    return core


# Outlines, from the top left (0, 0) to the bottom right (1, 1)


def _outline(*polygons: tuple[tuple[float, float], ...]) -> Mask:
    canvas = np.zeros((OUTLINE_SIDE, OUTLINE_SIDE), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.rint(np.array(polygon) * (OUTLINE_SIDE - 1)).astype(np.int32)], 1)
    return canvas > 0


def _ball(bottom: float) -> tuple[tuple[float, float], ...]:
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return tuple((0.5 + 0.5 * float(np.cos(a)), bottom / 2 * (1 + float(np.sin(a)))) for a in angles)


OUTLINES: dict[str, tuple[Mask, float]] = {
    "tent": (_outline(((0.5, 0), (1, 1), (0, 1))), 1.9),
    "house": (_outline(((0.5, 0), (1, 0.38), (1, 1), (0, 1), (0, 0.38))), 0.9),
    "tree": (_outline(_ball(0.8), ((0.42, 0.7), (0.58, 0.7), (0.58, 1), (0.42, 1))), 0.75),
    "boat": (_outline(((0.48, 0), (0.92, 0.75), (0.48, 0.75)), ((0, 0.78), (1, 0.78), (0.85, 1), (0.15, 1))), 0.95),
}
"""Masks, and ratios of width to height."""
NAMED_PARTS = {
    "tent": ((0.3, 1.0), (0.0, 1.0)),
    "house": ((0.5, 1.0), (0.0, 1.0)),
    "tree": ((0.1, 0.6), (0.1, 0.9)),
    "boat": ((0.8, 1.0), (0.1, 0.9)),
}
"""Rows and columns of the part whose colour is named."""
UPPER_PART, LOWER_PART = ((0.1, 0.4), (0.1, 0.9)), ((0.5, 1.0), (0.1, 0.9))
TWO_COLOURS = 12.0  # distance of their colours from which on the two parts are two
PALE_SAIL, SAIL_OR_ROOF = 0.35, 0.12
"""Saturation below which an upper part is a sail rather than a roof, and how much more alike that makes a thing."""
COLOURS = {
    "tent": ("red", "white", "blue"),
    "house": ("white", "red", "yellow", "blue"),
    "tree": ("green", "orange", "pink"),
    "boat": ("red", "green", "white", "yellow", "blue"),
}

# Colours


HUES = {"red": 2.0, "orange": 28.0, "yellow": 48.0, "green": 130.0, "blue": 222.0, "pink": 340.0}
"""Degrees on the colour wheel."""
PALE = 0.24  # a colour of less saturation is white


def _colour_name(pixels: Picture, among: tuple[str, ...]) -> str:
    """The nearest of the colours that such a thing may have, by the pixels' median."""
    hue, saturation, _ = _hsv(_median(pixels))
    if "white" in among and saturation < PALE:
        return "white"
    return min((name for name in among if name in HUES), key=lambda name: abs((hue - HUES[name] + 180) % 360 - 180))


def _hsv(rgb: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """Hue in degrees; saturation and value from 0 to 1."""
    hue, saturation, value = cv2.cvtColor((rgb / 255).reshape(1, 1, 3).astype(np.float32), cv2.COLOR_RGB2HSV)[0, 0]
    return float(hue), float(saturation), float(value)


def _apart(one: Picture, other: Picture) -> float:
    """Distance of two parts' colours."""
    colours = [_lab(_median(pixels).reshape(1, 1, 3).astype(np.uint8))[0, 0] for pixels in (one, other)]
    return float(np.linalg.norm(colours[0] - colours[1]))


def _lab(picture: Picture) -> Lab:
    return cv2.cvtColor((picture / 255).astype(np.float32), cv2.COLOR_RGB2LAB).astype(np.float32)


def _edges(picture: npt.NDArray[Level], share: float = 0.2) -> npt.NDArray[Level]:
    """The columns at the left and at the right."""
    columns = max(2, int(share * picture.shape[1]))
    return np.concatenate((picture[:, :columns], picture[:, -columns:]), axis=1)


def _median(pixels: Picture) -> npt.NDArray[np.float32]:
    middle: npt.NDArray[np.float32] = np.median(pixels.reshape(-1, 3), axis=0).astype(np.float32)
    return middle
