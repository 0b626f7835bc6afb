"""Receipts: the record that says a job ended. The receipt is the commit.

A job round has ended when, and only when, `BATCH/JOB.json` says so. It is written create-only (the first round) or by
compare-and-swap (a later round, over the `queued` receipt that asked for it), so that two workers racing for one job
end in one receipt. Whoever loses the race finds the winner's receipt and drops its own result.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from .base import ABSENT, Entry, Store
from .errors import Conflict, NotFound, StoreError

State = Literal["queued", "done", "failed", "cancelled"]


class Record(BaseModel):
    """Base of the JSON records that Nightreel keeps in a store. Fields that a newer version added are skipped."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=2, exclude_defaults=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """The record that the store holds as `name`. Raises StoreError for one that makes no sense."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as exc:
            error = exc.errors()[0]
            field = ".".join(str(part) for part in error["loc"])
            raise StoreError(
                f"{name} cannot be read by this version ({field + ': ' if field else ''}{error['msg']}): move it away"
            ) from exc


class OutputFile(Record):
    """One file that the job made, as the store holds it."""

    name: str
    sha256: str
    size_bytes: int
    content_type: str
    adopted: bool = False
    """True when an earlier attempt had put it before it was cut off."""


class Video(Record):
    """What decoding the finished video found."""

    width: int
    height: int
    fps: int
    frames: int
    duration_s: float
    digest: str
    """sha256 over the checksums of the decoded frames: equal films have equal digests."""


class Made(Record):
    """How the job's keyframes came to be, and how long its stages took."""

    model: str
    source: str
    revision: str
    precision: str
    device: str
    placement: str = ""
    """What of the model lay where, in which numbers."""
    keyframes: int = 0
    """Keyframes that this attempt rendered."""
    reused: int = 0
    """Keyframes that the store already had."""
    inputs: tuple[str, ...] = ()
    """sha256 (hex) of each picture that the job names, in the job's order, and of its sound. Addresses may hold secrets."""
    keyframe_size: str = ""
    """Pixels, such as 1360x768; empty when every picture was given."""
    evaluations: int = 0
    """How often the model was run for the keyframes that this attempt rendered."""
    motions: tuple[str, ...] = ()
    """The kinds of motion that the job's shots have."""
    kept_bytes: int = 0
    """Of the rendered keyframes, as the store has them."""
    keyframes_s: float = 0.0
    film_s: float = 0.0
    verify_s: float = 0.0


class Cost(Record):
    """What a job cost directly: its share of the run's time, at the price of the run's machine, and the clips bought for it.

    Starting, loading, waiting and leaving are in the run's report alone.
    """

    seconds: float
    usd: float
    """To a millionth."""
    price: str
    """Name of the machine's price."""
    clips_usd: float = 0.0
    """What of `usd` was paid to a service for clips; one that was there already costs nothing."""


class Receipt(Record):
    """How one round of one job ended, or that a new round has been asked for (`queued`)."""

    format: Literal[1] = 1
    state: State
    batch: str
    job: str
    round: int = 1
    fingerprint: str
    """The job's, so that a receipt is never taken for that of another job of the same name."""
    reason: str = ""
    """Why it failed or was cancelled, in words that say what to do."""
    attempt: str = ""
    """Id of the attempt that ended the round."""
    attempts: int = 0
    """How many attempts the round took."""
    run: str = ""
    """Id of the worker's run."""
    route: str = ""
    """Which backend made it, with which model, and why that one, in words; empty where there is no choice."""
    outputs: tuple[OutputFile, ...] = ()
    video: Video | None = None
    made: Made | None = None
    cost: Cost | None = None
    labels: dict[str, str] = {}
    request: str = ""
    """The job's canonical JSON, of a job that failed: what a retry publishes."""
    published_at: dt.datetime | None = None
    ended_at: dt.datetime

    @property
    def ended(self) -> bool:
        return self.state != "queued"


@dataclass(frozen=True, slots=True)
class Held:
    """A receipt and the generation at which it was read."""

    receipt: Receipt
    generation: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a listing tells of a receipt, without reading it."""

    state: State
    round: int

    @property
    def ended(self) -> bool:
        return self.state != "queued"


class AlreadyEnded(StoreError):
    """Raised when a round has a receipt already; carries it."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        super().__init__(f"{receipt.batch}/{receipt.job} round {receipt.round} is {receipt.state} already")


