"""The folder store: the contract, and what only a folder has to bear: kills, hands, links and a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_contract import StoreContract, StoreHarness, sha256

from nightreel_storage import disk
from nightreel_storage.base import Entry
from nightreel_storage.errors import BadName, Conflict, NotFound, StoreFull, StoreUnavailable
from nightreel_storage.folder import FolderStore
from nightreel_storage.sidecar import Found

PATIENCE_S = 10.0  # only a failure takes so long


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def harness(root: Path) -> StoreHarness:
    source = (
        "from pathlib import Path\n"
        "from nightreel_storage.folder import FolderStore\n"
        f"store = FolderStore(Path({str(root)!r}))"
    )
    return StoreHarness(lambda: FolderStore(root), source)


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(root)


class TestFolderStore(StoreContract):
    pass


def staged(root: Path) -> list[Path]:
    return sorted((root / ".nightreel/staged").iterdir())


def grow_old(*files: Path) -> None:
    for file in files:
        os.utime(file, (time.time() - 90000, time.time() - 90000))


def run_python(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    """What a script prints in a process of its own; its failure fails the test."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What a person sees


def test_objects_are_plain_files_that_a_person_can_open(root: Path) -> None:
    store = FolderStore(root)
    store.put("nightly/harbour.mp4", b"film")

    assert (root / "nightly/harbour.mp4").read_bytes() == b"film"
    assert store.url("nightly/harbour.mp4") == str(root / "nightly/harbour.mp4")
    assert staged(root) == []
    assert os.access(root / "nightly/harbour.mp4", os.R_OK)


def test_the_stores_folder_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    FolderStore(tmp_path / "link").put("a", b"x")

    assert (tmp_path / "real/a").read_bytes() == b"x"


def test_a_relative_folder_stays_the_same_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(Path("out"))
    monkeypatch.chdir("/")

    store.put("a", b"x")

    assert (tmp_path / "out/a").exists()


# What a person does by hand


def test_a_file_placed_by_hand_is_an_object_without_fingerprint_that_nobody_overwrites(root: Path) -> None:
    store = FolderStore(root)
    (root / "batch").mkdir()
    (root / "batch/mine.mp4").write_bytes(b"mine")
    os.utime(root / "batch/mine.mp4", ns=(0, 1234567))

    # Then it is seen, as what it is
    by_hand = Entry("batch/mine.mp4", 1234567, 4, "")
    assert store.head("batch/mine.mp4") == by_hand
    assert store.get("batch/mine.mp4") == (b"mine", by_hand)
    assert list(store.list("batch/")) == [by_hand]

    # And it is replaced only by someone who knows it
    with pytest.raises(Conflict, match=r"batch/mine\.mp4"):
        store.put("batch/mine.mp4", b"ours")
    assert (root / "batch/mine.mp4").read_bytes() == b"mine"
    put = store.put("batch/mine.mp4", b"ours", generation=by_hand.generation)
    assert store.get("batch/mine.mp4") == (b"ours", put)


def test_a_file_from_the_beginning_of_time_still_has_a_generation(root: Path, store: FolderStore) -> None:
    (root / "old").write_bytes(b"x")
    os.utime(root / "old", ns=(0, 0))

    with pytest.raises(Conflict):
        store.put("old", b"y")
    store.put("old", b"y", generation=store.get("old")[1].generation)


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_file_deleted_by_hand_is_absent_and_can_be_made_again_at_a_higher_generation(
    root: Path, store: FolderStore, with_folder: bool
) -> None:
    first = store.put("batch/a", b"first")
    if with_folder:
        shutil.rmtree(root / "batch")
    else:
        (root / "batch/a").unlink()

    # Then nobody sees it any more
    assert store.head("batch/a") is None
    assert list(store.list()) == []
    with pytest.raises(NotFound):
        store.get("batch/a")
    with pytest.raises(Conflict):
        store.put("batch/a", b"again", generation=first.generation)

    # And it can be created
    again = store.put("batch/a", b"again")
    assert again.generation > first.generation
    assert store.get("batch/a") == (b"again", again)


