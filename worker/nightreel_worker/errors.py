"""What can end a job, or a run, in the worker. `fate.py` decides what follows from each.

WorkerError
├── NameTaken           the output's name holds something else
├── GaveUp              the job has failed as often as it may
├── ChildDied           the renderer process crashed or hung while it worked on this job
├── Preempted           the worker has to leave; the job has done nothing wrong
└── RendererUnavailable the renderer cannot be started at all; the run ends
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of everything that this package raises on purpose."""


class NameTaken(WorkerError):
    """Raised when BATCH/JOB.mp4 holds an object that is not this job's video; it is left as it is."""


class GaveUp(WorkerError):
    """Raised when a job has used up its attempts; says how they ended."""


class ChildDied(WorkerError):
    """Raised to the one job that the renderer's crash or hang is blamed on."""


class Preempted(WorkerError):
    """Raised inside a job when the worker was told to leave."""


class RendererUnavailable(WorkerError):
    """Raised when the renderer process cannot get ready; the message says what to install or set."""
