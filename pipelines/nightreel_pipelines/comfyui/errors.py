"""What can go wrong at one server. None of these leaves the source: `fleet.py` and `source.py` decide what follows.

ServerError
├── Gone            it cannot be reached, or broke off
├── Overloaded      it answers that it cannot now: 429, or 5xx
├── NoEntry         it, or the proxy before it, does not let us in: 401, 403
├── PromptRefused   it will not run this workflow: a node or a file is missing, a value does not fit
├── NodeFailed      a node failed while the workflow ran
├── Silent          nothing was heard of a prompt for too long
├── Forgotten       it does not know a prompt that it took, or has not kept its picture
└── CalledOff       we do not want the picture any more
"""

from __future__ import annotations


class ServerError(Exception):
    """Base of what one server does to one prompt; the message begins with the server's address."""


class Gone(ServerError):
    """Raised when no connection can be made, or an answer does not come, or is none."""


class Overloaded(ServerError):
    """Raised for 429 and 5xx; carries how long the server wants to be left alone, when it says so."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class NoEntry(ServerError):
    """Raised for 401 and 403."""


class PromptRefused(ServerError):
    """Raised when a server refuses a workflow before it runs; says which nodes, why, and the mend."""


class NodeFailed(ServerError):
    """Raised when a node fails, or somebody interrupts; says it as ComfyUI's window does."""


class Silent(ServerError):
    """Raised when a prompt makes no progress for as long as the settings allow."""


class Forgotten(ServerError):
    """Raised when a prompt is neither in a server's queue nor in its history: the server was started anew."""


class CalledOff(ServerError):
    """Raised inside the wait for a prompt when its job is off."""
