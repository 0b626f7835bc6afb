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
GUESSED_FILM_S = 0.012  # seconds a megapixel of film, on two cores of a small machine
GUESSED_VERIFY_S = 0.004
GUESSED_VIDEO_BYTES = 30_000  # a megapixel of film, of pictures with little detail
GUESSED_KEYFRAME_BYTES = 1_500_000  # a megapixel of PNG


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

    @property
    def seconds(self) -> float:
        """Of the job alone, when the worker is warm: keyframes and film overlap, all but one keyframe's time."""
        first_s = self.keyframes_s / self.keyframes if self.keyframes else 0.0
        return max(self.keyframes_s, first_s + self.film_s) + self.verify_s


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
        film = film_px / 1e6 * layout.frames
        drawn = keyframe_px / 1e6 * len(missing)
        rows = _most_like(self._rows, layout.motions, film_px)
        per_evaluation = self._evaluation_s(keyframe_px)
        return Estimate(
            keyframes=len(missing),
            evaluations=evaluations,
            frames=layout.frames,
            keyframes_s=evaluations
            * (self._spec.expected_s * keyframe_px / 1e6 if per_evaluation is None else per_evaluation),
            film_s=film * _rate(rows, lambda row: row.film_s, _film_mp, GUESSED_FILM_S),
            verify_s=film * _rate(rows, lambda row: row.verify_s, _film_mp, GUESSED_VERIFY_S),
            video_bytes=round(film * _rate(rows, lambda row: row.video_bytes, _film_mp, GUESSED_VIDEO_BYTES)),
            kept_bytes=round(drawn * _rate(self._rows, lambda row: row.kept_bytes, _drawn_mp, GUESSED_KEYFRAME_BYTES)),
            basis="guessed" if (evaluations and per_evaluation is None) or not rows else "measured",
        )

    def _evaluation_s(self, keyframe_px: int) -> float | None:
        """Seconds of one run of the model at a keyframe's size; None when nothing is known."""
        rows = [row for row in self._rows if row.evaluations]
        if not rows or not keyframe_px:
            return None
        nearest = min((_pixels(row.keyframe_size) for row in rows), key=lambda px: abs(math.log(px / keyframe_px)))
        same = [row for row in rows if _pixels(row.keyframe_size) == nearest]
        seconds = sum(row.keyframes_s for row in same) / sum(row.evaluations for row in same)
        return seconds * keyframe_px / nearest


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


def _most_like(rows: Sequence[Taken], motions: tuple[str, ...], film_px: int) -> Sequence[Taken]:
    """Rows of the same motions if there are any, and of these the ones nearest in size."""
    rows = [row for row in rows if row.motions == motions] or rows
    if not rows:
        return rows
    nearest = min((_pixels(row.film_size) for row in rows), key=lambda px: abs(math.log(px / film_px)))
    return [row for row in rows if _pixels(row.film_size) == nearest]


def _rate(rows: Sequence[Taken], what: Callable[[Taken], float], per: Callable[[Taken], float], guess: float) -> float:
    over = sum(per(row) for row in rows)
    return sum(what(row) for row in rows) / over if over else guess


def _film_mp(row: Taken) -> float:
    """Megapixels of film: all frames together."""
    return _pixels(row.film_size) / 1e6 * row.frames


def _drawn_mp(row: Taken) -> float:
    return _pixels(row.keyframe_size) / 1e6 * row.keyframes if row.keyframes else 0.0


@cache
def _pixels(size: str) -> int:
    width, _, height = size.partition("x")
    return int(width) * int(height) if width and height else 0
