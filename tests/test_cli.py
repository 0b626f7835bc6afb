"""The command line, by the processes that a person or a program would run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from house import House, Run, finish, job, until

from nightreel.main import app
from nightreel_queue.base import Message
from nightreel_queue.job import Job
from nightreel_queue.schema import job_schema, manifest_schema
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.base import Entry
from nightreel_storage.batches import Batches
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import Cost, Made, OutputFile, Receipt, Receipts, Record, Video, utc_now
from nightreel_worker.estimate import Taken
from nightreel_worker.highlights import BatchCount, Ending, Finished
from nightreel_worker.report import RunReport

PAGES = Path(__file__).parent.parent / "docs/reference"
HEAD = """
defaults:
  output: {width: 64, height: 64, fps: 8}
  transition: {type: cut}
  shot: {duration: 0.5, motion: still}
"""
FILMS = f"""
batch: films
{HEAD}
  render: {{model: testcard, megapixels: 0.004}}
jobs:
  - id: harbour
    shots: [an intro, a harbour]
  - id: moon
    shots: [an intro, a moon]
"""


class Desk(House):
    """A house with a person in it, who types commands."""

    queue: SqliteQueue

    @property
    def queue_path(self) -> Path:
        return self.folder / "queue.db"

    def write(self, text: str, name: str = "films.yaml") -> str:
        (self.folder / name).write_text(text)
        return name

    def nightreel(self, *arguments: str, **settings: str) -> Run:
        return self.work(sys.executable, "-m", "nightreel", *arguments, **settings)

    def objects(self, prefix: str) -> list[Entry]:
        return list(self.store.list(prefix))

    def is_untouched(self) -> bool:
        """Nothing was recorded, nothing was published."""
        return not list(Batches(self.store).list()) and self.queue.backlog().total == 0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with contextlib.closing(Desk(tmp_path)) as desk:
        yield desk


# Rendering a manifest, twice


@dataclass(frozen=True, slots=True)
class Twice:
    """One manifest, rendered, and rendered again."""

    desk: Desk
    first: Run
    objects: list[Entry]
    second: Run


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twice]:
    with contextlib.closing(Desk(tmp_path_factory.mktemp("twice"))) as desk:
        films = desk.write(FILMS)
        first = desk.nightreel("render", films)
        objects = desk.objects("films/") + desk.objects(".nightreel/keyframes/")
        yield Twice(desk, first, objects, desk.nightreel("render", films))


def test_render_makes_a_video_a_poster_and_a_receipt_of_each_job(twice: Twice) -> None:
    assert twice.first.code == 0, twice.first.err
    folder = twice.desk.folder / "out/films"
    assert sorted(file.name for file in folder.iterdir()) == [
        "contact.sheet.jpg",
        *(f"{name}.{suffix}" for name in ("harbour", "moon") for suffix in ("jpg", "json", "mp4")),
    ]
    assert (folder / "moon.mp4").read_bytes()[4:8] == b"ftyp"
    assert (folder / "moon.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_render_says_what_it_does_and_sums_it_up(twice: Twice) -> None:
    lines = twice.first.out.splitlines()

    assert "harbour: 2 keyframes to render, 0 from the store, 8 frames" in lines
    assert any(line.startswith("moon: done: 1 keyframes in ") for line in lines)
    assert re.fullmatch(
        r"2 of 2 videos made in \d+\.\d s, 3 keyframes rendered, 1 from the store\.\n"
        rf"They are in {re.escape(str(twice.desk.folder))}/out/films\n"
        rf"Contact sheet: {re.escape(str(twice.desk.folder))}/out/films/contact.sheet.jpg",
        "\n".join(lines[-3:]),
    )
    assert twice.first.err == ""


def test_the_same_again_does_no_model_work_and_says_so(twice: Twice) -> None:
    assert twice.second.code == 0
    assert "All 2 videos were there already; no model work was done." in twice.second.out.splitlines()
    assert "keyframes to render" not in twice.second.out
    assert twice.desk.objects("films/") + twice.desk.objects(".nightreel/keyframes/") == twice.objects


def test_status_tells_the_batches_and_the_queue(twice: Twice) -> None:
    table = twice.desk.nightreel("status")
    data = json.loads(twice.desk.nightreel("status", "--json").out)

    where = str(twice.desk.folder / "out/films")
    assert table.code == 0
    assert [line.split() for line in table.out.splitlines()[:2]] == [
        ["batch", "jobs", "done", "failed", "cancelled", "open", "where"],
        ["films", "2", "2", "0", "0", "0", where],
    ]
    assert table.out.splitlines()[2] == "queue: 0 ready, 0 delayed, 0 held by workers, 0 dead letters"
    [batch] = data["batches"]
    assert batch.pop("enqueued_at")[:2] == "20"
    counts = {"jobs": 2, "done": 2, "failed": 0, "cancelled": 0, "open": 0}
    assert batch == {"batch": "films", "from": "films.yaml", "where": where} | counts
    assert data["queue"] == {"ready": 0, "delayed": 0, "leased": 0, "dead": 0}


def test_status_of_a_batch_tells_its_jobs_and_cuts_no_path(twice: Twice) -> None:
    table = twice.desk.nightreel("status", "films")
    data = json.loads(twice.desk.nightreel("status", "films", "--json").out)

    places = {name: str(twice.desk.folder / f"out/films/{name}.mp4") for name in ("harbour", "moon")}
    assert [line.split() for line in table.out.splitlines()[1:]] == [[name, "done", at] for name, at in places.items()]
    assert data == {
        "batch": "films",
        "jobs": [{"job": name, "state": "done", "reason": "", "round": 1, "where": at} for name, at in places.items()],
    }


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("status flims", "no batch flims; there are films"),
        ("retry flims", "no batch flims; there are films"),
        ("retry films sun", "batch films has no job sun; see: nightreel status films"),
        ("retry films moon", "films/moon round 1 is done already"),
        ("cancel flims moon", "no batch flims; there are films"),
        ("cancel films sun", "batch films has no job sun; see: nightreel status films"),
        ("cancel films moon", "films/moon round 1 is done already: nothing to cancel"),
    ],
)
def test_what_cannot_be_done_afterwards_is_refused_in_a_line(twice: Twice, command: str, complaint: str) -> None:
    run = twice.desk.nightreel(*command.split())

    assert (run.code, run.out, run.err) == (2, "", f"nightreel: {complaint}\n")
    assert twice.desk.objects("films/") + twice.desk.objects(".nightreel/keyframes/") == twice.objects
    assert twice.desk.queue.backlog().total == 0


def test_a_batch_in_which_nothing_failed_needs_no_retry(twice: Twice) -> None:
    run = twice.desk.nightreel("retry", "films")

    assert (run.code, run.out) == (0, "nothing in films needs a retry\n")
    assert twice.desk.queue.backlog().total == 0


def test_other_content_under_a_known_id_is_refused(twice: Twice) -> None:
    other = twice.desk.write(FILMS.replace("a moon", "a sun"), "other.yaml")

    run = twice.desk.nightreel("render", other)

    assert (run.code, run.out) == (2, "")
    assert run.err == ("nightreel: batch films already has a job moon with other content: choose another id or batch\n")
    assert twice.desk.queue.backlog().total == 0


# Rendering a prompt


def test_a_prompt_becomes_a_video_at_the_place_that_was_asked_for(desk: Desk) -> None:
    # Given a prompt that is longer than any file's name, and has a slash in it
    prompt = "some blue and " * 30 + "a sea/sky in equal parts"
    run = desk.nightreel("render", prompt, "-o", "sky.mp4")

    assert run.code == 0, run.err
    assert run.out.splitlines()[-1] == "sky.mp4"
    [video] = [entry for entry in desk.objects("some-blue-and") if entry.name.endswith(".mp4")]
    assert (desk.folder / "sky.mp4").read_bytes() == desk.store.get(video.name)[0]

    # And a second copy costs no model work
    again = desk.nightreel("render", prompt, "--output", "again.MP4")
    assert again.code == 0
    assert "no model work" in again.out
    assert (desk.folder / "again.MP4").read_bytes() == (desk.folder / "sky.mp4").read_bytes()
    assert len(desk.rendered()) == 1
    assert list(desk.folder.glob("*.part")) == []


# What is refused before anything happens


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk at which nothing succeeds."""
    with contextlib.closing(Desk(tmp_path_factory.mktemp("quiet"))) as desk:
        desk.write(FILMS)
        desk.write(FILMS.replace("testcard", "testcrad"), "no-model.yaml")
        desk.write("jobs:\n  - id: a\n    shots: []\n  - id: b\n    shotz: [x]\n", "wrong.yaml")
        desk.write("mine", "there.mp4")
        yield desk


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("render moon -o there.mp4", "-o there.mp4 is there already: move it away, or choose another name"),
        ("render moon -o moon.avi", "-o moon.avi: videos are MP4 files: call it moon.mp4"),
        ("render moon -o none/moon.mp4", "-o none/moon.mp4: there is no folder none: make it first"),
        ("render films.yaml -o x.mp4", "-o takes one video, and films.yaml makes 2: leave it out"),
        ("render missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        ("enqueue missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        ("render no-model.yaml", "render.model: no model testcrad; did you mean testcard?"),
        ("enqueue no-model.yaml", "render.model: no model testcrad; did you mean testcard?"),
        (
            "render films.yaml --model x",
            "NIGHTREEL_MODEL: no model x; there are comfyui-schnell, faulty, flux-dev, flux-schnell, gemini-veo, gemini-veo-fast, pocket, testcard",
        ),
        (
            "work --model puffin",
            "NIGHTREEL_MODEL: no model puffin; there are comfyui-schnell, faulty, flux-dev, flux-schnell, gemini-veo, gemini-veo-fast, pocket, testcard",
        ),
    ],
)
def test_bad_input_is_refused_in_a_line_before_anything_is_enqueued(quiet: Desk, command: str, complaint: str) -> None:
    run = quiet.nightreel(*command.split())

    assert (run.code, run.out, run.err) == (2, "", f"nightreel: {complaint}\n")
    assert quiet.is_untouched()
    assert (quiet.folder / "there.mp4").read_text() == "mine"


