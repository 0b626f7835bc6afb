"""What NVIDIA's management library (NVML) tells of this machine's GPUs. It needs no CUDA, so a run's parent may ask it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as of now."""

    id: str
    """NVML's UUID of it."""
    name: str
    busy: float | None
    """Share of the last sampling period in which something ran on it, 0 to 1; None where it does not tell."""
    used_bytes: int
    total_bytes: int


class Gpus:
    """Reads them; finds none where the driver or the package nvidia-ml-py is missing."""

    def __init__(self) -> None:
        self._there: bool | None = None

    def read(self) -> tuple[Gpu, ...]:
        """As of now. Raises nothing: who looks at figures must not stop the work."""
        if self._there is None:
            self._there = _begin()
        if not self._there:
            return ()
        with contextlib.suppress(Exception):  # NVMLError, of a driver that has gone
            return tuple(_read())
        return ()


def _begin() -> bool:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001  # ImportError, or NVMLError, which is only there once it is imported
        return False
    return True


def _read() -> Iterator[Gpu]:
    import pynvml

    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        try:
            busy = pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
        except pynvml.NVMLError:  # a slice of a GPU does not tell
            busy = None
        yield Gpu(
            pynvml.nvmlDeviceGetUUID(device),
            pynvml.nvmlDeviceGetName(device),
            busy,
            int(memory.used),
            int(memory.total),
        )
