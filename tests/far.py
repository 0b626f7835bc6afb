"""A house whose workers reach their queue and their bucket through a network that does harm."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fake_gcs import FakeGcs
from house import House, Run, finish, until
from proxy import Proxy
from pubsub_emulator import Emulator

from nightreel_queue.pubsub import Clients

SWALLOWED_S = (
    10  # after which a message comes back whose pull was cut off: the shortest ack deadline that Pub/Sub knows
)
KILLED_AFTER_S = 10.0  # of Cloud Run, from its SIGTERM
IMPATIENT_S = 2.0  # for which an impatient worker asks again


@dataclass(frozen=True)
class Far:
    """The house, and what lies between its workers and the servers. The test itself goes straight to them."""

    house: House
    emulator: Emulator
    gcs_server: FakeGcs
    pubsub: Proxy
    gcs: Proxy

    def finish_all(self, *names: str) -> None:
        """Let workers run that lose no lease, one after the other, until all of these jobs have ended."""
        for _ in range(8):
            if all(self.house.has_ended(name) for name in names):
                return
            run = self.house.work_calmly(idle_timeout_s="3")
            assert run.code == 0, run.err
        raise AssertionError(f"not all of {names} have ended")

    def begin(self, outage: str) -> None:
        """Take Pub/Sub away: connections are `refused`, or accepted and then all is `silent`."""
        if outage == "refused":
            self.pubsub.cut()
        else:
            self.emulator.freeze()

    def end(self, outage: str) -> None:
        if outage == "refused":
            self.pubsub.mend()
        else:
            self.emulator.thaw()

    def stored_keyframes(self) -> int:
        return len(list(self.house.store.list(".nightreel/keyframes/")))


def shorten_ack_deadlines(house: House) -> None:
    """Let messages come back soon that a cut connection has swallowed."""
    address = house.places.address
    with Clients(address) as clients:
        for urgent in (False, True):
            changed = {
                "name": address.subscription(address.named(urgent)),
                "ack_deadline_seconds": SWALLOWED_S,
            }
            clients.subscriber.update_subscription(
                {"subscription": changed, "update_mask": {"paths": ["ack_deadline_seconds"]}}
            )


def hooked(program: str) -> tuple[str, ...]:
    """A worker in whose process a program runs first."""
    start = 'import sys; sys.argv = ["nightreel", "work"]; from nightreel.main import main; main()'
    return sys.executable, "-c", f"{program}\n{start}"


IMPATIENT = hooked(
    "from nightreel_queue.pubsub_queue import PubSubQueue\n"
    "from nightreel_storage.gcs import GcsStore\n"
    f"for each in (PubSubQueue, GcsStore): each.__init__.__kwdefaults__['retry_s'] = {IMPATIENT_S}"
)


def leave(process: subprocess.Popen[str]) -> Run:
    """Tell a worker to leave, as Cloud Run does: who is not gone after ten seconds is killed."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(KILLED_AFTER_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"not gone {KILLED_AFTER_S:g} s after SIGTERM") from None
    return finish(process)


@contextlib.contextmanager
def every(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Do something again and again meanwhile."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            do()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


__all__ = ["IMPATIENT", "Far", "every", "hooked", "leave", "shorten_ack_deadlines", "until"]