@pytest.mark.parametrize("verb", ["render", "enqueue"])
def test_every_problem_of_a_manifest_is_told_with_its_line_and_field(quiet: Desk, verb: str) -> None:
    run = quiet.nightreel(verb, "wrong.yaml")

    assert (run.code, run.out) == (2, "")
    places = [re.match(r"nightreel: (wrong\.yaml:\d+): ([\w\[\].]+): .", line) for line in run.err.splitlines()]
    assert [place and place.groups() for place in places] == [
        ("wrong.yaml:3", "jobs[0].shots"),
        ("wrong.yaml:5", "jobs[1].shotz"),
    ]
    assert quiet.is_untouched()


def test_a_store_that_is_a_file_cannot_be_had(quiet: Desk) -> None:
    for verb in ("render", "status"):
        run = quiet.nightreel(verb, *["films.yaml"] * (verb == "render"), "--store", "there.mp4")

        assert (run.code, run.out) == (3, "")
        [line] = run.err.splitlines()
        assert line.startswith("nightreel: ")
        assert f"the store needs {quiet.folder}/there.mp4 to be a folder" in line


def test_a_queue_of_an_older_format_cannot_be_had(quiet: Desk) -> None:
    old = quiet.folder / "old.db"
    SqliteQueue(old).close()
    with contextlib.closing(sqlite3.connect(old)) as db:
        db.execute("PRAGMA user_version = 0")

    for verb in ("enqueue", "work"):
        run = quiet.nightreel(
            verb, *["films.yaml"] * (verb == "enqueue"), "--queue", f"sqlite:///{old}", "--store", "o"
        )

        assert (run.code, run.out) == (3, "")
        [line] = run.err.splitlines()
        assert line.startswith(f"nightreel: {old} was written by Nightreel's queue format 0")
        assert "move the file away and enqueue again" in line


