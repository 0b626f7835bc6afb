"""One shot's camera: where it looks in each frame, in closed form, and the resampling that makes the frame.

A move has to look as smooth as a dolly on rails. So every frame is computed from its own number alone, with unrounded
sub-pixel coordinates, by one linear warp from a working picture that is finer than the frame. The working picture is
made once a shot with good, slow filters; in it linear interpolation is sharp, even (OpenCV's own cubic is not: it bends
linear ramps) and fast.

Coordinates are continuous: pixel i of a row covers i to i+1 and its centre is at i+0.5. The picture is the keyframe,
cropped around its middle to the frame's shape, and measured in frame sizes: (0, 0) to (1, 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from nightreel_queue.motions import Motion, Move

from .easing import ease

if TYPE_CHECKING:
    from .base import Picture

Floats = npt.NDArray[np.float64]

FINENESS = 2.0  # working pixels per frame pixel, along a side; 3 is a little sharper, and turns take 1.7 times as long
WORKING_MEGAPIXELS = 20.0  # most that one level may hold: 60 MB
WORKING_SIDE_PX = 32_000  # OpenCV's warp counts pixels in 16 bits
LEVEL_STEP = math.sqrt(2)  # between the bands of neighbouring levels
ONE_LEVEL = 1.2  # a zoom within this ratio changes sharpness too little to be seen: one level does
FAINT = 1.1  # detail finer than the frame by less than this aliases too faintly to be seen: the keyframe stays as it is
OUT_OF_STEP = 0.94  # of the frame's density: filtered to exactly that, sharpness would beat as pixels fall into step
ENLARGED = 2.0  # times: beyond this Lanczos shows its rings around edges, below it is the sharpest and steadiest
MARGIN_PX = 4  # around what a level must show: the widest filter reads three pixels to each side


class Camera:
    """The views of one shot, from its first visible frame to its last, handles included."""

    def __init__(self, motion: Motion, width: int, height: int, frames: int) -> None:
        """`width` and `height` of a frame in pixels; `frames` that show the shot, at least 1."""
        move = motion if isinstance(motion, Move) else Move(zoom=(1.0, 1.0))
        zoom, pan = move.zoom or (1.0, 1.0), np.array(move.pan or (0.0, 0.0))
        turn = math.radians(move.rotate or 0.0)
        focus, size = np.array(move.focus), np.array((width, height), dtype=float)
        self.width, self.height, self.frames = width, height, frames
        self.still = zoom[0] == zoom[1] and not pan.any() and turn == 0.0
        """Every frame shows the same."""

        eased = ease(move.ease, np.linspace(0.0, 1.0, frames))
        zooms = zoom[0] * (zoom[1] / zoom[0]) ** eased  # geometric: looks constant in speed
        rotations = _rotations(turn * (eased - 0.5))
        # From a place in the frame, in pixels off its centre, to the picture at magnification 1, in frame sizes off the
        # focus: a turn about the centre, then the camera's travel.
        turns = rotations / size[:, None]
        offsets = (0.5 - focus) + pan * (eased - 0.5)[:, None]
        self.overscan = _overscan(_corners(turns, offsets, size), zooms, focus)
        """The smallest constant enlargement (>= 1) at which no frame of the shot looks past the picture's border."""

        self.magnifications: Floats = zooms * self.overscan
        """(frames,) of the picture that exactly fills the frame."""
        scale = 1.0 / self.magnifications[:, None]
        linear = turns * scale[:, None]
        shift = focus + offsets * scale - linear @ (size / 2)
        self.views: Floats = np.concatenate([linear, shift[:, :, None]], axis=2)
        """(frames, 2, 3): from a place in the frame, in pixels, to the place in the picture, in frame sizes."""

    @property
    def corners(self) -> Floats:
        """(frames, 4, 2): the places in the picture that the frame's corners show; all within 0 to 1."""
        return _corners(self.views[:, :, :2], self.views[:, :, 2], self.size, centred=False)

    @property
    def size(self) -> Floats:
        return np.array((self.width, self.height), dtype=float)


def _rotations(angles: Floats) -> Floats:
    """(frames, 2, 2): clockwise as seen, because y points down."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)


def _corners(linear: Floats, offsets: Floats, size: Floats, *, centred: bool = True) -> Floats:
    """(frames, 4, 2): where the frame's corners come to lie."""
    unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    places = (unit - 0.5 if centred else unit) * size
    corners: Floats = np.einsum("fij,cj->fci", linear, places) + offsets[:, None, :]
    return corners


def _overscan(corners: Floats, zooms: Floats, focus: Floats) -> float:
    """A corner `d` off the focus at magnification 1 comes to lie at focus + d / (zoom * overscan), within 0 to 1."""
    room = np.where(corners > 0, 1 - focus, focus)
    needed = np.abs(corners) / room / zooms[:, None, None]
    return max(1.0, float(needed.max()))