def test_generations_grow_even_when_the_clock_goes_back(root: Path, store: FolderStore) -> None:
    # Given an object from next year
    (root / "a").write_bytes(b"x")
    os.utime(root / "a", ns=(0, time.time_ns() + 365 * 86400 * 10**9))
    future = store.get("a")[1].generation

    replaced = store.put("a", b"y", generation=future)
    assert replaced.generation > future

    # Then neither a replacement nor a deletion by hand brings an older generation
    (root / "a").unlink()
    assert store.put("a", b"z").generation > replaced.generation


@pytest.mark.parametrize("content", [b"edited and longer", b"ediTed"])
def test_content_edited_by_hand_is_not_described_by_the_old_entry(
    root: Path, store: FolderStore, content: bytes
) -> None:
    put = store.put("a", b"edited", metadata={"fingerprint": "3fa1"})

    (root / "a").write_bytes(content)

    got, entry = store.get("a")
    assert got == content
    assert (entry.sha256, entry.metadata, entry.size_bytes) == ("", {}, len(content))
    assert entry.generation > put.generation


def test_an_edit_of_another_size_makes_the_old_generation_stale(root: Path, store: FolderStore) -> None:
    put = store.put("a", b"put")
    (root / "a").write_bytes(b"edited by hand")

    with pytest.raises(Conflict):
        store.put("a", b"replaced", generation=put.generation)

    assert (root / "a").read_bytes() == b"edited by hand"


def test_an_edit_of_the_same_size_is_replaced_by_someone_who_has_read_it(root: Path, store: FolderStore) -> None:
    store.put("a", b"edited")
    (root / "a").write_bytes(b"ediTed")
    by_hand = store.get("a")[1]

    replaced = store.put("a", b"replaced", generation=by_hand.generation)

    assert replaced.generation > by_hand.generation
    assert store.get("a") == (b"replaced", replaced)


def test_a_sidecar_that_makes_no_sense_is_named(root: Path, store: FolderStore) -> None:
    store.put("batch/a", b"x")
    (sidecar,) = (root / ".nightreel/objects/batch").iterdir()
    sidecar.write_text("{")

    for use in (lambda: store.head("batch/a"), lambda: list(store.list()), lambda: store.get("batch/a")):
        with pytest.raises(StoreUnavailable, match=str(sidecar)):
            use()

    # And the mend that it names works
    sidecar.unlink()
    assert store.get("batch/a")[1].sha256 == ""


# Names that only a folder has trouble with


def test_the_stores_own_files_are_no_objects(root: Path, store: FolderStore) -> None:
    store.put("a", b"x")
    for own in ("objects", "objects/a.json", "staged/x", "lock", "workers/a.log", "queue.db", "queue.db-wal"):
        name = f".nightreel/{own}"
        with pytest.raises(BadName, match="own"):
            store.put(name, b"x")
        with pytest.raises(BadName):
            store.head(name)
    with pytest.raises(BadName):
        store.put(".Nightreel/Objects/a", b"x")
    for database in ("queue.db", "queue.db-wal", "queue.db-shm"):
        (root / ".nightreel" / database).write_bytes(b"x")

    # Then they are not listed, and what else lies there is
    kept = store.put(".nightreel/keyframes/3f/3fa1.png", b"png")
    assert [entry.name for entry in store.list()] == [kept.name, "a"]


def test_only_files_with_names_that_can_be_asked_for_are_listed(root: Path, store: FolderStore) -> None:
    (root / "empty folder").mkdir()
    (root / "film (1).mp4").write_bytes(b"x")
    os.mkfifo(root / "pipe")

    assert list(store.list()) == []
    assert store.head("pipe") is None
    assert store.head("empty folder") is None