# Calling off


def test_a_job_that_is_cancelled_while_it_waits_is_not_rendered(desk: Desk) -> None:
    films = desk.write(FILMS)
    enqueued = desk.nightreel("enqueue", films, "--json")
    queue = desk.environment["NIGHTREEL_QUEUE"]
    assert json.loads(enqueued.out) == {"batch": "films", "jobs": ["harbour", "moon"], "queue": queue}
    assert desk.queue.backlog().ready == 2

    cancelled = desk.nightreel("cancel", "films", "moon")
    assert (cancelled.code, cancelled.out) == (0, "films/moon is cancelled\n")

    run = desk.nightreel("render", films)

    # Then the other is made, and the exit code says that not all were
    assert run.code == 1
    assert "cancelled moon: cancelled by hand" in run.out.splitlines()
    assert any(line.startswith("1 of 2 videos made in ") for line in run.out.splitlines())
    assert not (desk.folder / "out/films/moon.mp4").exists()
    assert (desk.folder / "out/films/harbour.mp4").exists()
    assert desk.queue.backlog().total == desk.queue.backlog().dead == 0


def test_a_render_that_is_interrupted_says_how_to_go_on(desk: Desk) -> None:
    films = desk.write(f"batch: b\n{HEAD}\njobs:\n  - id: long\n    shots: [first, slow]\n")
    process = desk.start(sys.executable, "-m", "nightreel", "render", films)
    until(lambda: desk.rendered() == ["first"], "the first keyframe", process)

    process.send_signal(signal.SIGINT)
    run = finish(process)

    assert run.code == 1
    assert "not ended long: run the same command again to go on" in run.out.splitlines()
    assert run.err == ""
    assert desk.queue.backlog().ready == 1


