"""Traces: made up, read from a file with every mistake told, and read from a store's receipts."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import pytest

from nightreel_dispatcher.simulation import Arrival
from nightreel_dispatcher.traces import BUILT_IN, LONGEST_S, MONDAY_S, SHORTEST_S, BadTrace, read_trace, receipts_trace
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Cost, Made, Receipt, Receipts

DAY_S = 86_400.0


def complaints(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadTrace) as caught:
        read_trace(path)
    return str(caught.value).replace(f"{path}", "t.csv").splitlines()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_trace_is_in_order_plausible_and_always_the_same(name: str) -> None:
    jobs = BUILT_IN[name]()

    assert jobs == BUILT_IN[name]()
    assert all(one.at_s <= other.at_s for one, other in itertools.pairwise(jobs))
    assert jobs[0].at_s >= MONDAY_S
    assert jobs[-1].at_s < MONDAY_S + 7 * DAY_S
    assert all(SHORTEST_S <= job.work_s <= LONGEST_S for job in jobs)
    assert not any(job.urgent for job in jobs)


def test_a_launch_day_has_100_000_jobs_and_a_spike() -> None:
    hours = [int((job.at_s - MONDAY_S) // 3600) for job in BUILT_IN["launch"]()]

    assert len(hours) == 100_000
    assert max(set(hours), key=hours.count) == 10
    assert 2 * hours.count(11) < 3 * hours.count(10) < 9 * hours.count(11)
    assert hours.count(10) > 7 * hours.count(9)


def test_offices_are_closed_at_night_and_on_weekends() -> None:
    moments = [dt.datetime.fromtimestamp(job.at_s, dt.UTC) for job in BUILT_IN["office"]()]

    assert {moment.weekday() for moment in moments} == {0, 1, 2, 3, 4}
    assert {moment.hour for moment in moments} == set(range(9, 17))


def test_nightly_bursts_are_bursts() -> None:
    times = [job.at_s for job in BUILT_IN["nightly"]()]
    bursts = [at_s for at_s in set(times) if times.count(at_s) >= 100]

    assert len(bursts) == 7
    assert all(20 <= dt.datetime.fromtimestamp(at_s, dt.UTC).hour < 23 for at_s in bursts)


def test_a_file_is_read_in_any_order_with_or_without_urgency(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrived_s,work_s,urgent\r\n20, 5 ,\n\n3,4,yes\n3.5,1e2,No\n")
    assert read_trace(path) == [Arrival(3, 4, True), Arrival(3.5, 100), Arrival(20, 5)]

    path.write_bytes(b"\xef\xbb\xbfarrived_s,work_s\n1767571200.5,0\n")
    assert read_trace(path) == [Arrival(1767571200.5, 0)]


def test_every_mistake_is_told_with_line_field_and_mend(tmp_path: Path) -> None:
    text = "arrived_s,work_s,urgent\nsoon,5,\n3,-1,maybe\n1,2\n4,nan,\n5,inf,\n"

    assert complaints(tmp_path / "t.csv", text) == [
        "t.csv:2: arrived_s: is 'soon'; must be a number of seconds, 0 or more",
        "t.csv:3: work_s: is '-1'; must be a number of seconds, 0 or more",
        "t.csv:3: urgent: is 'maybe'; must be yes, no or empty",
        "t.csv:4: has 2 fields; must have 3: arrived_s,work_s,urgent",
        "t.csv:5: work_s: is 'nan'; must be a number of seconds, 0 or more",
        "t.csv:6: work_s: is 'inf'; must be a number of seconds, 0 or more",
    ]


def test_of_very_many_mistakes_some_are_told(tmp_path: Path) -> None:
    told = complaints(tmp_path / "t.csv", "arrived_s,work_s\n" + "x,1\n" * 50)

    assert len(told) == 21
    assert told[-1] == "t.csv: has 30 more mistakes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv:1: is ''; the first line must be arrived_s,work_s,urgent, or arrived_s,work_s"),
        ("1,2\n", "t.csv:1: is '1,2'; the first line must be arrived_s,work_s,urgent, or arrived_s,work_s"),
        ("arrived_s,work_s\n", "t.csv: has no jobs: write a line for each below the first"),
        (b"arrived_s,work_s\n1,\xff\n", "t.csv: is no CSV in UTF-8 ("),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    (line,) = complaints(tmp_path / "t.csv", text)

    assert line.startswith(said)


def test_a_file_that_is_not_there_is_told_with_the_names_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"cannot be read: No such file .*; built-in traces are nightly, office"):
        read_trace(tmp_path / "nigthly")


def receipt(job: str, published_s: float | None, seconds: float, *, rendered: bool = True) -> Receipt:
    made = Made(model="m", source="s", revision="", precision="", device="cpu") if rendered else None
    published = dt.datetime.fromtimestamp(published_s, dt.UTC) if published_s is not None else None
    return Receipt(
        state="done", batch="b", job=job, fingerprint="f", made=made, published_at=published,
        cost=Cost(seconds=seconds, usd=0.0, price="local"),
        ended_at=dt.datetime.now(dt.UTC),
    )  # fmt: skip


def test_a_store_is_replayed_as_its_receipts_tell(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    kept = Receipts(store)
    kept.commit(receipt("late", 5000.0, 32.5), None)
    kept.commit(receipt("early", 1000.0, 10.0), None)
    kept.commit(receipt("found-complete", 2000.0, 0.4, rendered=False), None)
    kept.commit(receipt("of-unknown-time", None, 1.0), None)
    store.put("b/late.mp4", b"film")
    store.put(".nightreel/runs/r.json", b"{}")

    assert receipts_trace(store) == [Arrival(1000.0, 10.0), Arrival(5000.0, 32.5)]


def test_a_store_without_such_receipts_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="has no receipt that says when its job was published and how long it took"):
        receipts_trace(FolderStore(tmp_path))