class Pyramid:
    """A keyframe made ready for one camera: the frames of the shot, each independent of the others.

    Where the keyframe holds more detail than a frame can show, detail is filtered away before the warp, or it would
    crawl. How much depends on the magnification: when that changes within the shot, levels of different band are
    made, the two nearest are mixed, and sharpness changes too slowly to be seen. At most two levels are in memory.
    """

    def __init__(self, picture: Picture, camera: Camera) -> None:
        """`picture` of any shape: its middle is shown, never squeezed."""
        self._camera = camera
        self._image = Image.fromarray(picture)
        size = np.array(self._image.size, dtype=float)
        self._detail = float((size / camera.size).min())  # keyframe pixels per frame pixel at magnification 1
        self._crop = camera.size * self._detail
        self._corner = (size - self._crop) / 2
        self._bands = _bands(self._detail, camera.magnifications)
        self._positions = _positions(self._bands, camera.magnifications)
        self._levels: dict[int, _Level] = {}

    def frame(self, index: int) -> Picture:
        """Frame `index` of the shot, counted from its first visible one."""
        if self._camera.still:
            return self._still()
        lower = int(self._positions[index])
        weight = float(self._positions[index]) - lower
        wanted = (lower, lower + 1) if weight > 0 else (lower,)
        self._levels = {at: self._levels.get(at) or self._level(at) for at in wanted}
        view = self._camera.views[index]
        frames = [level.warp(view, self._camera) for level in self._levels.values()]
        if len(frames) == 1:
            return frames[0]
        return cv2.addWeighted(frames[0], 1 - weight, frames[1], weight, 0).astype(np.uint8, copy=False)

    @property
    def working_pixels(self) -> int:
        """Pixels held in memory at the moment, besides the keyframe."""
        return sum(level.pixels.shape[0] * level.pixels.shape[1] for level in self._levels.values())

    def _still(self) -> Picture:
        corners = self._camera.corners[0]
        left, top = self._corner + corners[0] * self._crop
        right, bottom = self._corner + corners[2] * self._crop
        return _resize(self._image, (self._camera.width, self._camera.height), (left, top, right, bottom))

    def _level(self, at: int) -> _Level:
        """Filter the part of the keyframe that this level's frames show, and refine it."""
        used = np.abs(self._positions - at) < 1
        corners = self._camera.corners[used].reshape(-1, 2)
        band, size = self._bands[at], np.array(self._image.size)
        whole = band >= self._detail
        grid = size if whole else np.maximum(1, np.rint(self._camera.size * band)).astype(int)
        scale, offset = (self._crop, self._corner) if whole else (grid.astype(float), np.zeros(2))
        first = np.clip(np.floor(corners.min(0) * scale + offset).astype(int) - MARGIN_PX, 0, grid)
        last = np.clip(np.ceil(corners.max(0) * scale + offset).astype(int) + MARGIN_PX, 0, grid)
        if whole:
            part = self._image.crop((*first.tolist(), *last.tolist()))
        else:
            pixel = self._crop / grid
            box = np.concatenate([self._corner + first * pixel, self._corner + last * pixel])
            part = Image.fromarray(_resize(self._image, tuple((last - first).tolist()), tuple(box.tolist())))
        factor = _refinement(part.size, float(self._camera.magnifications[used].max()) / band)
        return _Level(_refine(part, factor), scale * factor, (offset - first - 0.5) * factor)


def fit(picture: Picture, width: int, height: int) -> Picture:
    """The picture's middle, enlarged or reduced to fill width x height; the very picture when it has that size."""
    if picture.shape[:2] == (height, width):
        return picture
    return Pyramid(picture, Camera("still", width, height, 1)).frame(0)


class _Level:
    """A working picture, and where the picture's coordinates lie in it."""

    def __init__(self, pixels: Picture, scale: Floats, offset: Floats) -> None:
        """`scale` and `offset` from places in the picture (frame sizes) to indices of `pixels`."""
        self.pixels, self._scale, self._offset = pixels, scale, offset

    def warp(self, view: Floats, camera: Camera) -> Picture:
        """One frame, sampled at the centres of its pixels."""
        matrix = view * self._scale[:, None]
        matrix[:, 2] += self._offset + matrix[:, :2] @ (0.5, 0.5)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = cv2.warpAffine(
            self.pixels, matrix, (camera.width, camera.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return frame.astype(np.uint8, copy=False)


def _bands(detail: float, magnifications: Floats) -> list[float]:
    """What the levels keep, in pixels per frame pixel at magnification 1; the keyframe as it is counts `detail`."""
    least, most = float(magnifications.min()), min(detail, float(magnifications.max()))
    if detail <= FAINT * least:
        return [detail]
    steps = 0 if most <= ONE_LEVEL * least else math.ceil(math.log(most / least) / math.log(LEVEL_STEP))
    return [OUT_OF_STEP * float(band) for band in np.geomspace(least, most, steps + 1)]


def _positions(bands: list[float], magnifications: Floats) -> Floats:
    """(frames,): the level of each frame; a fraction mixes two."""
    if len(bands) == 1:
        return np.zeros_like(magnifications)
    exact = np.log(magnifications * OUT_OF_STEP / bands[0]) / math.log(bands[-1] / bands[0]) * (len(bands) - 1)
    return np.clip(exact, 0, len(bands) - 1)


def _refinement(size: tuple[int, int], wanted: float) -> int:
    """Working pixels per pixel of a level: enough for a smooth warp at `wanted` frame pixels each, as memory allows."""
    affordable = math.isqrt(int(WORKING_MEGAPIXELS * 1e6 / (size[0] * size[1])))
    return max(1, min(max(2, round(FINENESS * wanted)), affordable, WORKING_SIDE_PX // max(size)))


def _refine(image: Image.Image, factor: int) -> Picture:
    """`factor` times as fine; every old pixel's centre is the centre of a new one, so nothing is lost."""
    kernel = Image.Resampling.LANCZOS if factor <= FINENESS * ENLARGED else Image.Resampling.BICUBIC
    edge = 0.5 - 0.5 / factor
    size = (factor * (image.width - 1) + 1, factor * (image.height - 1) + 1)
    box = (edge, edge, image.width - edge, image.height - edge)
    return np.array(image.resize(size, kernel, box=box))


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[float, ...]) -> Picture:
    """The part in `box` at `size`, antialiased. Pillow's own filters; only OpenCV's are not antialiased."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(image.width), box[2]), min(float(image.height), box[3])
    smaller = right - left > size[0]
    kernel = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    return np.array(image.resize(size, kernel, box=(left, top, right, bottom)))