# Trying again


def test_a_job_that_failed_is_retried_once_however_often_that_is_asked(desk: Desk) -> None:
    # Given a batch of which one job failed
    films = desk.write(
        f"batch: b\n{HEAD}\njobs:\n  - {{id: bad, shots: [refuse once]}}\n  - {{id: good, shots: [x]}}\n"
    )
    failed = desk.nightreel("render", films)
    assert failed.code == 1
    assert "failed bad: shots[0].prompt: refused, as asked" in failed.out.splitlines()
    assert "Try the failed ones again with: nightreel retry b" in failed.out.splitlines()

    # When it is retried twice in a row
    for _ in range(2):
        retried = desk.nightreel("retry", "b")
        assert (retried.code, retried.out) == (0, "1 jobs of b enqueued again\n")
        assert desk.queue.backlog().ready == 1
        assert (desk.receipt("bad").state, desk.receipt("bad").round) == ("queued", 2)

    # And the message is lost, then another retry publishes it
    lost = desk.queue.pull()
    assert lost is not None
    assert lost.attributes["round"] == "2"
    lost.ack()
    assert desk.nightreel("retry", "b", "bad").code == 0
    assert desk.queue.backlog().ready == 1

    # Then status says that the second round waits
    [bad, good] = json.loads(desk.nightreel("status", "b", "--json").out)["jobs"]
    assert (bad["state"], bad["round"], good["state"]) == ("waiting", 2, "done")

    # And a worker ends it, whatever is left of the first round
    desk.queue.publish([Message.of(Job.model_validate_json(lost.body), round_=1)])
    run = desk.work_all()
    assert run.code == 0
    assert run.report["earlier"] == 1
    assert len(run.events("claimed")) == 1
    assert [attempt.end for attempt in desk.attempts("bad", round_=1)] == ["failed"]
    assert (desk.receipt("bad").state, desk.receipt("bad").round) == ("done", 2)
    assert [attempt.end for attempt in desk.attempts("bad", round_=2)] == ["done"]
    assert Counter(desk.rendered()) == {"x": 1, "refuse once": 1}
    assert desk.queue.backlog().total == 0


# Draining a queue with all sorts of things in it


