"""What is given up when memory runs out, one thing after another; the next job has all of it again. Imports torch.

fewer keyframes at once -> the VAE in stripes -> T5 in the host's memory -> the job fails, and hears what would fit
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .hosting import Hosted

Allocating = Callable[[int], None]
"""Called with the number of elements of each tensor that an operation makes; may raise torch.OutOfMemoryError."""


class Ladder:
    """Where on the ladder a job stands. `host_t5` puts T5 into the host's memory; None where it is there anyway."""

    def __init__(self, batch: int, host_t5: Callable[[], Hosted] | None) -> None:
        self._full_batch = batch
        self._host_t5 = host_t5
        self._hosted: Hosted | None = None
        self.batch = batch
        """Keyframes that are made together."""
        self.striped = False
        """Whether small pictures are decoded in stripes, too."""

    def down(self, made_together: int) -> bool:
        """Go down a rung, after this many keyframes at once did not fit. False: there is none left."""
        _give_back()
        if made_together > 1:
            self.batch = made_together // 2
        elif not self.striped:
            self.striped = True
        else:
            return self.without_t5()
        return True

    def without_t5(self) -> bool:
        """Put T5 into the host's memory. False: it is there already."""
        if self._hosted or self._host_t5 is None:
            return False
        self._hosted = self._host_t5()
        _give_back()
        return True

    @property
    def rungs(self) -> str:
        """What has been given up, in words; empty at the top."""
        given_up = {
            f"{self.batch} keyframes at once": self.batch < self._full_batch,
            "VAE in stripes": self.striped,
            "T5 on the host": self._hosted is not None,
        }
        return ", ".join(what for what, is_so in given_up.items() if is_so)

    @contextmanager
    def for_a_job(self) -> Iterator[None]:
        """All that is given up inside is there again behind."""
        try:
            yield
        finally:
            self.batch, self.striped = self._full_batch, False
            if self._hosted:
                self._hosted.back()
                self._hosted = None


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own has no types
    """While it is entered, `allocating` hears of every tensor that is made in this thread."""

    def __init__(self, allocating: Allocating) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own has no types
        self._allocating = allocating

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._allocating(tensor.numel())
        return made


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
