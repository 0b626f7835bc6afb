"""Counts of large batches: kept for a while, counted behind the scenes, and never of another batch's jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from exhibition import finish
from finished import end, enqueue
from house import House, until

from nightreel_dispatcher.console import census as module
from nightreel_dispatcher.console.catalogue import Catalogue, Listed
from nightreel_dispatcher.console.census import Census, Count, alike
from nightreel_storage.batches import Batches
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import Receipts, utc_now


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def census(house: House, clock: Clock) -> Iterator[Census]:
    census = Census(house.store, clock)
    yield census
    census.close()


def listed(house: House) -> Listed:
    return Catalogue(house.store).find("b")


def states(census: Census, house: House) -> dict[str, int]:
    count = census.count(listed(house))
    assert count is not None
    return {state: number for state, number in count.states.items() if number}


def test_a_count_is_kept_for_a_while_and_forgotten_when_something_was_changed(
    house: House, census: Census, clock: Clock
) -> None:
    jobs = enqueue(house, "one", "two")
    assert states(census, house) == {"waiting": 2}
    end(house.store, jobs["one"], "failed", "bad luck")

    assert states(census, house) == {"waiting": 2}
    clock.now += module.FRESH_S
    assert states(census, house) == {"waiting": 1, "failed": 1}

    end(house.store, jobs["two"], "cancelled")
    census.forget("b")
    assert states(census, house) == {"failed": 1, "cancelled": 1}


def test_a_batch_that_has_grown_is_counted_anew(house: House, census: Census) -> None:
    enqueue(house, "one")
    assert states(census, house) == {"waiting": 1}
    enqueue(house, "two")

    assert states(census, house) == {"waiting": 2}


def test_a_large_batch_is_counted_behind_the_scenes_unless_somebody_waits(
    house: House, census: Census, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK_JOBS", 1)
    by: list[str] = []
    counted = Census._counted

    def told(census: Census, batch: Listed) -> Count:
        by.append(threading.current_thread().name)
        return counted(census, batch)

    monkeypatch.setattr(Census, "_counted", told)
    jobs = enqueue(house, "one", "two")

    assert census.count(listed(house)) is None
    until(lambda: census.count(listed(house)), "a count")
    assert states(census, house) == {"waiting": 2}

    # And an old one is given until the new one is there
    end(house.store, jobs["one"], "failed", "bad luck")
    clock.now += 1000
    assert states(census, house) == {"waiting": 2}
    until(lambda: states(census, house) == {"waiting": 1, "failed": 1}, "a new count")
    assert all(name.startswith("census") for name in by)

    # And who is patient gets one at once
    patient = Census(house.store)
    assert patient.count(listed(house), patient=True) is not None
    patient.close()


def test_a_failure_that_was_asked_for_again_is_none_until_it_fails_again(
    house: House, census: Census, clock: Clock
) -> None:
    jobs = enqueue(house, "one")
    end(house.store, jobs["one"], "failed", "bad luck")
    assert states(census, house) == {"failed": 1}
    Receipts(house.store).requeue("b", "one", utc_now())
    clock.now += 1000

    count = census.count(listed(house))
    assert count is not None
    assert (count.open, count.failures) == (1, [])


def test_a_contact_sheet_is_nobodys_poster(house: House, census: Census) -> None:
    jobs = enqueue(house, "contact")
    finish(house, jobs["contact"], "teal")
    house.store.put("b/contact.sheet.jpg", b"a sheet", content_type="image/jpeg")

    count = census.count(listed(house))
    assert count is not None
    assert [job for job, _ in count.posters] == ["contact"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("b/x: would take 12.5 s", "b/y: would take 1,300 s", True),
        ("no picture at 3", "no sound at 3", False),
        ("retry b x --now", "retry b y --now", True),
        ("x-ray", "y-ray", False),
    ],
)
def test_reasons_that_differ_in_figures_and_names_are_alike(one: str, other: str, same: bool) -> None:
    assert (alike(one, "b", "x") == alike(other, "b", "y")) is same


def test_a_catalogue_reads_parts_once_and_sees_what_was_added(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightreel_storage.batches.PART_JOBS", 2)
    catalogue = Catalogue(house.store)
    enqueue(house, "one", "two", "three")
    assert catalogue.find("b").jobs == ("one", "two", "three")

    enqueue(house, "four")
    assert catalogue.find("b").jobs == ("one", "two", "three", "four")
    assert catalogue.newest(0, 10)[0][0].jobs == ("one", "two", "three", "four")
    assert len(Batches(house.store).read("b").parts) == 2  # type: ignore[union-attr]  # it is there


def test_the_batch_that_was_written_to_last_is_listed_first(house: House) -> None:
    enqueue(house, "one")
    Batches(house.store).record("later", "later.csv", utc_now(), [])
    catalogue = Catalogue(house.store)

    assert [batch.name for batch in catalogue.newest(0, 10)[0]] == ["later", "b"]
    assert catalogue.newest(1, 1) == ([catalogue.find("b")], False)
    assert catalogue.newest(0, 1) == ([catalogue.find("later")], True)


def test_jobs_that_were_published_without_a_manifest_are_known_by_their_receipts(house: House) -> None:
    jobs = enqueue(house, "one")
    end(house.store, jobs["one"], "failed", "bad luck")
    entry = house.store.head(".nightreel/batches/b.json")
    assert entry is not None
    house.store.delete(entry.name, generation=entry.generation)

    assert listed(house).jobs == ("one",)
    with pytest.raises(NotFound, match="no batch c"):
        Catalogue(house.store).find("c")