@dataclass(frozen=True, slots=True)
class Drained:
    """A queue that one `work` has emptied."""

    desk: Desk
    bare: Job
    run: Run


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drained]:
    with contextlib.closing(Desk(tmp_path_factory.mktemp("drained"))) as desk:
        bare = job("unused", "a bare message").model_copy(update={"id": None, "batch": None})
        (desk.folder / "out/b").mkdir()
        (desk.folder / "out/b/taken.mp4").write_bytes(b"somebody's film")
        desk.enqueue(job("taken", "x"))
        desk.queue.publish([Message(b"{nonsense"), Message(bare.to_json().encode())])
        desk.enqueue(job("one", "an intro", "first"), job("two", "an intro", "second"), job("look", "environment"))
        desk.environment |= {"GOOGLE_APPLICATION_CREDENTIALS": "/secret.json", "NIGHTREEL_LOG_LEVEL": "info"}
        yield Drained(desk, bare, desk.work_all())


def test_neither_failed_jobs_nor_nonsense_make_a_worker_fail(drained: Drained) -> None:
    assert drained.run.code == 0
    assert drained.run.out == ""
    for name in ("one", "two", "look"):
        assert drained.desk.receipt(name).state == "done"
    assert drained.desk.queue.backlog().total == 0


def test_a_message_that_cannot_be_read_leaves_a_record_and_a_dead_letter(drained: Drained) -> None:
    [entry] = drained.desk.objects(".nightreel/rejected/")
    record = json.loads(drained.desk.store.get(entry.name)[0])

    assert record["body"] == "{nonsense"
    assert "JSON" in record["reason"]
    letters = {letter.body: letter.reason for letter in drained.desk.queue.dead()}
    assert letters[b"{nonsense"] == record["reason"]


def test_a_bare_message_is_called_after_its_day_and_its_fingerprint(drained: Drained) -> None:
    name = drained.bare.resolved(model="faulty", batch="any").fingerprint[:16]
    [entry] = [entry for entry in drained.desk.objects("") if entry.name.endswith(f"/{name}.json")]
    receipt = Receipt.model_validate_json(drained.desk.store.get(entry.name)[0])

    assert receipt.state == "done"
    assert receipt.published_at is not None
    assert entry.name == f"{receipt.published_at:%Y-%m-%d}/{name}.json"

    # And status finds it by its day
    told = drained.desk.nightreel("status", receipt.batch)
    assert told.out.splitlines()[1].split()[:2] == [name, "done"]


def test_a_file_under_the_videos_name_is_left_as_it_is(drained: Drained) -> None:
    receipt = drained.desk.receipt("taken")

    assert receipt.state == "failed"
    assert "b/taken.mp4 is there already and is not this job's" in receipt.reason
    assert (drained.desk.folder / "out/b/taken.mp4").read_bytes() == b"somebody's film"
    assert not (drained.desk.folder / "out/b/taken.jpg").exists()


def test_a_shot_that_two_jobs_share_is_rendered_once(drained: Drained) -> None:
    counts = Counter(drained.desk.rendered())

    assert (counts["an intro"], counts["first"], counts["second"]) == (1, 1, 1)
    made = [drained.desk.receipt(name).made for name in ("one", "two")]
    assert sorted((each.keyframes, each.reused) for each in made if each) == [(1, 1), (2, 0)]


def test_the_renderer_sees_neither_settings_nor_credentials(drained: Drained) -> None:
    names = (drained.desk.folder / "environment").read_text().splitlines()

    assert "PATH" in names
    assert [name for name in names if name.startswith(("NIGHTREEL_", "GOOGLE_"))] == []


def test_what_a_source_prints_disturbs_nothing(drained: Drained) -> None:
    assert "a library says something" not in drained.run.out + drained.run.err
    assert drained.run.report["renderer_restarts"] == 0


