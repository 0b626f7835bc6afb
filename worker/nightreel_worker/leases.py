"""Keeping deliveries ours while, and only while, their work makes progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

import structlog

from nightreel_queue.base import Delivery
from nightreel_queue.errors import LeaseLost, QueueUnavailable

log = structlog.get_logger()

RENEWALS_PER_LEASE = 3  # a renewal may fail twice before the lease is in danger


class Lease:
    """One delivery's claim, as seen by our own clock: a late answer of the queue cannot fool it."""

    def __init__(self, delivery: Delivery, on_lost: Callable[[], None]) -> None:
        self.delivery = delivery
        self.lost = False
        self.waiting = True
        """Its job stands in line, or its model is being loaded: what counts is that the run as a whole gets on."""
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + delivery.lease_s
        self._progress_at = time.monotonic()

    def progress(self) -> None:
        """The delivery's stage got on: the lease deserves to be renewed."""
        self._progress_at = time.monotonic()

    def quiet_s(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._progress_at

    def due(self) -> bool:
        return time.monotonic() > self._deadline - self.delivery.lease_s * (1 - 1 / RENEWALS_PER_LEASE)

    def renew(self) -> None:
        """Extend the lease; when that fails past its end, it is lost."""
        with self._lock:
            if self.lost:
                return
            asked_at = time.monotonic()
            try:
                self.delivery.extend()
            except LeaseLost:
                self._lose()
            except QueueUnavailable as exc:
                log.warning("lease_not_renewed", reason=str(exc))
                if time.monotonic() > self._deadline:
                    self._lose()
            else:
                self._deadline = asked_at + self.delivery.lease_s

    def check(self) -> None:
        """Make sure that the delivery is still ours, before something is made final. Raises LeaseLost."""
        if time.monotonic() > self._deadline - 1.0:
            self.renew()
        if self.lost:
            raise LeaseLost("the lease ran out; another worker may have the job by now")

    def _lose(self) -> None:
        self.lost = True
        self._on_lost()


class LeaseKeeper:
    """A thread that renews the leases of deliveries whose stages make progress.

    stall_s: a lease whose stage was quiet for longer is left to run out: a hung render must not look alive.
    renderer_quiet_s: seconds since the renderer said anything; what waiting jobs wait for.
    """

    def __init__(self, stall_s: float, renderer_quiet_s: Callable[[], float]) -> None:
        self._stall_s = stall_s
        self._renderer_quiet_s = renderer_quiet_s
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def hold(self, delivery: Delivery, on_lost: Callable[[], None]) -> Lease:
        """Start to keep a delivery's lease."""
        lease = Lease(delivery, on_lost)
        with self._lock:
            self._leases.add(lease)
        return lease

    def let_go(self, lease: Lease) -> None:
        """Stop keeping it: the delivery is settled, or about to be."""
        with self._lock:
            self._leases.discard(lease)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            with self._lock:
                leases = list(self._leases)
            run_quiet_s = min([self._renderer_quiet_s(), *(lease.quiet_s() for lease in leases if not lease.waiting)])
            for lease in leases:
                quiet_s = min(run_quiet_s, lease.quiet_s()) if lease.waiting else lease.quiet_s()
                if lease.due() and quiet_s < self._stall_s:
                    lease.renew()