class Receipts:
    """The receipts of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, batch: str, job: str) -> Held | None:
        """The job's receipt, or None. Raises StoreError for one that cannot be read."""
        try:
            data, entry = self._store.get(receipt_name(batch, job))
        except NotFound:
            return None
        return Held(Receipt.from_bytes(data, entry.name), entry.generation)

    def commit(self, receipt: Receipt, over: Held | None) -> Receipt:
        """End a round. `over` is what `read` gave before: nothing, or the `queued` receipt of this round.

        Raises AlreadyEnded when somebody else ended it first. A conflict with our own receipt (the put succeeded but
        its answer was lost) is a success.
        """
        try:
            self._put(receipt, over.generation if over else ABSENT)
        except Conflict:
            current = self.read(receipt.batch, receipt.job)
            if current is None:  # cannot happen while nobody deletes receipts by hand; then the put may be repeated
                return self.commit(receipt, None)
            if not (receipt.attempt and current.receipt.attempt == receipt.attempt):
                raise AlreadyEnded(current.receipt) from None
        return receipt

    def cancel(self, receipt: Receipt) -> Receipt:
        """Write a cancelled receipt unless the job has ended. Raises AlreadyEnded."""
        held = self.read(receipt.batch, receipt.job)
        if held and held.receipt.ended:
            raise AlreadyEnded(held.receipt)
        if held:
            receipt = receipt.model_copy(update={"round": held.receipt.round})
        return self.commit(receipt, held)

    def requeue(self, batch: str, job: str, now: dt.datetime) -> Receipt:
        """Ask for another round of a failed or cancelled job; one that is `queued` already is returned as it is.

        Raises NotFound for a job without a receipt, AlreadyEnded for a job that is done.
        """
        held = self.read(batch, job)
        if held is None:
            raise NotFound(
                f"{batch}/{job} has not ended: it waits, or is being rendered; to begin anew, cancel it first"
            )
        if held.receipt.state == "queued":
            return held.receipt
        if held.receipt.state == "done":
            raise AlreadyEnded(held.receipt)
        queued = Receipt(
            state="queued",
            batch=batch,
            job=job,
            round=held.receipt.round + 1,
            fingerprint=held.receipt.fingerprint,
            labels=held.receipt.labels,
            request=held.receipt.request,
            ended_at=now,
        )
        try:
            return self.commit(queued, held)
        except AlreadyEnded as exc:
            if exc.receipt.state == "queued":  # somebody else has just asked for it
                return exc.receipt
            raise

    def list(self, batch: str) -> Iterator[Receipt]:
        """The receipts of one batch, by job id."""
        for entry in self._store.list(f"{batch}/"):
            if entry.name.endswith(".json"):
                data, found = self._store.get(entry.name)
                yield Receipt.from_bytes(data, found.name)

    def standings(self, batch: str, entries: Iterable[Entry] | None = None) -> dict[str, Standing]:
        """How the jobs of one batch stand that have a receipt, by id; from one listing, whatever their number.

        `entries`: that listing, for whoever needs it too.
        """
        found = {}
        for entry in self._store.list(f"{batch}/") if entries is None else entries:
            if entry.name.endswith(".json"):
                job = entry.name.removeprefix(f"{batch}/").removesuffix(".json")
                if standing := self._standing(entry, batch, job):
                    found[job] = standing
        return found

    def _standing(self, entry: Entry, batch: str, job: str) -> Standing | None:
        """Only a receipt of an older version, or one that was placed by hand, must be read. Raises StoreError."""
        state, round_ = entry.metadata.get("state"), entry.metadata.get("round", "")
        if state in get_args(State) and round_.isascii() and round_.isdigit():
            return Standing(cast(State, state), int(round_))
        held = self.read(batch, job)
        return Standing(held.receipt.state, held.receipt.round) if held else None

    def _put(self, receipt: Receipt, generation: int) -> None:
        self._store.put(
            receipt_name(receipt.batch, receipt.job),
            receipt.to_bytes(),
            generation=generation,
            content_type="application/json",
            metadata={"state": receipt.state, "round": str(receipt.round), "fingerprint": receipt.fingerprint},
        )


def receipt_name(batch: str, job: str) -> str:
    return f"{batch}/{job}.json"


def utc_now() -> dt.datetime:
    """The time of day, as records carry it."""
    return dt.datetime.now(dt.UTC)