def test_the_log_is_json_lines_with_one_for_each_job_and_one_for_the_run(drained: Drained) -> None:
    lines = [json.loads(line) for line in drained.run.err.splitlines()]

    assert all({"severity", "message", "time"} <= line.keys() for line in lines)
    assert {line["severity"] for line in lines} <= {"DEBUG", "INFO", "WARNING", "ERROR"}
    ended = {line["job"]: line["state"] for line in drained.run.events("job_ended")}
    bare = drained.bare.resolved(model="faulty", batch="any").id
    assert ended == {"taken": "failed", "one": "done", "two": "done", "look": "done", bare: "done"}
    assert len(drained.run.events("job_ended")) == len(ended)
    assert len(drained.run.events("rejected")) == 1
    [report] = drained.run.events("run_ended")
    assert (report["done"], report["failed"], report["rejected"], report["unavailable"]) == (4, 1, 1, False)


# Trouble with the store


def test_a_damaged_keyframe_is_rendered_again_and_mended(desk: Desk, tmp_path: Path) -> None:
    desk.enqueue(job("first", "a picture"))
    assert desk.work_all().code == 0
    [entry] = desk.objects(".nightreel/keyframes/")
    file = desk.folder / "out" / entry.name
    file.write_bytes(bytes(entry.size_bytes))  # as large as before

    size = {"width": 64, "height": 64, "fps": 8}
    desk.enqueue(job("second", "a picture", output=size | {"crf": 30}))
    assert desk.work_all().code == 0

    assert desk.receipt("second").state == "done"
    assert desk.rendered() == ["a picture"] * 2
    assert Keyframes(desk.store).fetch(file.stem, tmp_path / "mended.png") is not None


FULL = """
import json, subprocess, sys
from pathlib import Path
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.attempts import Attempts
from nightreel_storage.folder import FolderStore

out, queue, films = map(Path, sys.argv[1:])
def nightreel(verb):
    done = subprocess.run([sys.executable, "-m", "nightreel", verb, films], capture_output=True, text=True)
    ends = [attempt.end for attempt in Attempts(FolderStore(out)).history("b", "large", 1)]
    backlog = SqliteQueue(queue).backlog()
    print(json.dumps({"code": done.returncode, "err": done.stderr, "ends": ends, "ready": backlog.ready,
                      "all": backlog.total, "files": sorted(file.name for file in (out / "b").glob("*"))}))
nightreel("enqueue")
ballast = (out / "ballast").open("wb", buffering=0)
try:
    while True:
        ballast.write(bytes(4096))
except OSError:
    ballast.truncate(ballast.tell() - 10 * 4096)
ballast.close()
nightreel("render")
(out / "ballast").unlink()
nightreel("render")
"""


def test_a_full_store_ends_the_run_and_costs_the_job_nothing(desk: Desk) -> None:
    # Given a store of 2 MB, of which 40 kB are left, and a picture that takes more
    out = str(desk.folder / "out")
    mounted = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', out)
    if subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs `unshare -rm` and tmpfs (Linux with user namespaces) for a disk that is full")
    films = desk.write(
        f"batch: b\n{HEAD.replace('64', '256')}\n  render: {{model: testcard, megapixels: 0.26}}\n"
        "jobs:\n  - {id: large, shots: [x]}\n"
    )

    run = desk.work(*mounted, sys.executable, "-c", FULL, out, str(desk.queue_path), films, max_attempts="1")
    _, full, roomy = map(json.loads, run.out.splitlines())

    # Then the run ends with how much room it needs, and the job waits as if nothing had been
    assert full["code"] == 3
    [line] = full["err"].splitlines()
    assert re.fullmatch(
        rf"nightreel: no room left in {re.escape(out)}: 0\.0 MB free, the object needs 0\.[1-9] MB; make room and run again",
        line,
    )
    assert (full["ready"], full["all"], full["files"]) == (1, 1, [])
    assert full["ends"] == ["preempted"]

    # And as soon as there is room, its first attempt that counts makes it
    assert (roomy["code"], roomy["err"], roomy["all"]) == (0, "", 0)
    assert roomy["files"] == ["large.jpg", "large.json", "large.mp4"]
    assert roomy["ends"] == [*full["ends"], "done"]


