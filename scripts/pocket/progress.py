"""How far a training is, and how long the rest would take on an idle machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

_SAID_EVERY = 50  # steps


def tell(name: str, losses: Iterator[float], first: int, last: int, threads: int) -> None:
    """Run a training's steps, numbered first + 1 to last, and print the mean loss and the rest's duration.

    The duration is this process's CPU time a step over the threads: what it would take if each thread had a core for
    itself. So it means something on a machine that is busy with other things, but not when the steps run on a GPU.
    """
    since, seen = time.process_time(), []
    for step, loss in enumerate(losses, first + 1):
        seen.append(loss)
        if step % _SAID_EVERY == 0 or step == last:
            cpu_s = (time.process_time() - since) / len(seen)
            rest_min = (last - step) * cpu_s / threads / 60
            print(
                f"{name} {step}/{last}: loss {sum(seen) / len(seen):.4f}, {cpu_s:.2f} s of CPU a step, "
                f"{rest_min:.1f} min to go if {threads} cores were idle",
                flush=True,
            )
            since, seen = time.process_time(), []