def test_a_name_cannot_be_a_file_and_a_folder(root: Path, store: FolderStore) -> None:
    kept = [store.put("a", b"x"), store.put("b/c/d", b"y")]

    for name in ("a/b", "a/b/c", "b", "b/c"):
        with pytest.raises(BadName, match="folder"):
            store.put(name, b"z")
        assert store.head(name) is None
        with pytest.raises(NotFound):
            store.get(name)

    assert list(store.list()) == kept
    assert (root / "a").read_bytes() == b"x"
    assert staged(root) == []


@pytest.mark.parametrize("target", ["outside", "inside", "nowhere"])
def test_nothing_is_read_or_written_through_a_link(root: Path, store: FolderStore, tmp_path: Path, target: str) -> None:
    # Given links to a folder and to a file
    places = {"outside": tmp_path / "elsewhere", "inside": root / "kept", "nowhere": tmp_path / "missing"}
    for place in ("outside", "inside"):
        places[place].mkdir()
        (places[place] / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(places[target])
    (root / "file").symlink_to(places[target] / "secret")

    # Then names that lead through them are refused
    for name in ("link/new", "link/secret", "file"):
        for use in (lambda name=name: store.put(name, b"x"), lambda name=name: store.get(name)):
            with pytest.raises(BadName, match="symbolic link"):
                use()

    # And they are not listed, nor what is behind them
    assert [entry.name for entry in store.list()] == ["kept/secret"]
    assert list(store.list("link/")) == list(store.list("link/s")) == list(store.list("../elsewhere/")) == []
    assert not (tmp_path / "missing").exists()
    assert sorted(path.name for path in places["outside"].iterdir()) == ["secret"]


# Kills

# Run in a process of its own: for each call of `os` on a put's way, a fork that is killed right before or after it.
KILL_AT_EACH_STEP = """
import os, signal, sys
from pathlib import Path
from nightreel_storage.folder import FolderStore

top, old = Path(sys.argv[1]), sys.argv[2] == "old"

def killed(number, after):
    root = top / f"{number:02d}-{'2-after' if after else '1-before'}"
    store = FolderStore(root)
    generation = store.put("batch/a", b"old content", metadata={"is": "old"}).generation if old else 0
    store.put("batch/b", b"other", metadata={"is": "other"})
    calls = 0
    def deadly(call):
        def wrapper(*arguments):
            nonlocal calls
            calls += 1
            if calls == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return wrapper
    child = os.fork()
    if not child:
        os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
        store.put("batch/a", b"new", generation=generation, metadata={"is": "new"})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

number = 1
while killed(number, False) and killed(number, True):
    number += 1
print(number - 1)
"""


@pytest.mark.parametrize("before", ["nothing", "old"])
def test_a_put_that_is_killed_at_any_step_leaves_the_old_object_or_the_new_one(root: Path, before: str) -> None:
    # Given puts that were killed before and after each of their writes
    steps = int(run_python(KILL_AT_EACH_STEP, root, before))
    assert steps >= 7  # at least: content, its folder, sidecar, commit, its folder, placing, its folder
    possible = [(b"new", {"is": "new"})] + [(b"old content", {"is": "old"})] * (before == "old")
    ends = []

    for folder in sorted(root.iterdir()):
        # When the store is asked again
        left = sorted(file.name for file in folder.rglob("*") if file.is_file())
        store = FolderStore(folder)
        seen = store.head("batch/a")
        listed = list(store.list())

        # Then the object is the old one or the new one, whole, and the other object is untouched
        if seen is None:
            assert before == "nothing"
            assert not (folder / "batch/a").exists()
        else:
            content, entry = store.get("batch/a")
            assert entry == seen
            assert (content, entry.metadata) in possible
            assert entry.sha256 == sha256(content)
        assert listed == [entry for entry in (seen, store.head("batch/b")) if entry]
        ends.append("new" if seen and seen.metadata == {"is": "new"} else "old")

        # And the next writer gets through, and what was left is gone after a day
        generation = seen.generation if seen else 0
        assert store.put("batch/a", b"newest", generation=generation).generation > generation
        grow_old(*staged(folder))
        assert FolderStore(folder).get("batch/a")[0] == b"newest"
        assert staged(folder) == [], left

    # And there is one step that commits: all before it end old, all after it new
    assert ends == sorted(ends, reverse=True)
    assert set(ends) == {"old", "new"}


# Forks writers that put for ever, and kills each after a random while.
KILL_AT_RANDOM = """
import os, random, signal, sys, time
from pathlib import Path
from nightreel_storage.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
for life in range(15):
    child = os.fork()
    if not child:
        for turn in range(10**9):
            name = f"batch/{turn % 5}"
            entry = store.head(name)
            content = f"{life} {turn} ".encode() * (20000 + 1000 * turn)
            number = str(len(content))
            store.put(name, content, generation=entry.generation if entry else 0, metadata={"length": number})
    time.sleep(random.uniform(0.001, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_writers_killed_at_random_instants_leave_every_object_whole(root: Path) -> None:
    run_python(KILL_AT_RANDOM, root)

    # Then no object is torn or without its entry
    store = FolderStore(root)
    entries = list(store.list())
    assert entries
    for entry in entries:
        content, got = store.get(entry.name)
        assert got == entry
        assert (entry.sha256, entry.metadata) == (sha256(content), {"length": str(len(content))})
    files = sorted(file.name for file in (root / "batch").iterdir())
    assert files == [entry.name.removeprefix("batch/") for entry in entries]

    # And what the killed writers left goes after a day
    grow_old(*staged(root))
    FolderStore(root)
    assert staged(root) == []


def commit_and_die(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, generation: int = 0) -> None:
    """A put that stops right after its commit point, as if killed there."""
    replace, calls = os.replace, []

    def stop_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise SystemExit
        replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr(os, "replace", stop_second)
        FolderStore(root).put(name, content, generation=generation)
    assert len(staged(root)) == 1


@pytest.mark.parametrize("reader", ["head", "get", "fetch", "list", "put", "open a day later"])
def test_whoever_comes_next_finishes_a_put_that_was_committed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    commit_and_die(root, monkeypatch, "batch/a", b"committed")
    assert not (root / "batch/a").exists()

    # When somebody comes by
    store = FolderStore(root)
    if reader == "head":
        store.head("batch/a")
    elif reader == "get":
        assert store.get("batch/a")[0] == b"committed"
    elif reader == "fetch":
        store.fetch("batch/a", tmp_path / "fetched")
    elif reader == "list":
        assert [entry.name for entry in store.list("batch/")] == ["batch/a"]
    elif reader == "put":
        with pytest.raises(Conflict):
            store.put("batch/a", b"late")
    else:
        grow_old(*staged(root))
        FolderStore(root)

    # Then the object lies where it belongs
    assert (root / "batch/a").read_bytes() == b"committed"
    assert staged(root) == []


def test_a_writer_that_meets_a_committed_put_while_it_has_the_lock_finishes_it(
    root: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a writer that copies its content while another one commits and is killed
    copying = disk.write_new

    def copy_meanwhile(path: Path, source: Iterator[bytes]) -> tuple[os.stat_result, str]:
        monkeypatch.setattr("nightreel_storage.folder.write_new", copying)
        commit_and_die(root, monkeypatch, "batch/a", b"committed")
        return copying(path, source)

    ended: list[Exception] = []

    def put() -> None:
        try:
            store.put("batch/a", b"late")
        except Conflict as conflict:
            ended.append(conflict)

    # When it comes to its own commit, then it neither waits for itself nor overwrites
    monkeypatch.setattr("nightreel_storage.folder.write_new", copy_meanwhile)
    writer = threading.Thread(target=put, daemon=True)  # a daemon: one that waits for itself would wait for ever
    writer.start()
    writer.join(PATIENCE_S)
    assert len(ended) == 1
    assert store.get("batch/a")[0] == b"committed"
    assert staged(root) == []


@pytest.mark.parametrize("reader", ["head", "list"])
def test_a_committed_put_is_finished_even_when_its_folder_was_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    commit_and_die(root, monkeypatch, "batch/a", b"committed")
    (root / "batch").rmdir()

    store = FolderStore(root)
    seen = store.head("batch/a") if reader == "head" else next(store.list("batch/"))

    assert seen
    assert seen.name == "batch/a"
    assert store.get("batch/a")[0] == b"committed"


@pytest.mark.parametrize("reader", ["head", "get"])
def test_a_put_between_two_looks_of_a_reader_is_not_taken_for_a_persons_file(
    root: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    # Given a writer that is done between a reader's look for the entry and its look for the file
    find = FolderStore._find
    put: list[Entry | None] = []

    def put_then_find(self: FolderStore, name: str) -> Found | None:
        if not put:
            put.append(None)
            put[0] = FolderStore(root).put(name, b"x")
        return find(self, name)

    monkeypatch.setattr(FolderStore, "_find", put_then_find)

    assert (store.head("a") if reader == "head" else store.get("a")[1]) == put[0]


def test_a_file_that_a_person_placed_after_the_kill_is_not_overwritten(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_and_die(root, monkeypatch, "batch/a", b"committed")
    (root / "batch/a").write_bytes(b"by hand")

    content, entry = FolderStore(root).get("batch/a")

    assert (content, entry.sha256) == (b"by hand", "")
    assert staged(root) == []


def test_a_put_whose_content_was_swept_away_meanwhile_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a writer that sleeps for a day between copying and committing
    store = FolderStore(root)
    old = store.put("a", b"old")
    expect = FolderStore._expect

    def sleep_for_a_day(self: FolderStore, name: str, generation: int) -> int:
        for file in staged(root):
            file.unlink()
        return expect(self, name, generation)

    monkeypatch.setattr(FolderStore, "_expect", sleep_for_a_day)
    with pytest.raises(StoreUnavailable):
        store.put("a", b"new", generation=old.generation)

    assert store.get("a") == (b"old", old)


def test_what_a_writer_stages_right_now_is_not_swept_away(root: Path) -> None:
    FolderStore(root)
    (root / ".nightreel/staged/young").write_bytes(b"x")
    (root / ".nightreel/staged/old").write_bytes(b"x")
    grow_old(root / ".nightreel/staged/old")

    FolderStore(root)

    assert [file.name for file in staged(root)] == ["young"]


# Disks

FULL_DISK = """
import sys
from pathlib import Path
from nightreel_storage.errors import StoreFull
from nightreel_storage.folder import FolderStore

root = Path(sys.argv[1])
store = FolderStore(root)
old = store.put("batch/old", b"old" * 1000)
before = sorted(root.rglob("*"))
source = Path(sys.argv[2])
for name, content, generation in [("new/a", bytes(3000000), 0), ("batch/old", source, old.generation)]:
    try:
        store.put(name, content, generation=generation)
    except StoreFull as error:
        print(error)
    else:
        raise SystemExit("there was room")
    assert sorted(root.rglob("*")) == before, sorted(root.rglob("*"))
assert store.get("batch/old") == (b"old" * 1000, old)
small = store.put("new/small", b"x")
assert list(store.list()) == [old, small]
"""


def test_a_put_that_finds_no_room_leaves_nothing_and_says_how_much_it_needs(root: Path, tmp_path: Path) -> None:
    # Given a disk of 2 MB
    mounted = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(root))
    root.mkdir()
    try:
        subprocess.run([*mounted, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs `unshare -rm` and tmpfs (Linux with user namespaces) for a disk that is full")
    (tmp_path / "source").write_bytes(bytes(3_000_000))

    told = run_python(FULL_DISK, root, tmp_path / "source", prefix=mounted).splitlines()

    assert len(told) == 2
    for sentence in told:
        assert sentence.startswith(f"no room left in {root}: ")
        assert sentence.endswith("MB free, the object needs 3.0 MB; make room and run again")


def test_an_object_larger_than_files_may_be_leaves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(3_000_000))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"

    told = run_python(f"{limit}\n{FULL_DISK}", root, tmp_path / "source").splitlines()

    assert len(told) == 2
    assert all("ulimit -f" in sentence and "3.0 MB" in sentence for sentence in told)


@pytest.mark.parametrize("call", [1, 2])
def test_no_room_for_a_name_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    # Given a disk that has room for content, but none for the sidecar's name or the file's
    store = FolderStore(root)
    replace, calls = os.replace, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StoreFull):
            store.put("new/a", b"x")

    assert not (root / "new").exists()
    assert sorted(file.name for file in root.rglob("*")) == [".nightreel", "lock", "objects", "staged"]
    assert store.head("new/a") is None
    store.put("new", b"a file by the name of the folder")


def test_trouble_after_the_object_is_in_its_place_does_not_part_it_from_its_entry(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that fails at the very last step
    store = FolderStore(root)
    fsync = os.fsync

    def fail_last(descriptor: int) -> None:
        if (root / "a").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_last)
        with pytest.raises(StoreUnavailable):
            store.put("a", b"x")

    assert store.get("a")[1].sha256 == hashlib.sha256(b"x").hexdigest()


def test_everything_is_on_the_disk_before_the_commit_and_before_put_returns(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a record of what is synced and moved
    store = FolderStore(root)
    store.put("batch/old", b"x")
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def where(path: str | Path) -> str:
        parent = Path(path).parent if Path(path).parent.name == "staged" else Path(path)
        return parent.relative_to(root).as_posix()

    def note_sync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        kind = "folder" if Path(path).is_dir() else "content" if not path.endswith(".json") else "sidecar"
        events.append((f"sync {kind}", where(path)))
        fsync(descriptor)

    def note_move(source: Path, target: Path) -> None:
        events.append(("move", target.relative_to(root).as_posix()))
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_move)
    store.put("batch/a", b"x")

    assert events == [
        ("sync content", ".nightreel/staged"),
        ("sync folder", ".nightreel/staged"),
        ("sync sidecar", ".nightreel/staged"),
        ("move", ".nightreel/objects/batch/a~.json"),
        ("sync folder", ".nightreel/objects/batch"),
        ("move", "batch/a"),
        ("sync folder", "batch"),
    ]


def test_a_store_that_cannot_be_made_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    for root in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(StoreUnavailable, match=f"(?s){tmp_path}/file.*read and write"):
            FolderStore(root)


def test_a_store_that_is_gone_does_not_pass_for_an_empty_one(root: Path, store: FolderStore, tmp_path: Path) -> None:
    # Given a disk that was unplugged
    store.put("a", b"x")
    shutil.rmtree(root)

    for use in (
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.fetch("a", tmp_path / "a"),
        lambda: list(store.list()),
        lambda: store.put("a", b"x"),
    ):
        with pytest.raises(StoreUnavailable, match=str(root)):
            use()
    assert not root.exists()


READ_ONLY = """
import sys
from pathlib import Path
from nightreel_storage.errors import StoreUnavailable
from nightreel_storage.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
assert [entry.name for entry in store.list()] == ["a", "by hand"]
assert store.get("a")[0] == b"x"
try:
    store.put("b", b"x")
except StoreUnavailable as error:
    print(error)
"""


def test_a_store_that_cannot_be_written_can_still_be_read(root: Path, store: FolderStore) -> None:
    store.put("a", b"x")
    (root / "by hand").write_bytes(b"y")
    (root / ".nightreel/staged/old").write_bytes(b"y")
    grow_old(root / ".nightreel/staged/old")
    read_only = ("unshare", "-rm", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')
    try:
        subprocess.run([*read_only, str(root), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs `unshare -rm` (Linux with user namespaces) for a disk that cannot be written")

    told = run_python(READ_ONLY, root, prefix=(*read_only, str(root)))

    assert "Read-only file system" in told
    assert str(root) in told


def test_a_full_disk_at_the_receiving_end_is_not_the_stores_trouble(store: FolderStore) -> None:
    store.put("a", b"x")

    class FullFile(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        store._copy_out("a", FullFile())
