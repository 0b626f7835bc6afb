"""gc: what nobody needs is told and deleted; what is in use stays, also under a worker at work."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from finished import ENDED_AT, end, enqueue, finish, nightreel
from house import House, job, until, verdict
from house import finish as finish_process
from places import Places

from nightreel_pipelines.models import load_models
from nightreel_queue.job import Job
from nightreel_storage import batches
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.inputs import StoredInputs, input_name
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import Receipts, utc_now
from nightreel_worker.garbage import Litter, delete, find
from nightreel_worker.report import run_name

LATER = dt.timedelta(days=365)
HOUR = dt.timedelta(hours=1)
PICTURE = f"input:sha256:{'ab' * 32}.png"


@pytest.fixture
def house_there(make_house: Callable[..., House], store_url: str, tmp_path: Path) -> House:
    """A house with a folder or a bucket."""
    return make_house(Places(f"sqlite:///{tmp_path / 'queue.db'}", store_url))


def found(house: House, in_: dt.timedelta = LATER, older_than: dt.timedelta | None = None) -> dict[str, Litter]:
    """What gc finds, so much later."""
    models = load_models(house.folder / "models.toml")
    return {each.kind: each for each in find(house.store, models, utc_now() + in_, older_than)}


def names(litter: Litter) -> list[str]:
    return [entry.name.rpartition("/")[2].partition(".")[0] for entry in litter.entries]


def keep_keyframe(house: House, fingerprint: str, maker: str) -> None:
    path = house.folder / "picture"
    path.write_bytes(fingerprint.encode())
    Keyframes(house.store).put(fingerprint, path, f"run.b.{maker}.1.1")


def keep_all_kinds(house: House, name: str) -> None:
    """A keyframe, an attempt, a run's report, a rejected message and an input."""
    keep_keyframe(house, f"keyframe-{name}", name)
    Attempts(house.store).open("b", name, 1, "run", ENDED_AT)
    house.store.put(f".nightreel/rejected/{name}.json", b"{}")
    house.store.put(f".nightreel/inputs/{name}.png", name.encode())


def test_what_ended_long_ago_is_told_by_kind_and_deleted_only_when_that_is_asked(house_there: House) -> None:
    # Given a batch that has ended, and all that its rendering left
    made = enqueue(house_there, "made")["made"]
    finish(house_there.store, made)
    keep_all_kinds(house_there, "made")
    runs = [run_name(f"run-{number:02}") for number in range(22)]
    for name in runs:
        house_there.store.put(name, b"{}")

    # Then as long as each kind is kept, and an hour in any case, there is nothing to say
    told = nightreel(house_there, "gc", "--older-than", "0", "--delete", "--json")
    assert told.code == 0
    assert [(row["kind"], row["objects"], row["deleted"]) for row in json.loads(told.out)["kinds"]] == [
        (kind, 0, 0) for kind in ("keyframes", "inputs", "attempts", "runs", "rejected", "batches")
    ]
    assert not any(each.entries for each in found(house_there, dt.timedelta(days=13)).values())
    assert names(found(house_there, dt.timedelta(days=15))["keyframes"]) == ["keyframe-made"]

    # And later all goes but videos, receipts and the last runs
    kinds = found(house_there)
    assert {kind: len(each.entries) for kind, each in kinds.items()} == {
        "keyframes": 1, "inputs": 1, "attempts": 1, "runs": 2, "rejected": 1, "batches": 1,
    }  # fmt: skip
    assert kinds["keyframes"].size_bytes == len("keyframe-made")
    assert [delete(house_there.store, each) for each in kinds.values()] == [1, 1, 1, 2, 1, 1]
    left = [entry.name for entry in house_there.store.list()]
    assert left == sorted([*runs[2:], "b/made.jpg", "b/made.json", "b/made.mp4"])

    # And status still knows the batch, by its receipts
    assert json.loads(nightreel(house_there, "status", "b", "--json").out)["jobs"][0]["state"] == "done"


