"""Progress of a run: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nightreel_queue.job import Job
from nightreel_storage.receipts import Receipt
from nightreel_worker.events import Advanced, Claimed, Ended, Event, Rejected, Returned, Waiting

KEYFRAME_WEIGHT = 24  # a keyframe counts as much work as this many frames; the bar is a guess, its end is not

_STAGES = {"loading": "loading the model", "keyframes": "keyframes", "film": "filming", "commit": "verifying"}


@contextlib.contextmanager
def watching(console: Console, jobs: Sequence[Job]) -> Iterator[Callable[[Event], None]]:
    """Show what a run does to these jobs. Gives the function that hears the run's events."""
    if not console.is_terminal:
        yield Lines(console).hear
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        yield Bars(progress, jobs).hear


def outcome(receipt: Receipt, earlier: bool) -> str:
    """One line on how a job ended."""
    if receipt.state != "done":
        return f"{receipt.state}: {receipt.reason}"
    if earlier:
        return "was done already"
    if receipt.made is None:
        return "done: its video was there already"
    made = receipt.made
    return (
        f"done: {made.keyframes} keyframes in {made.keyframes_s:.1f} s, {made.reused} from the store, "
        f"filmed in {made.film_s:.1f} s"
    )


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def hear(self, event: Event) -> None:
        match event:
            case Claimed():
                alone = ", alone after an earlier failure" if event.alone else ""
                new = event.keyframes - event.reused
                self._say(
                    f"{event.job}: {new} keyframes to render, {event.reused} from the store, {event.frames} frames{alone}"
                )
            case Advanced(stage="loading", note=""):
                self._say(f"{event.job}: loading the model")
            case Ended():
                self._say(f"{event.receipt.job}: {outcome(event.receipt, event.earlier)}")
            case Returned():
                self._say(returned(event))
            case Rejected():
                self._say(f"rejected: {event.reason} (record {event.record})")
            case Waiting():
                self._say(waiting(event))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


class Bars:
    """One bar for the batch, one for each job under way."""

    def __init__(self, progress: Progress, jobs: Sequence[Job]) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._work = {f"{job.batch}/{job.id}": _work_of(job) for job in jobs}
        self._bars: dict[str, TaskID] = {}
        self._keyframes: dict[str, int] = {}
        self._batch = progress.add_task("batch", total=sum(self._work.values()), note=f"0/{len(jobs)} videos")
        self._ended = 0

    def hear(self, event: Event) -> None:
        with self._lock:
            match event:
                case Claimed():
                    self._claimed(event)
                case Advanced():
                    self._advanced(event)
                case Ended():
                    self._finish(event)
                case Returned():
                    self._drop(f"{event.batch}/{event.job}")
                    self._progress.console.print(returned(event), markup=False)
                case Rejected():
                    self._progress.console.print(f"rejected: {event.reason}", markup=False)
                case Waiting():
                    self._progress.console.print(waiting(event), markup=False)

    def _claimed(self, event: Claimed) -> None:
        key = f"{event.batch}/{event.job}"
        self._drop(key)
        total = event.keyframes * KEYFRAME_WEIGHT + event.frames
        self._keyframes[key] = event.reused
        self._bars[key] = self._progress.add_task(event.job, total=total, note="in line")

    def _advanced(self, event: Advanced) -> None:
        key = f"{event.batch}/{event.job}"
        if key not in self._bars:
            return
        if event.stage == "keyframes":
            self._keyframes[key] = event.done
        frames = event.done if event.stage == "film" else 0
        done = self._keyframes[key] * KEYFRAME_WEIGHT + frames
        bar = self._bars[key]
        before = self._progress.tasks[self._progress.task_ids.index(bar)].completed
        self._progress.update(bar, completed=max(before, done), note=f"{_STAGES[event.stage]} {event.note}".rstrip())
        self._advance_batch()

    def _finish(self, event: Ended) -> None:
        key = f"{event.receipt.batch}/{event.receipt.job}"
        self._drop(key)
        self._progress.console.print(f"{event.receipt.job}: {outcome(event.receipt, event.earlier)}", markup=False)
        if self._work.pop(key, None) is not None:
            self._ended += 1
        self._advance_batch()

    def _advance_batch(self) -> None:
        batch = self._progress.tasks[self._progress.task_ids.index(self._batch)]
        running = sum(task.completed for task in self._progress.tasks if task.id != self._batch)
        done = (batch.total or 0) - sum(self._work.values()) + running
        note = f"{self._ended}/{self._ended + len(self._work)} videos"
        self._progress.update(self._batch, completed=max(batch.completed, min(done, batch.total or 0)), note=note)

    def _drop(self, key: str) -> None:
        if bar := self._bars.pop(key, None):
            self._progress.remove_task(bar)


def returned(event: Returned) -> str:
    """One line on a delivery that went back."""
    name = event.job or "a message"
    when = f" in {event.delay_s:g} s" if event.delay_s else ""
    return f"{name}: back to the queue{when}: {event.reason}"


def waiting(event: Waiting) -> str:
    """One line on what the run waits for."""
    parts = [f"{event.leased} held by another worker"] * bool(event.leased)
    parts += [f"{event.delayed} delayed"] * bool(event.delayed)
    soon = f"; the next comes back in {event.next_s:.0f} s" if event.next_s is not None else ""
    return f"waiting for jobs: {', '.join(parts)}{soon}"


def _work_of(job: Job) -> int:
    return len(job.shots) * KEYFRAME_WEIGHT + round(job.duration_s * job.output.fps)