def test_a_renderer_that_cannot_be_had_is_told_in_one_line(tmp_path: Path) -> None:
    with contextlib.closing(Desk(tmp_path, load="unavailable")) as desk:
        run = desk.nightreel("render", desk.write(f"batch: b\n{HEAD}\njobs: [{{id: film, shots: [x]}}]"))

        assert run.code == 3
        assert run.err == "nightreel: model faulty needs weights: put them there\n"
        assert "not ended film: run the same command again to go on" in run.out.splitlines()
        assert desk.queue.backlog().ready == 1


# What a person sees


def test_reasons_and_paths_are_shown_letter_for_letter(tmp_path: Path) -> None:
    """Square brackets are markup to rich, and part of what ffmpeg says."""
    (tmp_path / "[bold]").mkdir()
    reason = "[libx264 @ 0x1] broken [/red], see [link]"
    with contextlib.closing(Desk(tmp_path / "[bold]")) as desk:
        desk.batch = "films"
        films = desk.write(FILMS)
        assert desk.nightreel("enqueue", films).code == 0
        for asked in Batches(desk.store).read("films").jobs:  # type: ignore[union-attr]  # it was enqueued just now
            Receipts(desk.store).commit(
                Receipt(
                    state="failed",
                    batch="films",
                    job=asked.id,
                    fingerprint=asked.fingerprint,
                    reason=reason,
                    ended_at=utc_now(),
                ),
                None,
            )

        rendered = desk.nightreel("render", films)
        status = desk.nightreel("status", "films")
        batches = desk.nightreel("status")

    assert rendered.code == 1
    assert f"failed moon: {reason}" in rendered.out.splitlines()
    assert f"They are in {tmp_path}/[bold]/out/films" in rendered.out.splitlines()
    assert status.out.splitlines()[1].split(maxsplit=2)[2].rstrip() == reason
    assert f"{tmp_path}/[bold]/out/films" in batches.out


def test_on_a_terminal_there_are_bars_and_then_the_summary(desk: Desk) -> None:
    films = desk.write(FILMS)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nightreel", "render", films]
    environment = desk.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        command, env=environment, cwd=desk.folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b"".join(read_all(ours)).decode()

    assert process.returncode == 0
    assert "━" in shown
    assert "\x1b[?25h" in shown  # the cursor is back
    plain = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)) if line]
    assert any(re.match(r"harbour +━.* in line", line) for line in plain)
    assert any(re.match(r"batch +━+ 100% 2/2 videos", line) for line in plain)
    assert any(line.startswith("moon: done: 1 keyframes") for line in plain)
    assert plain[-3].startswith("2 of 2 videos made in ")
    assert plain[-2] == f"They are in {desk.folder}/out/films"
    assert "contact.sheet.jpg" in plain[-1]


def read_all(descriptor: int) -> Iterator[bytes]:
    """What a terminal shows until its last program has left."""
    with contextlib.suppress(OSError):  # Linux's word for the end
        while data := os.read(descriptor, 65536):
            yield data
    os.close(descriptor)


# The pages