def test_the_command_says_what_it_would_delete_and_that_a_bucket_has_rules(house_there: House) -> None:
    keep_all_kinds(house_there, "left")
    if house_there.places.store_url.startswith("gs://"):
        told = nightreel(house_there, "gc")
        assert "keyframes after 14 days, inputs after 30 days" in told.out
    else:
        age(house_there, "")
        told = nightreel(house_there, "gc", "--older-than", "14d")
        assert told.out.splitlines()[1].split() == [
            "keyframes",
            "1",
            "0.0",
            *told.out.splitlines()[1].split()[3:5],
            "0",
        ]
        assert told.out.splitlines()[-1] == "Nothing was deleted: add --delete to delete these."
        assert len(list(house_there.store.list(".nightreel/"))) == 4
        told = nightreel(house_there, "gc", "--older-than", "14d", "--delete")
        assert list(house_there.store.list(".nightreel/")) == []
    assert told.code == 0


def age(house: House, prefix: str, days: int = 100) -> None:
    """Make objects of a folder older than they are; their content stays."""
    for entry in house.store.list(f".nightreel/{prefix}"):
        sidecar = house.folder / f"out/.nightreel/objects/{entry.name}~.json"
        fields = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps(fields | {"generation": entry.generation - days * 86400 * 10**9}))


def record(house: House, *jobs: Job) -> None:
    asked = [
        Asked(id=str(each.id), fingerprint=each.fingerprint, duration_s=1, message=each.to_json()) for each in jobs
    ]
    Batches(house.store).record("b", "test", utc_now(), asked)


def test_what_jobs_need_that_have_not_ended_stays(house_there: House, tmp_path: Path) -> None:
    # Given a job that waits, one that waits for its second round, one that came as a bare message, and one that ended
    waiting = job("waiting", "x", shots=[{"image": PICTURE, "duration": 0.5}])
    record(house_there, waiting, job("again", "y"), job("ended", "z"))
    end(house_there.store, job("ended", "z"), "failed", "out of luck")
    end(house_there.store, job("again", "y"), "failed", "out of luck")
    Receipts(house_there.store).requeue("b", "again", ENDED_AT)
    for name in ("waiting", "again", "ended"):
        keep_all_kinds(house_there, name)
    house_there.store.put(input_name(PICTURE), b"a picture")

    kinds = found(house_there)

    # Then what the ended one left goes, but no keyframe while nobody can tell what the others' plans need
    assert names(kinds["attempts"]) == ["r0001-0001"]
    assert kinds["attempts"].entries[0].name.startswith(".nightreel/attempts/b/ended/")
    assert kinds["batches"].entries == ()
    assert input_name(PICTURE) not in [entry.name for entry in kinds["inputs"].entries]
    assert (kinds["inputs"].in_use, kinds["attempts"].in_use, kinds["keyframes"].in_use) == (1, 2, 3)

    # And when all have ended everything goes
    for name in ("waiting", "again"):
        assert nightreel(house_there, "cancel", "b", name).code == 0
    kinds = found(house_there)
    assert (len(kinds["attempts"].entries), len(kinds["batches"].entries), len(kinds["inputs"].entries)) == (3, 1, 4)
    assert len(kinds["keyframes"].entries) == 3


def test_an_input_that_enqueue_relies_on_is_never_old_enough(house: House, tmp_path: Path) -> None:
    # Given an input that `enqueue` leaves as it is for a week, and no job yet that names it
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"a picture")
    address = f"input:sha256:{hashlib.sha256(b'a picture').hexdigest()}.png"
    inputs = StoredInputs(house.store)
    assert inputs.put(address, picture, utc_now())
    assert not inputs.put(address, picture, utc_now() + dt.timedelta(days=6.9))

    # Then it stays for a day longer than it is relied on
    for days, is_old in ((6.9, False), (7.5, False), (8.1, True)):
        kinds = found(house, dt.timedelta(days=days), dt.timedelta())
        assert bool(kinds["inputs"].entries) == is_old, days
    assert inputs.put(address, picture, utc_now() + dt.timedelta(days=7.1))


def test_a_bare_message_that_is_being_rendered_keeps_its_things_for_a_month(house: House) -> None:
    # Given an attempt at a job that no batch knows of
    keep_all_kinds(house, "bare")

    for days, free in ((29, 0), (31, 1)):
        kinds = found(house, dt.timedelta(days=days), HOUR)
        assert [len(kinds[kind].entries) for kind in ("keyframes", "inputs", "attempts")] == [free] * 3


