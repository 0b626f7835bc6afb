"""What jobs will take, from what earlier ones took.

A run's report keeps sums (`Taken`), one row for each model and shape of job, so that a thousand receipts are a few lines
and the rows of many runs can be added up. An estimate takes the rate of the row that is most like the job, in proportion
to pixels; where no run has been measured yet, it takes the model's own guess (`expected_s` in models.toml) and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import Field

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan
from nightreel_storage.receipts import Receipt, Record

_SIZE = "[1-9][0-9]{0,4}x[1-9][0-9]{0,4}"
MAX_ROWS = 50  # of one run: strangers choose sizes
# Guesses, from bench/plan.py on two cores of a server; a GPU's machine is faster.
GUESSED_FILM_S = {  # seconds a megapixel of film
    "still": 0.035,
    "move": 0.035,
    "clip": 0.05,
    "walk": 0.23,
    "feedback": 0.2,
}
GUESSED_VERIFY_S = 0.01  # the same, of decoding it
GUESSED_VIDEO_BYTES = 1_800  # a frame, for each thousand pixels to the power of BYTES_GROW
GUESSED_KEYFRAME_BYTES = 1_000_000  # a megapixel of PNG
FILM_START_S, VERIFY_START_S = 0.13, 0.05  # of a film of any length: programs that start, and finish a file
BYTES_GROW = (
    0.75  # the usual rule of thumb: a frame of four times the pixels is less than three times as large in H.264
)


class Taken(Record):
    """What the jobs of one model and shape took, added up."""

    model: str
    source: str
    revision: str
    precision: str
    device: str
    keyframe_size: str = Field(pattern=rf"^({_SIZE})?$")
    film_size: str = Field(pattern=rf"^{_SIZE}$")
    motions: tuple[str, ...]
    jobs: int = 0
    keyframes: int = 0
    evaluations: int = 0
    keyframes_s: float = 0.0
    frames: int = 0
    film_s: float = 0.0
    verify_s: float = 0.0
    video_bytes: int = 0
    kept_bytes: int = 0

    @property
    def shape(self) -> tuple[object, ...]:
        what = (self.model, self.source, self.revision, self.precision, self.device)
        return *what, self.keyframe_size, self.film_size, self.motions

    def plus(self, other: Taken) -> Taken:
        sums = (
            "jobs", "keyframes", "evaluations", "keyframes_s", "frames", "film_s", "verify_s", "video_bytes", "kept_bytes"
        )  # fmt: skip
        return self.model_copy(update={name: getattr(self, name) + getattr(other, name) for name in sums})


class Takings:
    """Rows by shape; the first MAX_ROWS shapes count."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], Taken] = {}

    @property
    def rows(self) -> tuple[Taken, ...]:
        return tuple(self._rows.values())

    def count(self, receipt: Receipt) -> None:
        """A job that is done; those of a shape too many are left out."""
        if (row := _row(receipt)) is not None and (row.shape in self._rows or len(self._rows) < MAX_ROWS):
            self.add(row)

    def add(self, row: Taken) -> None:
        known = self._rows.get(row.shape)
        self._rows[row.shape] = known.plus(row) if known else row


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one job will take. Its stages overlap with those of its neighbours."""

    keyframes: int
    """To be rendered; what is there already is left out."""
    evaluations: int
    frames: int
    keyframes_s: float
    film_s: float
    verify_s: float
    video_bytes: int
    kept_bytes: int
    basis: Literal["measured", "guessed"]
    clip_s: int = 0
    """Seconds of clips to be bought; what is there already is left out."""

    @property
    def seconds(self) -> float:
        """Of the job alone, when the worker is warm."""
        return pipelined_s((self,))


class Rates:
    """Estimates jobs of one model on one kind of machine."""

    def __init__(self, rows: Iterable[Taken], spec: ModelSpec, description: Description) -> None:
        """Rows of other models, devices and precisions do not count."""
        self._spec = spec
        kind = (spec.name, description.device, description.precision)
        added = Takings()
        for row in rows:
            if (row.model, row.device, row.precision) == kind:
                added.add(row)
        self._rows = added.rows

    @property
    def measured(self) -> bool:
        return bool(self._rows)

    def estimate(self, layout: Plan, have: frozenset[str] = frozenset()) -> Estimate:
        """What a film will take. `have`: fingerprints of keyframes that need not be rendered."""
        missing = [recipe for recipe in layout.recipes if recipe.fingerprint not in have]
        evaluations = sum(recipe.evaluations for recipe in missing)
        keyframe_px = missing[0].width * missing[0].height if missing else 0
        film_px = layout.width * layout.height
        film_mp = film_px / 1e6 * layout.frames
        evaluation_s = self._evaluation_s(layout.motions, keyframe_px)
        rows = _most_like(self._rows, layout.motions, film_px, _film_px)
        film_rate = _guessed_film_s(layout.motions) * _rate(
            [
                (_after_start(row, row.film_s, FILM_START_S), _film_mp(row) * _guessed_film_s(row.motions))
                for row in rows
            ],
            1.0,
        )
        verify_rate = _rate(
            [(_after_start(row, row.verify_s, VERIFY_START_S), _film_mp(row)) for row in rows], GUESSED_VERIFY_S
        )
        byte_rate = _rate(
            [(row.video_bytes, row.frames * _growing(_film_px(row))) for row in rows], GUESSED_VIDEO_BYTES
        )
        kept_rate = _rate([(row.kept_bytes, _drawn_mp(row)) for row in self._rows], GUESSED_KEYFRAME_BYTES)
        return Estimate(
            keyframes=len(missing),
            evaluations=evaluations,
            frames=layout.frames,
            keyframes_s=evaluations
            * (self._spec.expected_s * keyframe_px / 1e6 if evaluation_s is None else evaluation_s),
            film_s=FILM_START_S + film_mp * film_rate,
            verify_s=VERIFY_START_S + film_mp * verify_rate,
            video_bytes=round(layout.frames * _growing(film_px) * byte_rate),
            kept_bytes=round(keyframe_px / 1e6 * len(missing) * kept_rate),
            clip_s=sum(recipe.clip_s or 0 for recipe in missing),
            basis="guessed" if (evaluations and evaluation_s is None) or not rows else "measured",
        )

    def _evaluation_s(self, motions: tuple[str, ...], keyframe_px: int) -> float | None:
        """Seconds of one run of the model at a keyframe's size; None when nothing is known."""
        drawn = [row for row in self._rows if row.evaluations]
        if not drawn or not keyframe_px:
            return None
        rows = _most_like(drawn, motions, keyframe_px, _keyframe_px)
        seconds = sum(row.keyframes_s for row in rows) / sum(row.evaluations for row in rows)
        return seconds * keyframe_px / _keyframe_px(rows[0])


