"""Enqueueing thousands of jobs: all or none, also when it is killed half-way and run again; and looking afterwards."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import House, Run

from nightreel_storage.batches import Batches

ROWS = 2500
KILLED = """
import os, signal, sys
from nightreel.main import app
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.folder import FolderStore

place, call = sys.argv[1], int(sys.argv[2])
kind, name = {"put": (FolderStore, "put"), "publish": (SqliteQueue, "publish")}[place]
real, calls = getattr(kind, name), 0

def strike(*args, **kwargs):
    global calls
    calls += 1
    if calls == call and sys.argv[3] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(*args, **kwargs)
    if calls == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(kind, name, strike)
app(["enqueue", "films.csv"])
"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[House]:
    """A house with a manifest of many rows and a picture in it."""
    with contextlib.closing(House(tmp_path)) as house:
        rows = "".join(f"v{number},a boat,{number},\n" for number in range(ROWS - 1))
        (tmp_path / "films.csv").write_text(f"id,prompt,seed,image\n{rows}last,,,a.png\n")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        yield house


def nightreel(house: House, *arguments: str) -> Run:
    return house.work(sys.executable, "-m", "nightreel", *arguments)


def published(house: House) -> list[str]:
    with contextlib.closing(sqlite3.connect(house.folder / "queue.db")) as db:
        return [json.loads(body)["id"] for (body,) in db.execute("SELECT body FROM messages ORDER BY id")]


@pytest.mark.parametrize(
    ("place", "call", "when"),
    [
        ("put", 1, "after"),  # the picture
        ("put", 2, "after"),  # the first part
        ("put", 4, "before"),  # the head
        ("put", 4, "after"),
        ("publish", 1, "before"),
        ("publish", 1, "after"),
    ],
)
def test_whenever_it_is_killed_the_same_command_again_loses_nothing_and_doubles_nothing(
    desk: House, place: str, call: int, when: str
) -> None:
    died = desk.work(sys.executable, "-c", KILLED, place, str(call), when)
    assert died.code == -signal.SIGKILL, died.err
    assert len(published(desk)) in (0, ROWS)

    run = nightreel(desk, "enqueue", "films.csv")

    assert run.code == 0, run.err
    names = [f"v{number}" for number in range(ROWS - 1)] + ["last"]
    assert published(desk) == names
    batches = Batches(desk.store)
    [batch] = batches.list()
    assert batch.count == ROWS
    assert [asked.id for asked in batches.jobs(batch)] == names
    # Two parts, the head and the picture: nothing lies beside them
    assert len(list(desk.store.list(".nightreel/"))) == 4


def test_status_retry_and_cancel_know_the_jobs_of_a_large_batch(desk: House) -> None:
    name = json.loads(nightreel(desk, "enqueue", "films.csv", "--json").out)["batch"]

    assert nightreel(desk, "cancel", name, "v1500").code == 0
    status = json.loads(nightreel(desk, "status", "--json").out)["batches"][0]
    jobs = json.loads(nightreel(desk, "status", name, "--json").out)["jobs"]
    again = nightreel(desk, "retry", name)

    assert (status["jobs"], status["cancelled"], status["open"]) == (ROWS, 1, ROWS - 1)
    assert len(jobs) == ROWS
    assert [job["job"] for job in jobs if job["state"] == "cancelled"] == ["v1500"]
    assert again.out == f"1 jobs of {name} enqueued again\n"
    assert "has no job v9999" in nightreel(desk, "cancel", name, "v9999").err


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("status --store nowhere", "there is no store at nowhere: name one with --store or NIGHTREEL_STORE"),
        ("status b --store nowhere", "there is no store at nowhere: name one with --store or NIGHTREEL_STORE"),
        ("retry b --store nowhere", "there is no store at nowhere: name one with --store or NIGHTREEL_STORE"),
        ("cancel b x --store nowhere", "there is no store at nowhere: name one with --store or NIGHTREEL_STORE"),
        ("status --queue sqlite:///no.db", "there is no queue at sqlite:///no.db: name one with --queue or NIGHTREEL_QUEUE"),
    ],
)  # fmt: skip
def test_looking_at_what_is_not_there_says_so_and_makes_nothing(desk: House, command: str, complaint: str) -> None:
    before = sorted(desk.folder.iterdir())

    run = nightreel(desk, *command.split())

    assert (run.code, run.out, run.err) == (3, "", f"nightreel: {complaint}\n")
    assert sorted(desk.folder.iterdir()) == before
