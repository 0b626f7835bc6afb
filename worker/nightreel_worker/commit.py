"""Making a result final: verify, put video and poster, create the receipt. Whatever crashes between, nothing is lost.

Outputs are put create-only. A video that is already there with this job's fingerprint was put by an attempt that was
cut off before its receipt: it is adopted if it decodes to what the job asked for. Anything else under that name belongs
to somebody, and the job fails: nothing is ever overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nightreel_pipelines.base import Description
from nightreel_pipelines.encode import Decoded, check
from nightreel_pipelines.errors import BadVideo
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import Plan, plan
from nightreel_queue.job import Job
from nightreel_storage.base import Entry, Store
from nightreel_storage.errors import Conflict
from nightreel_storage.receipts import Cost, Made, OutputFile, Receipt, Receipts, State, Video, utc_now

from .admission import Request, Work
from .errors import NameTaken
from .renderer import Film


@dataclass(frozen=True, slots=True)
class Author:
    """Who ends a round: stands in the receipt."""

    run: str
    attempt: str = ""
    attempts: int = 0
    bill: Callable[[], Cost | None] = lambda: None
    """What the job has cost until now."""
    route: str = ""
    """Which backend it is, and why that one."""


class Committer:
    """Puts results into one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._receipts = Receipts(store)

    def finish(
        self, work: Work, film: Film, author: Author, *, tick: Callable[[], None], may_commit: Callable[[], None]
    ) -> Receipt:
        """Make a rendered film final.

        `tick` hears of progress; `may_commit` raises when the delivery is not ours any more.
        Raises BadVideo, NameTaken, AlreadyEnded, StoreUnavailable.
        """
        poster = work.scratch / "poster.jpg"
        began = time.monotonic()
        decoded = _check(film.video, work.plan, poster, tick)
        made = _made(work, film, verify_s=time.monotonic() - began)
        may_commit()
        video = self._put(work.request, ".mp4", film.video, "video/mp4", tick, decoded)
        if video.adopted:
            return self.adopt(work.request, work.spec, work.scratch, author, tick=tick, made=made)
        outputs = (video, self._put(work.request, ".jpg", poster, "image/jpeg", tick))
        may_commit()
        return self._end(work.request, "done", author, outputs=outputs, video=_video(decoded), made=made)

    def find(self, request: Request) -> bool:
        """Is this job's video there already? Raises NameTaken when its name holds something else."""
        entry = self._store.head(_output(request, ".mp4"))
        if entry is not None:
            _check_owner(request, entry)
        return entry is not None

    def adopt(
        self,
        request: Request,
        spec: ModelSpec,
        scratch: Path,
        author: Author,
        *,
        tick: Callable[[], None],
        made: Made | None = None,
    ) -> Receipt:
        """End a round with the video that an earlier attempt put. Raises NameTaken when it does not decode."""
        local, poster = scratch / "adopted.mp4", scratch / "adopted.jpg"
        entry = self._store.fetch(_output(request, ".mp4"), local)
        try:
            decoded = _check(local, _layout(request.job, spec), poster, tick)
        except BadVideo as exc:
            raise NameTaken(f"{entry.name} is there, but is not this job's video ({exc}): move it away, retry") from exc
        outputs = (_output_file(entry, adopted=True), self._put(request, ".jpg", poster, "image/jpeg", tick))
        return self._end(request, "done", author, outputs=outputs, video=_video(decoded), made=made)

    def fail(self, request: Request, reason: str, author: Author) -> Receipt:
        """End a round as failed. Raises AlreadyEnded."""
        return self._end(request, "failed", author, reason=reason)

    def _end(
        self,
        request: Request,
        state: State,
        author: Author,
        *,
        reason: str = "",
        outputs: tuple[OutputFile, ...] = (),
        video: Video | None = None,
        made: Made | None = None,
    ) -> Receipt:
        batch, job = request.name
        receipt = Receipt(
            state=state,
            batch=batch,
            job=job,
            round=request.round,
            fingerprint=request.job.fingerprint,
            reason=reason,
            attempt=author.attempt,
            attempts=author.attempts,
            run=author.run,
            route=""
            if state == "done" and made is None
            else author.route,  # who made a video that was found is not known
            outputs=outputs,
            video=video,
            made=made,
            cost=author.bill(),
            labels=dict(request.job.labels),
            request=request.job.to_json() if state == "failed" else "",
            published_at=request.delivery.published_at,
            ended_at=utc_now(),
        )
        return self._receipts.commit(receipt, request.over)

    def _put(
        self,
        request: Request,
        suffix: str,
        path: Path,
        content_type: str,
        tick: Callable[[], None],
        decoded: Decoded | None = None,
    ) -> OutputFile:
        name = _output(request, suffix)
        metadata = {"fingerprint": request.job.fingerprint} | ({"digest": decoded.digest} if decoded else {})
        try:
            return _output_file(self._store.put(name, path, content_type=content_type, metadata=metadata, tick=tick))
        except Conflict:
            entry = self._store.head(name)
            if entry is None:  # removed by hand between the two calls: now it can be put
                return self._put(request, suffix, path, content_type, tick, decoded)
            _check_owner(request, entry)
            return _output_file(entry, adopted=True)


def _layout(job: Job, spec: ModelSpec) -> Plan:
    """A film's size and length do not depend on who makes the keyframes, or on what given files hold."""
    return plan(job, spec, Description("", "", "", ""), dict.fromkeys(job.inputs, ""))


def _output(request: Request, suffix: str) -> str:
    return "/".join(request.name) + suffix


def _check_owner(request: Request, entry: Entry) -> None:
    if entry.metadata.get("fingerprint") != request.job.fingerprint:
        raise NameTaken(f"{entry.name} is there already and is not this job's: choose another id or batch, or move it")


def _check(video: Path, layout: Plan, poster: Path, tick: Callable[[], None]) -> Decoded:
    return check(
        video,
        width=layout.width,
        height=layout.height,
        fps=layout.fps,
        frames=layout.frames,
        poster=poster,
        sound=layout.audio is not None,
        tick=tick,
    )


def _output_file(entry: Entry, adopted: bool = False) -> OutputFile:
    return OutputFile(
        name=entry.name,
        sha256=entry.sha256,
        size_bytes=entry.size_bytes,
        content_type=entry.content_type,
        adopted=adopted,
    )


def _video(decoded: Decoded) -> Video:
    return Video(
        width=decoded.width,
        height=decoded.height,
        fps=decoded.fps,
        frames=decoded.frames,
        duration_s=decoded.duration_s,
        digest=decoded.digest,
    )


def _made(work: Work, film: Film, verify_s: float) -> Made:
    return Made(
        model=work.spec.name,
        source=work.description.source,
        revision=work.description.revision,
        precision=work.description.precision,
        device=work.description.device,
        placement=film.placement,
        keyframes=len(film.rendered),
        reused=len(work.plan.recipes) - len(film.rendered),
        inputs=tuple(work.inputs.values()),
        keyframe_size=work.plan.keyframe_size,
        evaluations=sum(recipe.evaluations for recipe in work.plan.recipes if recipe.fingerprint in film.rendered),
        motions=work.plan.motions,
        kept_bytes=sum(
            (work.scratch / recipe.file).stat().st_size
            for recipe in work.plan.recipes
            if recipe.fingerprint in film.rendered
        ),
        keyframes_s=round(film.keyframes_s, 3),
        film_s=round(film.film_s, 3),
        verify_s=round(verify_s, 3),
    )
