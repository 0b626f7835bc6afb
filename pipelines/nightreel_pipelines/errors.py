"""What can go wrong between a job and its video.

PipelineError
├── Unrenderable         the job can never be rendered as it is: too long a prompt, not enough memory at the smallest
│   ├── OutOfMemory      not enough memory for a picture or a prompt
│   └── InDoubt          nobody knows whether a service has taken an order: a person must say whether to order anew
├── SourceUnavailable    the model cannot be had here: weights missing, a library not installed
├── SourceAway           the source does not answer at the moment
├── DrawingFailed        drawing went wrong this time; trying again may help
├── Cancelled            the job was called off while it was being rendered
└── FilmFailed           filming went wrong this time; trying again may help
    ├── EncoderFailed    ffmpeg ended early
    └── BadVideo         the finished file does not decode to what the job asked for
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of everything that this package raises on purpose."""


class Unrenderable(PipelineError):
    """Raised when trying again cannot help; the message names the part of the job and the mend."""


class OutOfMemory(Unrenderable):
    """Raised when a picture or a prompt does not fit into memory; what was tried before stands in the message."""


class InDoubt(Unrenderable):
    """Raised when a clip may have been ordered, and paid for, without anybody knowing; trying again might pay twice."""


class SourceUnavailable(PipelineError):
    """Raised when a model cannot be loaded on this machine at all; the message says what to install or set."""


class SourceAway(PipelineError):
    """Raised when a source over the network does not answer now, or has no room; says who was asked, and the mend."""


class DrawingFailed(PipelineError):
    """Raised when a keyframe could not be drawn in a way that another attempt may not meet; carries what was said."""


class Cancelled(PipelineError):
    """Raised inside a source or film when the job is called off."""


class FilmFailed(PipelineError):
    """Raised when filming fails in a way that another attempt may not."""


class EncoderFailed(FilmFailed):
    """Raised when ffmpeg ends before the last frame; carries the last lines of what it said, or how it was killed."""


class BadVideo(FilmFailed):
    """Raised when the decoded video has another size, length or content than the job asked for."""