def commands() -> dict[str, Any]:
    """By their names as typed; those of a group have two words."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= {f"{name} {sub}": each for sub, each in getattr(command, "commands", {}).items()} or {name: command}
    return found


def sections(page: str) -> dict[str, str]:
    _, *parts = re.split(r"^## ", (PAGES / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_the_page_has_a_section_for_each_verb_in_the_order_of_the_help() -> None:
    assert list(sections("cli.md")) == list(commands())
    overview = re.findall(
        r"^\| \[`([\w ]+)`\]\(#([\w-]+)\) \| (.*) \|$", (PAGES / "cli.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert overview == [
        (name, name.replace(" ", "-"), command.help.partition(" Exit code")[0]) for name, command in commands().items()
    ]


@pytest.mark.parametrize("verb", commands())
def test_the_page_tells_each_flag_of_a_verb_with_its_meaning_and_no_other(verb: str) -> None:
    command, text = commands()[verb], sections("cli.md")[verb]
    options = [each for each in command.params if each.opts[0].startswith("-")]
    arguments = [each for each in command.params if each not in options]

    # In the table
    rows = re.findall(r"^\| (`-.*?`) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(", ".join(f"`{name}`" for name in option.opts), option.help) for option in options]

    # And in the synopsis
    synopsis = re.search(r"^    nightreel (.*)$", text, re.MULTILINE)
    assert synopsis is not None
    wanted = [f"{each.name.upper()}" if each.required else f"[{each.name.upper()}]" for each in arguments]
    wanted += [rf"[{option.opts[0]}{'' if option.is_flag else ' VALUE'}]" for option in options]
    assert re.sub(r"(\[--?[\w-]+ )[A-Z]+\]", r"\1VALUE]", synopsis[1]) == " ".join([verb, *wanted])


@pytest.mark.parametrize("verb", commands())
def test_the_page_tells_the_exit_codes_of_each_verb(verb: str) -> None:
    expected = dict.fromkeys(("render", "preview", "plan", "download", "pods start"), "0, 1, 2, 3")
    expected |= {"schema": "0, 2", "pods work": "2"}

    assert sections("cli.md")[verb].rstrip().splitlines()[-1] == f"Exit codes: {expected.get(verb, '0, 2, 3')}."


@pytest.mark.parametrize("verb", ["schema --manifest", "schema"])
def test_schemas_are_printed_as_json(quiet: Desk, verb: str) -> None:
    run = quiet.nightreel(*verb.split())

    assert run.code == 0
    assert json.loads(run.out) == (manifest_schema() if "--manifest" in verb else job_schema())


@pytest.mark.parametrize("model", [Receipt, OutputFile, Video, Made, Cost], ids=lambda model: model.__name__)
def test_the_page_of_the_receipt_tells_each_field(model: type[Record]) -> None:
    assert rows_of("receipt.md", model) == fields_of(model)


@pytest.mark.parametrize("model", [RunReport, Taken, BatchCount, Ending, Finished], ids=lambda model: model.__name__)
def test_the_page_of_the_run_tells_each_field(model: type[Record]) -> None:
    assert rows_of("run.md", model) == fields_of(model)


def rows_of(page: str, model: type[Record]) -> list[tuple[str, str, str]]:
    return re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|$", sections(page)[model.__name__], re.MULTILINE)


def fields_of(model: type[Record]) -> list[tuple[str, str, str]]:
    properties = model.model_json_schema(mode="serialization")["properties"]
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    return [
        (name, in_words(schema), "always there" if name in required else default_of(schema))
        for name, schema in properties.items()
    ]


def in_words(schema: dict[str, Any]) -> str:
    schema = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)
    match schema:
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"format": "date-time"}:
            return "time"
        case {"$ref": ref}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"type": "array", "items": items}:
            return f"list of {in_words(items)}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(schema["type"], "mapping")


def default_of(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return "`{}`"  # of a mapping that each record makes for itself
    return "-" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


def test_the_receipt_on_the_page_is_one() -> None:
    example = re.search(r"```json\n(.*?)```", (PAGES / "receipt.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    written = json.loads(example[1])

    assert Receipt.model_validate(written).model_dump(mode="json") == written


def test_the_report_on_the_page_is_one_and_adds_up() -> None:
    example = re.search(r"```json\n(.*?)```", (PAGES / "run.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    written = json.loads(example[1])

    assert RunReport.model_validate(written).model_dump(mode="json") == written
    assert sum(written["stages_s"].values()) == pytest.approx(written["seconds"], abs=0.005)
    assert written["jobs_usd"] + written["shared_usd"] == pytest.approx(written["usd"])


def test_a_command_collects_its_garbage() -> None:
    """It does not while modules are imported; a worker that never did would grow all night."""
    told = "import atexit, gc, sys; atexit.register(lambda: print(gc.isenabled(), file=sys.stderr))"
    program = f"{told}; sys.argv = ['nightreel', 'schema']; from nightreel.__main__ import main; main()"

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "True\n")
