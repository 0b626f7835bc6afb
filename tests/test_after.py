"""cancel, retry, status of a batch that is under way, and what they cost a store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from finished import ENDED_AT, end, enqueue, finish, nightreel
from house import House, job, until
from house import finish as finish_process
from places import Places

from nightreel.after import statuses
from nightreel_dispatcher.looking import known_batch
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Entry
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Receipts


@pytest.fixture
def house_there(make_house: Callable[..., House], store_url: str, tmp_path: Path) -> House:
    """A house with a folder or a bucket."""
    return make_house(Places(f"sqlite:///{tmp_path / 'queue.db'}", store_url))


def states(house: House) -> dict[str, str]:
    told = json.loads(nightreel(house, "status", "b", "--json").out)
    return {each["job"]: each["state"] for each in told["jobs"]}


def test_a_batch_that_is_cancelled_ends_what_has_not_ended_and_keeps_what_is_done(house_there: House) -> None:
    # Given a batch with a job in each state
    jobs = enqueue(house_there, "made", "broken", "again", "fresh")
    finish(house_there.store, jobs["made"])
    end(house_there.store, jobs["broken"], "failed", "out of luck")
    end(house_there.store, jobs["again"], "failed", "out of luck")
    Receipts(house_there.store).requeue("b", "again", ENDED_AT)

    run = nightreel(house_there, "cancel", "b")

    # Then what was waiting for its first or second round is cancelled, and nothing else
    assert (run.code, run.out, run.err) == (0, "2 jobs of b are cancelled; 2 had ended before\n", "")
    assert states(house_there) == {"made": "done", "broken": "failed", "again": "cancelled", "fresh": "cancelled"}
    assert (house_there.receipt("again").round, house_there.receipt("fresh").round) == (2, 1)
    assert house_there.store.get("b/made.mp4")[0] == b"a film"

    # And the second time there is nothing to do
    again = nightreel(house_there, "cancel", "b")
    assert (again.code, again.out) == (0, "0 jobs of b are cancelled; 4 had ended before\n")

    # And a retry asks for what was cancelled, too
    assert nightreel(house_there, "retry", "b").out == "3 jobs of b enqueued again\n"


def test_a_batch_may_be_cancelled_while_it_is_rendered(house: House) -> None:
    house.enqueue(job("under-way", "first", "after the fault"), job("next", "second"))
    worker = house.start()
    until(lambda: "first" in house.rendered(), "a job under way", worker)

    # A job that is under way is not asked for again
    refused = nightreel(house, "retry", "b", "under-way")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "nightreel: b/under-way has not ended: it waits, or is being rendered; to begin anew, cancel it first\n"
    )
    assert states(house)["under-way"] == "started"

    run = nightreel(house, "cancel", "b")

    assert run.out == "2 jobs of b are cancelled; 0 had ended before\n"
    assert finish_process(worker).code == 0
    assert states(house) == {"under-way": "cancelled", "next": "cancelled"}
    assert list(house.store.list("b/under-way.mp4")) == []
    assert house.queue.backlog().total == 0


class Counting(FolderStore):
    """Counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: Counter[str] = Counter()

    def get(self, name: str) -> tuple[bytes, Entry]:
        self.calls["get"] += 1
        return super().get(name)

    def head(self, name: str) -> Entry | None:
        self.calls["head"] += 1
        return super().head(name)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self.calls["list"] += 1
        return super().list(prefix)


def test_the_status_of_a_batch_costs_two_listings_however_many_jobs_it_has(house: House) -> None:
    # Given a batch of which many jobs are done, and many wait
    jobs = enqueue(house, *(f"job-{number}" for number in range(30)))
    for name in list(jobs)[:15]:
        finish(house.store, jobs[name])
    end(house.store, jobs["job-15"], "failed", "out of luck")
    Attempts(house.store).open("b", "job-16", 1, "some-run", ENDED_AT)
    store = Counting(house.folder / "out")

    told = {each.job: (each.state, each.reason) for each in statuses(store, known_batch(store, "b"))}

    # Then the batch's record is read, the receipt with a reason, and the attempt
    assert told["job-0"] == ("done", "")
    assert told["job-15"] == ("failed", "out of luck")
    assert told["job-16"] == ("started", "")
    assert told["job-29"] == ("waiting", "")
    assert store.calls == {"get": 3, "list": 3}


def test_a_receipt_whose_entry_says_nothing_is_read(house: House) -> None:
    jobs = enqueue(house, "old", "by-hand")
    end(house.store, jobs["old"], "failed", "out of luck")
    data, _ = house.store.get("b/old.json")
    house.store.delete("b/old.json", generation=house.store.get("b/old.json")[1].generation)
    house.store.put("b/old.json", data, metadata={"state": "failed"})  # as earlier versions did
    (house.folder / "out/b/by-hand.json").write_bytes(data.replace(b'"old"', b'"by-hand"'))

    assert states(house) == {"old": "failed", "by-hand": "failed"}
