"""Batch records: what was asked for, whoever asks, and however many at once."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from test_receipts import race

from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batch, Batches, IdTaken
from nightreel_storage.connect import open_store
from nightreel_storage.errors import Conflict, StoreError

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def batches(store: Store) -> Batches:
    return Batches(store)


def asked(id_: str, fingerprint: str = "f00d") -> Asked:
    return Asked(id=id_, fingerprint=fingerprint, duration_s=4.0, message=f'{{"id":"{id_}"}}')


def batch(*jobs: Asked, name: str = "b", minute: int = 0) -> Batch:
    return Batch(name=name, title="nightly.yaml", enqueued_at=NOW + dt.timedelta(minutes=minute), jobs=jobs)


def record(batches: Batches, wanted: Batch) -> Batch:
    return batches.record(wanted.name, wanted.title, wanted.enqueued_at, wanted.jobs)


def test_a_batch_that_nobody_asked_for_has_no_record(batches: Batches) -> None:
    assert batches.read("b") is None
    assert list(batches.list()) == []


def test_a_batch_is_recorded_as_it_was_asked_for(batches: Batches) -> None:
    one = batch(asked("harbour"), asked("moon"))

    assert record(batches, one) == one
    assert batches.read("b") == one


def test_more_jobs_of_a_batch_join_those_that_it_has(batches: Batches) -> None:
    record(batches, batch(asked("harbour"), asked("moon")))

    merged = record(batches, batch(asked("moon"), asked("tower"), minute=5))

    # Then each is there once, and the record says when the first came
    assert merged == batch(asked("harbour"), asked("moon"), asked("tower"))
    assert batches.read("b") == merged


def test_asking_for_the_same_again_writes_nothing(batches: Batches, store: Store) -> None:
    record(batches, batch(asked("harbour")))
    before = list(store.list())

    record(batches, batch(asked("harbour"), minute=5))

    assert list(store.list()) == before


def test_other_content_under_a_known_id_is_refused_and_nothing_is_recorded(batches: Batches) -> None:
    first = record(batches, batch(asked("harbour", "one")))

    with pytest.raises(IdTaken, match="batch b already has a job harbour with other content: choose another id") as no:
        record(batches, batch(asked("new"), asked("harbour", "two")))
    assert isinstance(no.value, Conflict)
    assert batches.read("b") == first


def test_one_id_may_stand_for_different_jobs_in_different_batches(batches: Batches) -> None:
    record(batches, batch(asked("harbour", "one")))
    record(batches, batch(asked("harbour", "two"), name="c"))

    assert [each.jobs[0].fingerprint for each in batches.list()] == ["one", "two"]


def test_batches_are_listed_oldest_first(batches: Batches) -> None:
    for name, minute in [("a", 3), ("b", 1), ("c", 2)]:
        record(batches, batch(asked("x"), name=name, minute=minute))

    assert [each.name for each in batches.list()] == ["b", "c", "a"]


RECORD = """
import datetime as dt, sys
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.connect import open_store

batches = Batches(open_store(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    job = Asked(id=f"{sys.argv[2]}{number}", fingerprint="f", duration_s=1.0, message="{}")
    batches.record("b", "t", dt.datetime.now(dt.UTC), (job,))
"""


def test_two_processes_that_record_one_batch_at_once_lose_no_job(batches: Batches, store_url: str) -> None:
    race(RECORD, [[store_url, name] for name in ("red", "blue")])

    record = batches.read("b")
    assert record is not None
    expected = [f"{name}{number}" for name in ("blue", "red") for number in range(20)]
    assert sorted(job.id for job in record.jobs) == sorted(expected)


def test_fields_of_a_newer_version_are_skipped_on_reading(batches: Batches, store: Store) -> None:
    newer = batch(asked("harbour")).model_dump(mode="json") | {"budget_usd": 5}
    newer["jobs"][0]["gpu_s"] = 3
    store.put(".nightreel/batches/b.json", json.dumps(newer).encode())

    assert batches.read("b") == batch(asked("harbour"))


def test_a_record_that_cannot_be_read_is_told_by_its_name(batches: Batches, store: Store) -> None:
    store.put(".nightreel/batches/b.json", b'{"name": "b"}')
    complaint = r"\.nightreel/batches/b\.json cannot be read.*title.*move it away"

    with pytest.raises(StoreError, match=complaint):
        batches.read("b")
    with pytest.raises(StoreError, match=complaint):
        list(batches.list())
    with pytest.raises(StoreError, match=complaint):
        record(batches, batch(asked("harbour")))


# Batches of thousands


def many(count: int, fingerprint: str = "f00d") -> tuple[Asked, ...]:
    return tuple(asked(f"v{number}", fingerprint) for number in range(count))


@pytest.fixture
def parts_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightreel_storage.batches.PART_JOBS", 3)


@pytest.mark.usefixtures("parts_of_three")
def test_full_parts_lie_in_objects_of_their_own_and_the_order_stays(batches: Batches, store: Store) -> None:
    head = record(batches, batch(*many(7)))

    assert (head.count, len(head.jobs), [part.count for part in head.parts]) == (7, 1, [3, 3])
    assert len(list(store.list(".nightreel/batches/"))) == 3
    assert tuple(batches.jobs(head)) == many(7)
    assert batches.find(head, "v4") == asked("v4")
    assert batches.find(head, "v7") is None
    # And a part is no batch
    assert list(batches.list()) == [head]


@pytest.mark.usefixtures("parts_of_three")
def test_jobs_that_join_a_large_batch_are_compared_with_all_of_it(batches: Batches, store: Store) -> None:
    record(batches, batch(*many(4)))

    grown = record(batches, batch(*many(8)))
    before = list(store.list())

    assert tuple(batches.jobs(grown)) == many(8)
    assert record(batches, batch(*many(8))) == grown
    with pytest.raises(IdTaken, match="a job v0 with other content"):
        record(batches, batch(asked("new"), asked("v0", "other")))
    assert list(store.list()) == before


@pytest.mark.usefixtures("parts_of_three")
def test_a_record_of_an_older_version_with_all_jobs_in_its_head_is_read_and_grows(
    batches: Batches, store: Store
) -> None:
    old = {"name": "b", "title": "nightly.yaml", "enqueued_at": NOW.isoformat()}
    jobs = [each.model_dump(mode="json") for each in many(5)]
    store.put(".nightreel/batches/b.json", json.dumps(old | {"jobs": jobs}).encode())

    head = batches.read("b")
    assert head is not None
    assert (head.count, tuple(batches.jobs(head))) == (5, many(5))
    assert tuple(batches.jobs(record(batches, batch(*many(6))))) == many(6)


@pytest.mark.usefixtures("parts_of_three")
def test_a_part_that_is_missing_or_cannot_be_read_is_told_by_its_name(batches: Batches, store: Store) -> None:
    head = record(batches, batch(*many(3)))
    [part] = head.parts
    entry = store.head(part.name)
    assert entry is not None
    store.put(part.name, b"{}", generation=entry.generation)

    with pytest.raises(StoreError, match=rf"{part.name} cannot be read.*move it away"):
        list(batches.jobs(head))
