"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("house", "queue_contract", "store_contract")

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
