"""`nightreel work`, struck by a fault at one step: `python -m struck_worker PLACE WHEN CALL FAULT [FLAG ...]`.

PLACE is `module:Class.method` or `module:function`, WHEN is `before` or `after`, CALL says which call of it, from 1.
Leaves a file `struck` in the current folder, so that a test knows that the step was reached.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from faulty_source import FAULT_IS_OVER
from proc import processes, works_in

from nightreel.main import main
from nightreel_queue.errors import QueueUnavailable

PATIENCE_S = 150.0
NEVER_CAME = 70  # exit code, when a process that shall be killed does not come up
RENDERER, ENCODER = "nightreel_worker.child", "libx264"  # parts of their command lines


def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_renderer() -> None:
    os.kill(waited_for(RENDERER), signal.SIGKILL)
    Path(FAULT_IS_OVER).touch()


def kill_busy_renderer() -> None:
    waited_for(ENCODER)
    kill_renderer()


def kill_ffmpeg() -> None:
    os.kill(waited_for(ENCODER), signal.SIGKILL)
    Path(FAULT_IS_OVER).touch()


def leave() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def leave_when_busy() -> None:
    waited_for(ENCODER)
    leave()


def get_stuck() -> None:
    leave()
    time.sleep(3600)


def lose_the_queue() -> None:
    raise QueueUnavailable("lost, as asked")


FAULTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        kill_worker, kill_renderer, kill_busy_renderer, kill_ffmpeg, leave, leave_when_busy, get_stuck, lose_the_queue,
    )
}  # fmt: skip


def waited_for(name: str) -> int:
    """A process that works in this folder, as soon as it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for pid, line in processes():
            if name in line and works_in(pid) == Path.cwd():
                return pid
        time.sleep(0.05)
    os._exit(NEVER_CAME)


def strike_at(place: str, when: str, call: int, fault: Callable[[], None]) -> None:
    """Let a fault happen at a step."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    original: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def strike() -> None:
        Path("struck").touch()
        fault()

    @wraps(original)
    def step(*args: object, **options: object) -> object:
        is_it = next(calls) == call
        if is_it and when == "before":
            strike()
        result = original(*args, **options)
        if is_it and when == "after":
            strike()
        return result

    setattr(owner, name, step)


if __name__ == "__main__":
    place, when, call, fault, *flags = sys.argv[1:]
    strike_at(place, when, int(call), FAULTS[fault])
    sys.argv = ["nightreel", "work", *flags]
    main()
