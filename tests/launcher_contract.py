"""What every launcher promises."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import pytest

from nightreel_dispatcher.launchers.base import Execution, Launcher, NotAllowed, Refused


class Ground(Protocol):
    """Where workers of one kind run, and somebody who can do something to them."""

    launcher: Launcher

    def again(self) -> Launcher:
        """Another launcher of the same workers: that of a dispatcher that was started later."""
        ...

    def nothing_can_be_started(self) -> None: ...

    def end(self, id: str) -> None:
        """A worker leaves by itself, and well."""
        ...

    def fail(self, id: str) -> None:
        """A worker dies, saying: no weights."""
        ...

    def environment(self, id: str) -> Mapping[str, str]:
        """What a worker was given of Nightreel's settings."""
        ...


def listed(launcher: Launcher, id: str) -> Execution:
    [found] = [each for each in launcher.executions() if each.id == id]
    return found


class LauncherContract:
    """Tests of a `ground`, which a subclass provides as a fixture."""

    def test_nobody_is_up_at_first(self, ground: Ground) -> None:
        assert list(ground.launcher.executions()) == []

    def test_what_is_started_is_up_and_tells_for_which_wake(self, ground: Ground) -> None:
        before = time.time()
        first, second = ground.launcher.start(2, "wake-1", "2 urgent")
        [third] = ground.launcher.start(1, "wake-2", "night")

        found = {each.id: each for each in ground.launcher.executions()}
        assert {id_: each.wake for id_, each in found.items()} == {
            first: "wake-1",
            second: "wake-1",
            third: "wake-2",
        }
        assert all(each.is_up and each.ended_at is None for each in found.values())
        assert all(before - 1 <= each.started_at <= time.time() + 1 for each in found.values())

    def test_a_worker_is_told_its_wake_and_its_settings(self, ground: Ground) -> None:
        [id_] = ground.launcher.start(1, "wake-1", "night")

        told = {"NIGHTREEL_WAKE_ID": "wake-1", "NIGHTREEL_ROUTE": "night"}
        assert ground.environment(id_) == told | {"NIGHTREEL_MAX_WAIT_S": "900"}

    def test_workers_are_found_again_after_the_dispatchers_restart(self, ground: Ground) -> None:
        [id_] = ground.launcher.start(1, "wake-1", "night")
        later = ground.again()

        found = listed(later, id_)
        assert (found.is_up, found.wake) == (True, "wake-1")

        # And they can be cancelled
        later.cancel(id_)
        ended(ground.again(), id_)

    def test_one_that_left_is_told_of_as_ended(self, ground: Ground) -> None:
        first, second = ground.launcher.start(2, "wake-1", "night")
        ground.end(first)

        gone = ended(ground.launcher, first)
        assert (gone.state, gone.wake) == ("ended", "wake-1")
        assert gone.ended_at is not None
        assert gone.started_at - 1 <= gone.ended_at <= time.time() + 1
        assert listed(ground.launcher, second).is_up

    def test_one_that_died_is_told_of_with_its_last_words(self, ground: Ground) -> None:
        [id_] = ground.launcher.start(1, "wake-1", "night")
        ground.fail(id_)

        gone = ended(ground.launcher, id_)
        assert gone.state == "failed"
        assert "no weights" in gone.words

    def test_cancelling_is_for_those_that_are_up(self, ground: Ground) -> None:
        first, second = ground.launcher.start(2, "wake-1", "night")
        ground.end(first)
        ended(ground.launcher, first)

        ground.launcher.cancel(first)
        ground.launcher.cancel(second)
        ended(ground.launcher, second)
        with pytest.raises(NotAllowed, match="no worker nobody"):
            ground.launcher.cancel("nobody")

    def test_a_refusal_is_certain(self, ground: Ground) -> None:
        ground.nothing_can_be_started()

        with pytest.raises(Refused):
            ground.launcher.start(2, "wake-1", "night")
        assert list(ground.again().executions()) == []


def ended(launcher: Launcher, id: str) -> Execution:
    """The worker, once it is not up any more."""
    deadline = time.monotonic() + 60
    while (found := listed(launcher, id)).is_up:
        assert time.monotonic() < deadline, f"still up: {found}"
        time.sleep(0.02)
    return found
