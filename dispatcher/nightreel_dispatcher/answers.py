"""What the dispatcher answers, as JSON."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, Field

from nightreel_storage.receipts import Receipt

from .looked import Looked

JobState = Literal["waiting", "started", "done", "failed", "cancelled"]


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    place: str = Field("", description="file and line, such as nightly.yaml:14")
    field: str = Field("", description="such as shots[2].motion.zoom")
    message: str


class Problems(BaseModel):
    """Why a request was refused; nothing was enqueued or changed."""

    problems: list[Problem]


class Submitted(BaseModel):
    """Jobs that were taken in."""

    batch: str
    jobs: list[str] = Field(description="their ids")
    repeated: int = Field(0, description="jobs that were listed twice")
    remarks: list[str] = Field([], description="what is no mistake, and yet worth a look")
    status: str = Field(description="where to look: /batches/BATCH")


class Pending(BaseModel):
    """A job that had not ended when the wait was over."""

    batch: str
    job: str
    status: str = Field(description="where to look: /jobs/BATCH/JOB")


class JobAnswer(BaseModel):
    """How a job is."""

    batch: str
    job: str
    state: JobState
    round: int = 1
    reason: str = ""
    where: str = Field("", description="the video's address, once there is one")
    receipt: Receipt | None = Field(None, description="once the job has ended")


class JobLine(BaseModel):
    """A job of a batch."""

    job: str
    state: JobState = Field(description="started jobs are told as waiting here; the job itself knows better")


class BatchAnswer(BaseModel):
    """How a batch is, and a page of its jobs."""

    batch: str
    title: str = Field(description="where it came from, such as nightly.yaml")
    enqueued_at: dt.datetime
    count: int
    ended: dict[Literal["done", "failed", "cancelled"], int]
    open: int
    where: str
    jobs: list[JobLine]
    next: int | None = Field(None, description="what to give as `offset` for the next page")


class Cancelled(BaseModel):
    """What was called off."""

    cancelled: int
    left: int = Field(0, description="open jobs that there was no time for: ask again")


class Waiting(BaseModel):
    """What the queue says."""

    ready: int
    delayed: int
    leased: int
    dead: int


class Recent(BaseModel):
    """One of the latest batches."""

    batch: str
    title: str
    enqueued_at: dt.datetime
    count: int


class BackendAnswer(BaseModel):
    """A backend, as somebody last saw it."""

    name: str
    light: Literal["green", "yellow", "red"] = Field(
        description="green: work goes there; yellow: it failed; red: nothing does"
    )
    state: str = Field(description="the same in words")
    running: int


class Overview(BaseModel):
    """The dispatcher at a glance."""

    version: str
    queue: Waiting
    hold: str | None = Field(description="why nothing is claimed; null when there is no hold")
    looked: Looked | None = Field(description="the last look whether workers should be started, and what was decided")
    backends: list[BackendAnswer] = Field(description="as of the last look; none where nobody has looked at several")
    batches: list[Recent] = Field(description="the ten latest")


class Healthy(BaseModel):
    """The process answers. It says nothing of queue and store, whose outage no restart would mend."""

    status: Literal["ok"] = "ok"
