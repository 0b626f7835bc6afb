"""What every store must do: the sentences of Store's docstrings as tests.

An implementation's test module subclasses StoreContract and gives it a fixture `harness`, new and empty for each test.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightreel_storage.base import ABSENT, Entry, Store
from nightreel_storage.errors import BadName, Conflict, NotFound

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "/x",
    "a/",
    "a//b",
    "a\\b",
    "a\nb",
    "a\0b",
    "a\x7fb",
    "a/ b",
    "a?b",
    "caf\u00e9",
    "x" * 201,
    "/".join(["x" * 100] * 9),
]


@dataclass(frozen=True, slots=True)
class StoreHarness:
    """One empty store, and ways to reach it."""

    open: Callable[[], Store]
    """Another handle to the same store."""
    source: str
    """Python source that opens it in another process, as `store`."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class StoreContract:
    @pytest.fixture
    def store(self, harness: StoreHarness) -> Store:
        return harness.open()

    # Putting and getting

    def test_what_was_put_is_got_back_whole_with_its_entry(self, store: Store) -> None:
        # When an object is put with all that can be said about it
        put = store.put("nightly/harbour.mp4", b"film", content_type="video/mp4", metadata={"fingerprint": "3fa1"})

        # Then its entry says so, now and later
        assert put == Entry(
            "nightly/harbour.mp4", put.generation, 4, sha256(b"film"), "video/mp4", {"fingerprint": "3fa1"}
        )
        assert put.generation != ABSENT
        assert store.head("nightly/harbour.mp4") == put

        # And content and entry come together
        assert store.get("nightly/harbour.mp4") == (b"film", put)

    def test_another_handle_sees_what_was_put(self, harness: StoreHarness) -> None:
        put = harness.open().put("a/b", b"content", metadata={"k": "v"})

        assert harness.open().get("a/b") == (b"content", put)

    def test_an_object_that_says_nothing_about_itself_is_bytes_without_metadata(self, store: Store) -> None:
        put = store.put("a", b"x")

        assert (put.content_type, put.metadata) == ("application/octet-stream", {})

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        put = store.put("empty", b"")

        assert (put.size_bytes, put.sha256) == (0, sha256(b""))
        assert store.get("empty") == (b"", put)

    def test_a_file_is_put_and_fetched_as_bytes_are(self, store: Store, tmp_path: Path) -> None:
        # Given a file of 8 MB
        content = bytes(range(256)) * (8 * 4096)
        source = tmp_path / "source.bin"
        source.write_bytes(content)

        # When it is put, and fetched again
        put = store.put("big.bin", source)
        fetched = store.fetch("big.bin", tmp_path / "fetched.bin")

        # Then it is the same, and so is what get returns
        assert (put.size_bytes, put.sha256) == (len(content), sha256(content))
        assert fetched == put
        assert (tmp_path / "fetched.bin").read_bytes() == content
        assert store.get("big.bin") == (content, put)

        # And the source is left alone
        assert source.read_bytes() == content

    @pytest.mark.parametrize("size_bytes", [1, 20_000_000])
    def test_a_put_tells_that_bytes_go_over(self, store: Store, tmp_path: Path, size_bytes: int) -> None:
        source = tmp_path / "source.bin"
        source.write_bytes(bytes(size_bytes))
        seen: list[Entry | None] = []

        put = store.put("a", source, tick=lambda: seen.append(store.head("a")))

        # Then it was told more often for more bytes, and never after the object had appeared
        assert len(seen) > size_bytes // 10_000_000
        assert set(map(type, seen)) == {type(None)}
        assert store.head("a") == put

    @pytest.mark.parametrize("size_bytes", [1, 20_000_000])
    def test_a_put_that_is_broken_off_from_within_leaves_nothing(self, store: Store, size_bytes: int) -> None:
        # Given somebody who learns, while bytes go over, that nobody wants them any more
        calls = []

        def leave() -> None:
            calls.append(1)
            if len(calls) > size_bytes // 10_000_000:
                raise RuntimeError("lease lost")

        with pytest.raises(RuntimeError, match="lease lost"):
            store.put("a", bytes(size_bytes), tick=leave)

        assert list(store.list()) == []
        store.put("a", b"x")

    def test_a_source_that_is_not_there_leaves_nothing_behind(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.put("a", tmp_path / "missing")

        assert store.head("a") is None
        assert list(store.list()) == []

    def test_an_object_that_is_not_there_is_not_found(self, store: Store, tmp_path: Path) -> None:
        assert store.head("a/b") is None
        with pytest.raises(NotFound, match="a/b"):
            store.get("a/b")
        with pytest.raises(NotFound, match="a/b"):
            store.fetch("a/b", tmp_path / "b")
        assert not (tmp_path / "b").exists()

    # Generations

    def test_what_exists_is_never_created_again(self, store: Store) -> None:
        first = store.put("a", b"first", metadata={"by": "first"})

        with pytest.raises(Conflict, match="a"):
            store.put("a", b"second", metadata={"by": "second"})

        assert store.get("a") == (b"first", first)

    def test_a_put_at_the_right_generation_replaces_content_and_entry(self, store: Store) -> None:
        first = store.put("a", b"first", content_type="text/plain", metadata={"by": "first"})

        second = store.put("a", b"no. 2", generation=first.generation, metadata={"of": "second"})

        assert second.generation not in (first.generation, ABSENT)
        assert second.metadata == {"of": "second"}
        assert second.content_type == "application/octet-stream"
        assert store.get("a") == (b"no. 2", second)

    def test_a_put_at_a_stale_generation_loses(self, store: Store) -> None:
        # Given an object that was replaced since its generation was read
        first = store.put("a", b"first")
        second = store.put("a", b"second", generation=first.generation)

        # Then a writer that still expects the old generation changes nothing
        with pytest.raises(Conflict, match="a"):
            store.put("a", b"stale", generation=first.generation)
        assert store.get("a") == (b"second", second)

    def test_a_put_at_a_generation_conflicts_when_there_is_no_object(self, store: Store) -> None:
        with pytest.raises(Conflict, match="a"):
            store.put("a", b"x", generation=1)

        assert store.head("a") is None

    def test_of_eight_threads_that_create_one_object_one_wins(self, store: Store) -> None:
        together = threading.Barrier(8)

        def create(number: int) -> Entry | None:
            together.wait()
            try:
                return store.put("raced", f"content {number}".encode(), metadata={"by": str(number)})
            except Conflict:
                return None

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(create, range(8)))

        # Then content and entry are the winner's
        (winner,) = [number for number, entry in enumerate(results) if entry]
        assert store.get("raced") == (f"content {winner}".encode(), results[winner])

    def test_of_eight_threads_that_replace_one_generation_one_wins(self, store: Store) -> None:
        together = threading.Barrier(8)
        old = store.put("raced", b"old")

        def replace(number: int) -> Entry | None:
            together.wait()
            try:
                return store.put("raced", f"content {number}".encode(), generation=old.generation)
            except Conflict:
                return None

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(replace, range(8)))

        (winner,) = [number for number, entry in enumerate(results) if entry]
        assert store.get("raced") == (f"content {winner}".encode(), results[winner])

    def test_of_four_processes_that_create_ten_objects_one_wins_each(self, harness: StoreHarness) -> None:
        # Given four processes, ready to start
        script = f"""{harness.source}
import json, sys
from nightreel_storage.errors import Conflict
mark = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
won = []
for number in range(10):
    try:
        store.put(f"race/{{number}}", f"{{mark}} {{number}}".encode() * 1000, metadata={{"by": mark}})
        won.append(number)
    except Conflict:
        pass
print(json.dumps(won))
"""
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", script, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for mark in "abcd"
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"

        # When all create the same ten objects
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = {mark: json.loads(racer.communicate()[0]) for mark, racer in zip("abcd", racers, strict=True)}

        # Then each object has one winner, and is the winner's in content and metadata
        assert sorted(number for numbers in won.values() for number in numbers) == list(range(10))
        store = harness.open()
        for mark, numbers in won.items():
            for number in numbers:
                content, entry = store.get(f"race/{number}")
                assert content == f"{mark} {number}".encode() * 1000
                assert (entry.metadata, entry.sha256) == ({"by": mark}, sha256(content))

    def test_a_reader_gets_content_and_entry_that_belong_together_while_a_writer_replaces(
        self, harness: StoreHarness
    ) -> None:
        # Given a writer that replaces an object again and again, each time with another size and content
        written = harness.open().put("a", b"0", metadata={"number": "0"})
        stop = threading.Event()

        def write() -> None:
            store, number, generation = harness.open(), 0, written.generation
            while not stop.is_set():
                number += 1
                content = str(number).encode() * (number % 7 + 1)
                generation = store.put("a", content, generation=generation, metadata={"number": str(number)}).generation

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            try:
                # When it is read meanwhile, then what comes is whole, and never older than before
                store, newest = harness.open(), 0
                for _ in range(100):
                    content, entry = store.get("a")
                    number = int(entry.metadata["number"])
                    assert content == str(number).encode() * (1 if number == 0 else number % 7 + 1)
                    assert (entry.size_bytes, entry.sha256) == (len(content), sha256(content))
                    assert number >= newest
                    newest = number
            finally:
                stop.set()
            writer.result()

    # Deleting

    def test_what_is_deleted_at_its_generation_is_gone_and_may_be_put_again(self, store: Store) -> None:
        store.put("a/b/c", b"neighbour")
        old = store.put("a/b/d", b"content")

        store.delete("a/b/d", generation=old.generation)

        assert store.head("a/b/d") is None
        assert [entry.name for entry in store.list()] == ["a/b/c"]
        new = store.put("a/b/d", b"other")
        assert new.generation > old.generation
        assert store.get("a/b/d") == (b"other", new)

    def test_what_was_replaced_or_is_gone_is_not_deleted(self, store: Store) -> None:
        old = store.put("a", b"old")
        new = store.put("a", b"new", generation=old.generation)

        with pytest.raises(Conflict):
            store.delete("a", generation=old.generation)

        assert store.get("a") == (b"new", new)
        store.delete("a", generation=new.generation)
        with pytest.raises(Conflict):
            store.delete("a", generation=new.generation)

    def test_a_folder_that_deleting_has_emptied_takes_new_objects_meanwhile(self, store: Store) -> None:
        # Given objects that come and go in folders of their own, while others are put into the same folders
        def come_and_go(name: str) -> None:
            for _ in range(10):
                store.delete(name, generation=store.put(name, b"x").generation)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(come_and_go, ["f/g/1", "f/g/2", "f/h/3", "f/4"]))

        assert list(store.list("f/")) == []

    def test_an_entry_tells_when_its_generation_was_put(self, store: Store) -> None:
        before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)

        put = store.put("a", b"x")

        [listed] = store.list()
        for entry in (put, listed, store.head("a")):
            assert entry is not None
            assert entry.put_at is not None
            assert before < entry.put_at < before + dt.timedelta(minutes=5)

    # Listing

    def test_objects_are_listed_in_the_order_of_their_names(self, store: Store) -> None:
        # Given names whose order differs when it is taken folder by folder
        names = ["b/2", "b/10", "a", "b.mp4", "b-1", "b0", "c/d/e", "c/d-e", "B/x", ".nightreel/keyframes/x.png"]
        put = {name: store.put(name, name.encode(), metadata={"is": name}) for name in names}

        # Then they are listed in the order of their names, with their entries
        assert list(store.list()) == [put[name] for name in sorted(names)]

    @pytest.mark.parametrize("prefix", ["b", "b/", "b/1", "c/", "c/d", "c/d/e", "", "x", "b/2/", "../", "/", "c//"])
    def test_a_prefix_lists_the_names_that_start_with_it(self, store: Store, prefix: str) -> None:
        names = ["b/10", "b/2", "b.mp4", "c/d/e", "c/d-e"]
        for name in names:
            store.put(name, b"")

        assert [entry.name for entry in store.list(prefix)] == sorted(n for n in names if n.startswith(prefix))

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert list(store.list()) == []

    # Names

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_name_that_not_every_store_can_keep_is_refused(self, store: Store, tmp_path: Path, name: str) -> None:
        for use in (
            lambda: store.put(name, b"x"),
            lambda: store.head(name),
            lambda: store.get(name),
            lambda: store.fetch(name, tmp_path / "fetched"),
            lambda: store.url(name),
        ):
            with pytest.raises(BadName):
                use()
        assert list(store.list()) == []

    @pytest.mark.parametrize("name", ["a b", "x" * 200, "-=+@_.", ".hidden", "a.json"])
    def test_any_other_name_is_kept(self, store: Store, name: str) -> None:
        put = store.put(name, b"x")

        assert list(store.list()) == [put]
        assert store.get(name) == (b"x", put)

    def test_an_object_may_be_called_like_another_ones_folder_with_an_ending(self, store: Store) -> None:
        # Given names that differ from a folder's only by what follows
        for name in ("a", "a.json/b", "a.json.json"):
            store.put(name, name.encode())

        assert [entry.name for entry in store.list()] == ["a", "a.json.json", "a.json/b"]
        assert store.get("a.json/b")[0] == b"a.json/b"

    def test_a_person_is_told_where_to_find_the_object(self, store: Store) -> None:
        store.put("nightly/harbour.mp4", b"film")

        assert "nightly/harbour.mp4" in store.url("nightly/harbour.mp4")
