"""What can end a job, or a run, in the worker. `fate.py` decides what follows from each.

WorkerError
├── NameTaken           the output's name holds something else
├── GaveUp              the job has failed as often as it may
├── ChildDied           the renderer process crashed or hung while it worked on this job
├── Preempted           the worker has to leave, or has too little left; the job has done nothing wrong
├── RendererUnavailable the renderer cannot be started at all; the run ends
├── Refused             the job asks for what this worker may not do
├── OverLimit           the job would take, or has taken, more than its limits allow
│   └── TooLate         the job was to begin before now
├── PassedOn            the job is left to others: the model here only stands in for its own, and cannot make it
├── BadPrice            there is no such price, or it makes no sense
└── WebError            something on the web could not be asked
    ├── Forbidden       the address must not be asked
    ├── Missing         there is nothing at the address
    ├── TooLarge        the answer is larger than it may be
    └── Unreachable     no answer, or not the one that was hoped for
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
    """Raised inside a job when the worker has to leave, or when its own budget has too little left for the job."""


class RendererUnavailable(WorkerError):
    """Raised when the renderer process cannot get ready; the message says what to install or set."""


class Refused(WorkerError):
    """Raised when a job asks for what this worker's settings do not allow; names the field and the mend."""


class OverLimit(WorkerError):
    """Raised when a job cannot be made within its own limits, or has used them up; names the field and the figures."""


class TooLate(OverLimit):
    """Raised for a job whose time has passed, whoever would make it."""


class PassedOn(WorkerError):
    """Raised for a job that a stand-in cannot make, though its own model might; says which of the two lacks what."""


class BadPrice(WorkerError):
    """Raised for a price that nobody has listed, or a list of prices that cannot be read; says what to write."""


class WebError(WorkerError):
    """Base of what can go wrong between a worker and a web server."""


class Forbidden(WebError):
    """Raised for an address that a job must not make a worker ask: not https, private, or oddly written."""


class Missing(WebError):
    """Raised when what a job names is not there, and nobody says that it will be."""


class TooLarge(WebError):
    """Raised when a server sends, or announces, more than was allowed."""


class Unreachable(WebError):
    """Raised when a server cannot be reached, is too slow, or answers with a status that is no success."""
