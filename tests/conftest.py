"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("house", "queue_contract", "store_contract")

import pubsub_emulator
from fake_gcs import NEEDED, FakeGcs, find_binary, running
from house import House  # after the line that makes its assertions tell what they saw


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Make a house for real workers; options go to its model."""
    houses = []

    def make(**options: str) -> House:
        houses.append(House(tmp_path, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """A house whose model makes trouble only when a prompt asks for it."""
    return make_house()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    """A fake-gcs-server for all tests of one process; each makes a bucket of its own."""
    if find_binary() is None:
        pytest.skip(NEEDED)
    with running(FakeGcs()) as server:
        yield server


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pubsub_emulator.Emulator]:
    """Google's Pub/Sub emulator, one for all tests."""
    try:
        emulator = pubsub_emulator.Emulator(tmp_path_factory.mktemp("pubsub") / "emulator.log")
    except pubsub_emulator.Missing as exc:
        pytest.skip(str(exc))
    yield emulator
    emulator.stop()