def pipelined_s(estimates: Sequence[Estimate]) -> float:
    """How long a warm worker takes for jobs in this order, from the first one's begin to the last one's end.

    Three stages, one job in each; a film begins with its first keyframe, and ends no sooner than its last keyframe and
    shot; a job's keyframes begin when the film of the job before the last has left its stage.
    """
    drawn = filmed = filmed_before = verified = 0.0
    for each in estimates:
        begin = max(drawn, filmed_before)
        first_s = each.keyframes_s / each.keyframes if each.keyframes else 0.0
        drawn = begin + each.keyframes_s
        last_shot_s = each.film_s / max(1, each.keyframes)
        filmed, filmed_before = max(max(filmed, begin + first_s) + each.film_s, drawn + last_shot_s), filmed
        verified = max(verified, filmed) + each.verify_s
    return verified


def _row(receipt: Receipt) -> Taken | None:
    made, video = receipt.made, receipt.video
    if made is None or video is None or made.film_s == 0:
        return None
    return Taken(
        model=made.model,
        source=made.source,
        revision=made.revision,
        precision=made.precision,
        device=made.device,
        keyframe_size=made.keyframe_size,
        film_size=f"{video.width}x{video.height}",
        motions=made.motions,
        jobs=1,
        keyframes=made.keyframes,
        evaluations=made.evaluations,
        keyframes_s=made.keyframes_s if made.evaluations else 0.0,
        frames=video.frames,
        film_s=made.film_s,
        verify_s=made.verify_s,
        video_bytes=receipt.outputs[0].size_bytes if receipt.outputs else 0,
        kept_bytes=made.kept_bytes,
    )


def _most_like(
    rows: Sequence[Taken], motions: tuple[str, ...], px: int, size: Callable[[Taken], int]
) -> Sequence[Taken]:
    """Rows of the same motions if there are any, and of these the ones nearest in size, in pixels."""
    rows = [row for row in rows if row.motions == motions] or rows
    if not rows:
        return rows
    nearest = min((size(row) for row in rows), key=lambda of_row: abs(math.log(of_row / px)))
    return [row for row in rows if size(row) == nearest]


def _guessed_film_s(motions: Sequence[str]) -> float:
    """Of the motion that takes longest; where others were measured, the proportion counts."""
    return max(
        (GUESSED_FILM_S.get(motion, GUESSED_FILM_S["walk"]) for motion in motions), default=GUESSED_FILM_S["move"]
    )


def _rate(parts: Sequence[tuple[float, float]], guess: float) -> float:
    """How much in all, over how much of what it grows with."""
    over = sum(amount for _, amount in parts)
    return sum(what for what, _ in parts) / over if over else guess


def _after_start(row: Taken, seconds: float, start_s: float) -> float:
    """What grows with the films; at least half of it, whatever the start takes on that machine."""
    return max(seconds / 2, seconds - row.jobs * start_s)


def _growing(px: int) -> float:
    """What the bytes of a frame are in proportion to."""
    return float((px / 1e3) ** BYTES_GROW)


def _film_mp(row: Taken) -> float:
    """Megapixels of film: all frames together."""
    return _film_px(row) / 1e6 * row.frames


def _drawn_mp(row: Taken) -> float:
    return _keyframe_px(row) / 1e6 * row.keyframes


def _film_px(row: Taken) -> int:
    return _pixels(row.film_size)


def _keyframe_px(row: Taken) -> int:
    return _pixels(row.keyframe_size)


@cache
def _pixels(size: str) -> int:
    """Of WIDTHxHEIGHT; 0 for no size."""
    width, _, height = size.partition("x")
    return int(width) * int(height) if width and height else 0