def test_files_of_a_persons_own_are_left_alone(house: House) -> None:
    (house.folder / "out/.nightreel/rejected").mkdir(parents=True)
    (house.folder / "out/.nightreel/rejected/mine.json").write_text("mine")

    assert found(house)["rejected"].entries == ()


def test_what_is_put_anew_meanwhile_is_not_deleted(house_there: House) -> None:
    finish(house_there.store, enqueue(house_there, "made")["made"])
    kinds = found(house_there)
    [head] = kinds["batches"].entries
    enqueue(house_there, "late")

    assert delete(house_there.store, kinds["batches"]) == 0

    batch = Batches(house_there.store).read("b")
    assert batch is not None
    assert [asked.id for asked in batch.jobs] == ["made", "late"]
    assert head.name == batches.head_name("b")


def test_a_part_that_a_new_record_speaks_of_is_not_deleted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a large batch that has ended, and gc that has just found it
    monkeypatch.setattr(batches, "PART_JOBS", 2)
    jobs = enqueue(house, "one", "two", "three")
    for each in jobs.values():
        finish(house.store, each)
    litter = found(house)["batches"]
    assert len(litter.entries) == 2
    head = next(entry for entry in litter.entries if entry.name == batches.head_name("b"))
    part = next(entry for entry in litter.entries if entry is not head)

    # When its head is gone, and the same jobs are recorded again, before the parts are deleted
    house.store.delete(head.name, generation=head.generation)
    enqueue(house, *jobs)
    delete(house.store, litter)

    batch = Batches(house.store).read("b")
    assert batch is not None
    assert [asked.id for asked in Batches(house.store).jobs(batch)] == ["one", "two", "three"]

    # And neither is it by whoever found it before, without looking at the heads again
    entry = house.store.head(part.name)
    assert entry is not None
    assert entry.generation > part.generation


def test_a_worker_at_work_loses_no_keyframe_to_a_gc_that_takes_all_it_may(house: House) -> None:
    # Given jobs that ended, which tell what the model is, and one under way, of which all is old
    house.enqueue(job("old", "an intro", "long ago"), job("other", "nobody's"))
    assert house.work_all().code == 0
    house.enqueue(job("new", "an intro", "first", "after the fault", "last"))
    worker = house.start()
    until(lambda: "first" in house.rendered(), "a keyframe", worker)
    until(lambda: len(keyframes(house.store)) == 4, "it in the store", worker)
    age(house, "")

    # When everything that may go goes
    run = nightreel(house, "gc", "--older-than", "0", "--delete", "--json")

    # Then the keyframes of the job under way stay, also the one that an ended job made; the others go
    rows = {row["kind"]: (row["deleted"], row["in_use"]) for row in json.loads(run.out)["kinds"]}
    assert rows == {
        "keyframes": (2, 2), "inputs": (0, 0), "attempts": (2, 1), "runs": (0, 1), "rejected": (0, 0), "batches": (0, 1),
    }  # fmt: skip
    house.end_the_fault()
    assert finish_process(worker).code == 0
    verdict(house, "old", "other", "new")


def test_a_job_whose_keyframes_are_all_deleted_under_it_is_made_all_the_same(house: House) -> None:
    # Given a worker in the middle of a job, and somebody who deletes what it has stored
    house.enqueue(job("film", "first", "after the fault"))
    worker = house.start()
    until(lambda: keyframes(house.store), "a keyframe in the store", worker)
    for entry in list(house.store.list(".nightreel/keyframes/")):
        house.store.delete(entry.name, generation=entry.generation)

    house.end_the_fault()

    # Then the film is made of what the worker has; nothing is rendered twice
    assert finish_process(worker).code == 0
    verdict(house, "film")


def keyframes(store: Store) -> list[str]:
    return [entry.name for entry in store.list(".nightreel/keyframes/")]


@pytest.mark.parametrize("text", ["14", "two weeks", "-1d", "1.5h", "14d2"])
def test_an_age_that_is_none_is_refused(house: House, text: str) -> None:
    run = nightreel(house, "gc", f"--older-than={text}")

    assert (run.code, run.out) == (2, "")
    assert run.err == f"nightreel: --older-than {text}: give days, hours or minutes, such as 14d, 36h or 90m\n"
