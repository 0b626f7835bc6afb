"""Out of memory, told apart from other errors and put into words. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import OutOfMemory


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a device, or the CPU (which has no error class of its own in torch), ran out of memory."""
    return isinstance(exc, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(exc)


@contextmanager
def enough_memory(work: str, mend: str) -> Iterator[None]:
    """Raises OutOfMemory when what is done inside runs out of memory; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        # The traceback's frames hold the very tensors that filled the memory; the next job needs it.
        raise OutOfMemory(f"not enough memory for {work}: {mend}") from exc.with_traceback(None)
