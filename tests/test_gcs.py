"""The store in Google Cloud Storage: the contract, and lost answers, restarts, damage and refusals.

The server is fake-gcs-server. It ignores preconditions of resumable uploads, checksums sent with an upload, and all
settings of buckets; where that matters, a test looks at what is sent.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import test_receipts
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from fake_gcs import NEEDED, FakeGcs, find_binary, running
from google.auth import credentials as google_credentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.auth.transport import requests as google_requests
from google.cloud.storage import Bucket, Client
from google.oauth2 import service_account
from proxy import Proxy
from store_contract import StoreContract, StoreHarness, sha256

from nightreel_storage import gcs
from nightreel_storage.base import Entry
from nightreel_storage.connect import open_store
from nightreel_storage.errors import BadName, Conflict, NotFound, StoreError, StoreUnavailable
from nightreel_storage.gcs import CHUNK_BYTES, GcsStore
from nightreel_storage.gcs_address import GcsAddress
from nightreel_storage.gcs_setup import setup_bucket
from nightreel_storage.keeping import KEEP_DAYS
from nightreel_storage.receipts import Receipts

SHORT_S = 0.5  # that a store repeats its requests, where a test waits for it to give up
LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)  # goes up in three requests

Handler = Callable[[str, str, dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def bucket(gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket at the server that the environment leads to."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    name = f"test-{uuid.uuid4().hex[:12]}"
    gcs_server.make_bucket(name)
    return name


@pytest.fixture
def harness(bucket: str) -> StoreHarness:
    url = f"gs://{bucket}/out"
    source = f"from nightreel_storage.gcs import GcsStore\nstore = GcsStore({url!r})"
    return StoreHarness(lambda: GcsStore(url), source)


@pytest.fixture
def store(bucket: str) -> GcsStore:
    return GcsStore(f"gs://{bucket}/out")


@pytest.fixture
def raw(store: GcsStore) -> Bucket:
    """The bucket as others see it."""
    return store._bucket


class TestGcsStore(StoreContract):
    pass


# Addresses


def test_gs_opens_a_bucket(bucket: str) -> None:
    assert isinstance(open_store(f"gs://{bucket}"), GcsStore)


WITHOUT_GOOGLE = """
import sys
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreUnavailable

open_store(sys.argv[1]).put("a", b"x")
assert not [name for name, module in sys.modules.items() if name.startswith("google.") and module.__file__]
sys.modules["google.cloud.storage"] = None  # as if it were not installed
try:
    open_store("gs://films")
except StoreUnavailable as error:
    print(error)
"""


def test_only_a_bucket_needs_googles_client_and_says_how_to_get_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GOOGLE, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )

    assert done.stdout == "gs://films needs Google's client: pip install 'nightreel[gcp]'\n", done.stderr


@pytest.mark.parametrize("end", ["", "/", "/out", "/out/"])
def test_an_address_may_end_in_a_slash(end: str) -> None:
    assert GcsAddress.parse(f"gs://films{end}") == GcsAddress("films", "out/" if "out" in end else "")


@pytest.mark.parametrize(
    "rest", ["", "/", "x", "UPPER/x", "films/../x", "films//x", "films/a b?", "films/" + "x" * 201]
)
def test_any_other_address_is_refused_with_the_right_form(rest: str) -> None:
    with pytest.raises(StoreUnavailable, match="give gs://BUCKET or gs://BUCKET/PREFIX"):
        GcsStore(f"gs://{rest}")


def test_objects_of_other_prefixes_are_invisible(bucket: str) -> None:
    # Given stores side by side, one of them in the whole bucket
    whole, out, out2 = (GcsStore(f"gs://{bucket}{prefix}") for prefix in ("", "/out", "/out2"))
    out.put("a", b"out")
    out2.put("a", b"out2")

    # Then each sees its own, and the whole bucket sees all
    assert [entry.name for entry in out.list()] == ["a"]
    assert out.get("a")[0] == b"out"
    assert out2.head("2/a") is None
    assert [entry.name for entry in whole.list()] == ["out/a", "out2/a"]
    for name in ("../out2/a", "/out2/a"):
        with pytest.raises(BadName):
            out.get(name)


def test_a_person_is_told_an_address_that_a_browser_opens(store: GcsStore, bucket: str) -> None:
    assert store.url("nightly/a b+c.mp4") == f"https://storage.cloud.google.com/{bucket}/out/nightly/a%20b%2Bc.mp4"


# What others see, and what others put


@pytest.mark.parametrize(
    ("content_type", "cache_control"),
    [("application/json", "no-cache"), ("video/mp4", "private, max-age=31536000, immutable")],
)
def test_only_what_may_be_replaced_is_not_cached(
    store: GcsStore, raw: Bucket, content_type: str, cache_control: str
) -> None:
    store.put("a", b"x", content_type=content_type, metadata={"k": "v"})

    blob = raw.get_blob("out/a")

    assert (blob.content_type, blob.cache_control) == (content_type, cache_control)
    assert blob.metadata["nightreel-sha256"] == sha256(b"x")
    assert blob.metadata["k"] == "v"


def test_an_object_put_by_somebody_else_has_no_fingerprint_and_is_not_overwritten(store: GcsStore, raw: Bucket) -> None:
    blob = raw.blob("out/mine.mp4")
    blob.upload_from_string(b"mine", content_type="video/mp4")

    entry = Entry("mine.mp4", blob.generation, 4, "", "video/mp4")
    assert store.get("mine.mp4") == (b"mine", entry)
    assert list(store.list()) == [entry]
    with pytest.raises(Conflict):
        store.put("mine.mp4", b"ours")
    store.put("mine.mp4", b"ours", generation=entry.generation)


def test_objects_whose_names_cannot_be_asked_for_are_not_listed(store: GcsStore, raw: Bucket) -> None:
    for key in ("out/", "out/folder/", "out/naïve", "out//x"):
        raw.blob(key).upload_from_string(b"")
    store.put("a", b"x")

    assert [entry.name for entry in store.list()] == ["a"]


def test_an_object_that_is_stored_compressed_is_got_as_it_is_stored(store: GcsStore, raw: Bucket) -> None:
    blob = raw.blob("out/a.json")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"{}"))

    assert gzip.decompress(store.get("a.json")[0]) == b"{}"


@pytest.mark.parametrize("pages", [1, 3])
def test_a_list_of_many_pages_is_one_list(
    store: GcsStore, monkeypatch: pytest.MonkeyPatch, bucket: str, pages: int
) -> None:
    # Given a server that gives the names in pages; the fake one knows none
    names = [f"out/{number:02}" for number in range(6)]
    items = [{"name": name, "generation": "1", "size": "0"} for name in names]

    def answer(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        token = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query).get("pageToken", ["0"])
        first, size = int(token[0]), len(items) // pages
        following = {"nextPageToken": str(first + size)} if first + size < len(items) else {}
        return 200, {"items": items[first : first + size]} | following

    with answering(answer, monkeypatch):
        listed = [entry.name for entry in GcsStore(f"gs://{bucket}/out").list()]

    assert listed == [name.removeprefix("out/") for name in names]


# Lost answers


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeGcs, Proxy, GcsStore]]:
    """A server of one's own, a proxy before it, and a store that sees the server through the proxy alone."""
    if find_binary() is None:
        pytest.skip(NEEDED)
    servers: list[FakeGcs] = []
    proxy = Proxy(lambda: servers[0].port)
    servers.append(FakeGcs(public_port=proxy.port))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    with running(servers[0]) as server, contextlib.closing(proxy):
        server.make_bucket("films")
        yield server, proxy, GcsStore("gs://films/out", retry_s=20)


class CutBeforeTheAnswer:
    """Lets requests through, and cuts the connection when the server answers an upload, `times` times."""

    def __init__(self, proxy: Proxy, marker: str, times: int = 1) -> None:
        self._proxy, self._marker, self.left = proxy, marker, times

    def __call__(self, data: bytes) -> bytes | None:
        if self.left and self._marker in self._proxy.requests[-1]:
            self.left -= 1
            return None
        return data


def uploads(proxy: Proxy) -> list[str]:
    return [line for line in proxy.requests if "/upload/" in line]


@pytest.mark.parametrize("before", ["nothing", "old"])
def test_a_put_whose_answer_is_lost_succeeds_once(between: tuple[FakeGcs, Proxy, GcsStore], before: str) -> None:
    _, proxy, store = between
    generation = store.put("a", b"old").generation if before == "old" else 0
    proxy.down = cut = CutBeforeTheAnswer(proxy, "uploadType=multipart")
    sent_before = len(uploads(proxy))

    # When the connection is cut between the upload and its answer
    put = store.put("a", b"content", generation=generation, metadata={"k": "v"})

    # Then the upload was repeated, met its own object, and that is the one
    assert cut.left == 0
    assert len(uploads(proxy)) - sent_before == 2
    assert store.get("a") == (b"content", put)
    assert put.metadata == {"k": "v"}

    # And another put of the same content is still a conflict
    with pytest.raises(Conflict):
        store.put("a", b"content", generation=generation, metadata={"k": "v"})


def test_an_answer_that_is_lost_again_and_again_makes_the_store_unavailable_in_time(
    between: tuple[FakeGcs, Proxy, GcsStore],
) -> None:
    _, proxy, _ = between
    store = GcsStore("gs://films/out", retry_s=SHORT_S)
    proxy.down = CutBeforeTheAnswer(proxy, "uploadType=multipart", times=10**6)

    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"gs://films cannot be reached, tried for 0\.5 s"):
        store.put("a", b"content")

    assert time.monotonic() - began < 10


def test_a_large_object_goes_up_in_parts_and_each_is_repeated_by_itself(
    between: tuple[FakeGcs, Proxy, GcsStore], tmp_path: Path
) -> None:
    _, proxy, store = between
    (tmp_path / "film").write_bytes(LARGE)
    lost: list[bytes] = []

    def lose_one(data: bytes) -> bytes | None:
        if data.startswith(b"PUT ") and len(uploads(proxy)) == 3 and not lost:
            lost.append(data)
            return None
        return data

    # When the connection is cut at the second part
    proxy.up = lose_one
    put = store.put("film", tmp_path / "film")

    # Then only that was repeated: the start, three parts, one of them twice
    assert len(lost) == 1
    assert [line.partition(" ")[0] for line in uploads(proxy)] == ["POST", "PUT", "PUT", "PUT", "PUT"]
    assert "uploadType=resumable&ifGenerationMatch=0" in uploads(proxy)[0]
    assert store.get("film") == (LARGE, put)
    with pytest.raises(Conflict):
        store.put("film", tmp_path / "film")


def test_a_large_put_whose_last_answer_is_lost_succeeds(between: tuple[FakeGcs, Proxy, GcsStore]) -> None:
    # Given a server that answers the last part, and an answer that does not arrive
    _, proxy, store = between
    lost: list[bytes] = []

    def lose_last(data: bytes) -> bytes | None:
        if not lost and proxy.requests[-1].startswith("PUT ") and data.startswith(b"HTTP/1.1 200"):
            lost.append(data)
            return None
        return data

    proxy.down = lose_last
    put = store.put("film", LARGE, metadata={"k": "v"})

    assert len(lost) == 1
    assert store.get("film") == (LARGE, put)
    assert put.metadata == {"k": "v"}


# A server that goes away


def test_a_put_waits_for_a_server_that_comes_back(between: tuple[FakeGcs, Proxy, GcsStore]) -> None:
    server, proxy, store = between
    server.stop()
    before = len(proxy.requests)

    def hold_back(data: bytes) -> bytes | None:
        return data if back.is_set() else None

    back = threading.Event()
    proxy.up = hold_back

    # When it is away while a put begins
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(store.put, "a", b"content")
        time.sleep(0.3)
        assert not pending.done()
        server.start()
        server.make_bucket("films")
        back.set()
        put = pending.result()

    # Then the put asked again until it was back
    assert len(proxy.requests) > before
    assert store.get("a") == (b"content", put)


def test_a_large_put_starts_over_when_the_server_has_forgotten_it(between: tuple[FakeGcs, Proxy, GcsStore]) -> None:
    # Given a server that is started anew between the parts of an upload, and remembers nothing
    server, proxy, store = between
    restarted: list[int] = []

    def restart() -> None:
        if len(uploads(proxy)) == 2 and not restarted:
            restarted.append(1)
            server.stop()
            server.start()
            server.make_bucket("films")

    put = store.put("film", LARGE, tick=restart)

    assert restarted
    assert [line.partition(" ")[0] for line in uploads(proxy)].count("POST") == 2
    assert store.get("film") == (LARGE, put)


def test_a_server_that_stays_away_makes_the_store_unavailable_in_time(
    between: tuple[FakeGcs, Proxy, GcsStore], tmp_path: Path
) -> None:
    server, _, _ = between
    store = GcsStore("gs://films/out", retry_s=SHORT_S)
    server.stop()

    for use in (
        lambda: store.put("a", b"x"),
        lambda: store.put("a", LARGE),
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.fetch("a", tmp_path / "a"),
        lambda: list(store.list()),
        lambda: GcsStore("gs://films", retry_s=SHORT_S),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"gs://films cannot be reached.*check the network"):
            use()
        assert time.monotonic() - began < 10
    assert not (tmp_path / "a").exists()


def test_a_server_that_stays_silent_makes_the_store_unavailable_in_time(
    between: tuple[FakeGcs, Proxy, GcsStore],
) -> None:
    _, proxy, _ = between
    store = GcsStore("gs://films/out", retry_s=SHORT_S)
    proxy.down = lambda data: b""

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.put("a", b"x")
    assert time.monotonic() - began < 10


# Damage


@pytest.mark.parametrize("size_bytes", [7, len(LARGE)])
def test_content_that_is_damaged_on_its_way_up_is_not_kept(
    between: tuple[FakeGcs, Proxy, GcsStore], size_bytes: int
) -> None:
    _, proxy, store = between
    proxy.up = lambda data: data.replace(b"picture", b"PICTURE")

    with pytest.raises(StoreError, match=r"batch/a\.png|400"):
        store.put("batch/a.png", b"picture".rjust(size_bytes, b"."))

    assert store.head("batch/a.png") is None


@pytest.mark.parametrize(("content", "crc32c"), [(b"picture", "T3fd9w=="), (LARGE, "UaQC+A==")], ids=["small", "large"])
def test_the_checksum_goes_up_with_the_content_so_that_google_can_refuse_it(
    between: tuple[FakeGcs, Proxy, GcsStore], content: bytes, crc32c: str
) -> None:
    """Google keeps nothing that differs from the checksum; the fake server does not look at it."""
    _, proxy, store = between
    sent: list[bytes] = []
    proxy.up = lambda data: sent.append(data) or data  # type: ignore[func-returns-value]

    store.put("a.png", content)

    assert f'"crc32c": "{crc32c}"'.encode() in b"".join(sent)


def test_content_that_is_damaged_on_its_way_down_is_noticed(
    between: tuple[FakeGcs, Proxy, GcsStore], tmp_path: Path
) -> None:
    _, proxy, store = between
    store.put("batch/a.png", b"picture")
    proxy.down = lambda data: data.replace(b"picture", b"PICTURE")

    with pytest.raises(StoreError, match=r"batch/a\.png.*checksum"):
        store.get("batch/a.png")
    with pytest.raises(StoreError, match=r"batch/a\.png.*checksum"):
        store.fetch("batch/a.png", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("damage", [b"PICTURE", b"pict", b"picture and more"], ids=repr)
def test_content_that_is_damaged_where_it_is_stored_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    if find_binary() is None:
        pytest.skip(NEEDED)
    with running(FakeGcs(tmp_path / "disk")) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        server.make_bucket("films")
        store = GcsStore("gs://films")
        store.put("a.png", b"picture")
        assert store.get("a.png")[0] == b"picture"
        [file] = [path for path in (tmp_path / "disk").rglob("*") if path.is_file() and path.read_bytes() == b"picture"]
        file.write_bytes(damage)

        with pytest.raises(StoreError, match=r"a\.png") as caught:
            store.fetch("a.png", tmp_path / "a.png")

    assert not isinstance(caught.value, NotFound | StoreUnavailable)
    assert not (tmp_path / "a.png").exists()


def test_a_download_that_is_cut_goes_on_and_is_whole(between: tuple[FakeGcs, Proxy, GcsStore], tmp_path: Path) -> None:
    _, proxy, store = between
    store.put("film", LARGE)
    passed = [0]

    def cut_once(data: bytes) -> bytes | None:
        if "alt=media" in proxy.requests[-1] and passed[0] >= 0:
            passed[0] += len(data)
            if passed[0] > len(LARGE) // 2:
                passed[0] = -1
                return None
        return data

    proxy.down = cut_once
    store.fetch("film", tmp_path / "film")

    assert passed == [-1]
    assert (tmp_path / "film").read_bytes() == LARGE


def test_an_object_that_is_replaced_between_two_looks_is_got_as_it_is_then(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who replaces the object after the reader has looked it up
    store, other = GcsStore(f"gs://{bucket}"), GcsStore(f"gs://{bucket}")
    old = other.put("a", b"old")
    new: list[Entry] = []
    look = store._look

    def overtaken(key: str) -> Any:
        found = look(key)
        if not new:
            new.append(other.put("a", b"new content", generation=old.generation))
        return found

    monkeypatch.setattr(store, "_look", overtaken)

    assert store.get("a") == (b"new content", new[0])


def test_a_full_disk_at_the_receiving_end_is_not_the_stores_trouble(store: GcsStore) -> None:
    store.put("a", b"x")

    class FullFile(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store._copy_out("a", FullFile())


# Refusals


@contextlib.contextmanager
def answering(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that answers as `handler(method, path, body)` says: a status and JSON."""

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = handler(self.command, self.path, json.loads(body) if body[:1] == b"{" else {})
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error(code: int, message: str) -> tuple[int, Any]:
    return code, {"error": {"code": code, "message": message}}


def test_a_bucket_that_is_missing_shows_at_the_opening(bucket: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"there is no bucket no-such-bucket: make it .*gcloud storage buckets"):
        GcsStore("gs://no-such-bucket/out")


@pytest.mark.parametrize("code", [401, 403])
def test_refused_credentials_are_told_with_the_role_that_they_lack(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refusal = error(code, "who@x.iam does not have storage.objects.list access")

    with (
        answering(lambda *_: refusal, monkeypatch),
        pytest.raises(StoreUnavailable, match=r"who@x\.iam does not have .* roles/storage\.objectUser"),
    ):
        GcsStore("gs://films", client=Client("films", Account()))  # type: ignore[no-untyped-call]


def test_a_bucket_that_is_gone_does_not_pass_for_an_empty_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a bucket that was deleted after it was opened, as Google tells it
    answers: list[tuple[int, Any]] = [(200, {})]
    with answering(lambda *_: answers[-1], monkeypatch):
        store = GcsStore("gs://films")
        answers.append(error(404, "The specified bucket does not exist."))

        for use in (
            lambda: store.head("a"),
            lambda: store.get("a"),
            lambda: store.fetch("a", tmp_path / "a"),
            lambda: list(store.list()),
            lambda: store.put("a", b"x"),
            lambda: store.put("a", LARGE),
        ):
            with pytest.raises(StoreUnavailable, match="there is no bucket films"):
                use()

        # And an object that is not there is just that
        answers.append(error(404, "No such object: films/a"))
        assert store.head("a") is None


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    answers = iter([(200, {}), error(code, "try again"), error(code, "again"), error(404, "No such object: films/a")])
    with answering(lambda *_: next(answers), monkeypatch):
        assert GcsStore("gs://films").head("a") is None


def test_nothing_but_what_was_asked_for_goes_to_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would ask for the bucket's settings, too: a call that costs, and that our role does not allow."""
    asked: list[str] = []

    def answer(method: str, path: str, _: dict[str, Any]) -> tuple[int, Any]:
        asked.append(f"{method} {urllib.parse.urlsplit(path).path}")
        return 200, {"name": "a", "generation": "1", "size": "0"}

    with answering(answer, monkeypatch):
        GcsStore("gs://films").head("a")

    assert asked == ["GET /storage/v1/b/films/o", "GET /storage/v1/b/films/o/a"]


def test_an_overloaded_server_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(lambda *_: error(503, "come back tomorrow"), monkeypatch),
        pytest.raises(StoreUnavailable, match="come back tomorrow"),
    ):
        GcsStore("gs://films", retry_s=SHORT_S)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_an_emulator_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)

    with pytest.raises(StoreUnavailable, match="gs://films cannot be reached"):
        GcsStore("gs://films", retry_s=SHORT_S)


def test_any_other_answer_is_an_error_that_quotes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(lambda *_: error(400, "Invalid argument."), monkeypatch),
        pytest.raises(StoreError, match=r"HTTP 400: .*Invalid argument") as caught,
    ):
        GcsStore("gs://films")
    assert not isinstance(caught.value, StoreUnavailable)


def test_missing_credentials_are_told_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(gcs, "Client", none)

    with pytest.raises(StoreUnavailable, match=r"were not found.*gcloud auth application-default login"):
        GcsStore("gs://films")


# Signed addresses


class Account(google_credentials.Credentials):
    """A machine's credentials: a name and a token, which it gets when it asks, and no key."""

    def refresh(self, request: object) -> None:
        self.token, self.service_account_email = "secret-token", "worker@films.iam.gserviceaccount.com"

    service_account_email = "default"


class Person(google_credentials.Credentials):
    """Credentials of somebody who signed in."""

    def refresh(self, request: object) -> None:
        raise RefreshError("sign in again")  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], GcsStore]:
    """Opens a store with given credentials; nothing is asked of Google."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(GcsStore, "_probe", lambda _: None)
    return lambda credentials: GcsStore("gs://films/out", client=Client("films", credentials))


def keyed(key: rsa.RSAPrivateKey) -> Any:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        {"client_email": "worker@films.iam.gserviceaccount.com", "private_key": pem, "token_uri": "https://x.invalid"}
    )


def verify(url: str, key: rsa.RSAPublicKey) -> dict[str, str]:
    """Check a V4 signature as Google does; returns the query."""
    parts = urllib.parse.urlsplit(url)
    signed, _, signature = parts.query.partition("&X-Goog-Signature=")
    query = dict(urllib.parse.parse_qsl(signed))
    canonical = "\n".join(["GET", parts.path, signed, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    scope = query["X-Goog-Credential"].partition("/")[2]
    text = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key.verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return query


def test_a_signed_address_is_signed_with_the_key_in_the_credentials(
    opened: Callable[[Any], GcsStore], key: rsa.RSAPrivateKey
) -> None:
    url = opened(keyed(key)).signed_url("nightly/a b.mp4", 3600)

    assert url.startswith("https://storage.googleapis.com/films/out/nightly/a%20b.mp4?")
    query = verify(url, key.public_key())
    assert query["X-Goog-Expires"] == "3600"
    assert query["X-Goog-Credential"].startswith("worker@films.iam.gserviceaccount.com/")


def test_without_a_key_iam_signs_for_the_service_account(
    opened: Callable[[Any], GcsStore], key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given IAM, which has the key
    asked: list[tuple[str, str]] = []

    class Answer:
        status = 200

        def __init__(self, payload: bytes) -> None:
            signature = key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
            self.data = json.dumps({"signedBlob": base64.b64encode(signature).decode()}).encode()

    def sign(_: object, url: str, body: str, headers: dict[str, str], **__: object) -> Answer:
        asked.append((url, headers["Authorization"]))
        return Answer(base64.b64decode(json.loads(body)["payload"]))

    monkeypatch.setattr(google_requests.Request, "__call__", sign)

    url = opened(Account()).signed_url("a.mp4", 60)  # type: ignore[no-untyped-call]

    verify(url, key.public_key())
    [(address, token)] = asked
    assert "/serviceAccounts/worker@films.iam.gserviceaccount.com:signBlob" in address
    assert token == "Bearer secret-token"


def test_a_person_is_told_how_to_sign(opened: Callable[[Any], GcsStore]) -> None:
    with pytest.raises(StoreUnavailable, match="--impersonate-service-account"):
        opened(Person()).signed_url("a.mp4", 60)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("lifetime_s", [0, -1, 604801])
def test_no_address_is_signed_for_longer_than_a_week(
    opened: Callable[[Any], GcsStore], key: rsa.RSAPrivateKey, lifetime_s: float
) -> None:
    with pytest.raises(ValueError, match="604800"):
        opened(keyed(key)).signed_url("a.mp4", lifetime_s)


# Buckets


class Buckets:
    """Buckets as Google keeps them; the fake server forgets everything about one but its name."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.changes: list[str] = []

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        url = urllib.parse.urlsplit(path)
        name = body.get("name") or url.path.rpartition("/")[2]
        if method == "GET":
            return (200, self.kept[name]) if name in self.kept else error(404, "The specified bucket does not exist.")
        self.changes.append(method)
        bucket = self.kept.setdefault(name, {"metageneration": "0"})
        if f"ifMetagenerationMatch={bucket['metageneration']}" not in url.query and method == "PATCH":
            return error(412, "changed")
        bucket |= body | {"metageneration": str(int(bucket["metageneration"]) + 1)}
        query = urllib.parse.parse_qs(url.query)
        bucket |= {"project": query["project"][0]} if "project" in query else {}
        return 200, bucket


def rules(bucket: dict[str, Any]) -> dict[str, int]:
    found = bucket["lifecycle"]["rule"]
    assert {rule["action"]["type"] for rule in found} == {"Delete"}
    return {prefix: rule["condition"]["age"] for rule in found for prefix in rule["condition"]["matchesPrefix"]}


def test_a_bucket_is_made_with_uniform_access_and_rules_that_clear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = Buckets()
    with answering(buckets, monkeypatch):
        setup_bucket("gs://films/out", "europe-west4", project="p")

        made = buckets.kept["films"]
        assert (made["location"], made["project"]) == ("europe-west4", "p")
        assert made["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
        assert rules(made) == {
            "out/.nightreel/keyframes/": 14,
            "out/.nightreel/inputs/": 30,
            "out/.nightreel/attempts/": 90,
            "out/.nightreel/runs/": 90,
        }

        # And doing it again changes nothing
        setup_bucket("gs://films/out", "europe-west4", project="p")
        assert buckets.changes == ["POST"]


def test_a_bucket_that_is_there_keeps_what_others_set(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = Buckets()
    theirs = {"action": {"type": "Delete"}, "condition": {"age": 7, "matchesPrefix": ["logs/"]}}
    old = {"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": [".nightreel/keyframes/"]}}
    buckets.kept["films"] = {"location": "US", "metageneration": "5", "lifecycle": {"rule": [theirs, old]}}
    with answering(buckets, monkeypatch):
        setup_bucket("gs://films", "EU", project="p")

        assert buckets.changes == ["PATCH"]
        assert rules(buckets.kept["films"]) == {"logs/": 7} | KEEP_DAYS
        assert buckets.kept["films"]["location"] == "US"
        setup_bucket("gs://films", "EU", project="p")
        assert buckets.changes == ["PATCH"]


def test_a_bucket_that_is_made_can_be_used(gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    url = f"gs://made-{uuid.uuid4().hex[:12]}/out"

    for _ in range(2):
        setup_bucket(url, "EU", project="test")
        with contextlib.suppress(Conflict):
            GcsStore(url).put("a", b"x")

    assert GcsStore(url).get("a")[0] == b"x"


def test_without_a_project_no_bucket_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)

    with pytest.raises(StoreUnavailable, match=r"no project.*GOOGLE_CLOUD_PROJECT"):
        setup_bucket("gs://films", "EU")


def test_who_may_not_make_buckets_is_told_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(lambda *_: error(403, "no"), monkeypatch),
        pytest.raises(StoreUnavailable, match=r"roles/storage\.admin"),
    ):
        setup_bucket("gs://films", "EU", project="p")


# What is kept in a store


@pytest.fixture
def receipts(store: GcsStore) -> Receipts:
    return Receipts(store)


test_the_list_of_a_batch = (
    test_receipts.test_the_receipts_of_a_batch_are_listed_by_job_and_without_those_of_its_neighbours
)
test_a_first_round = test_receipts.test_a_first_round_is_committed_create_only
test_ones_own_receipt = test_receipts.test_a_conflict_with_ones_own_receipt_is_a_success
test_a_later_round = test_receipts.test_a_later_round_ends_over_the_queued_receipt_that_asked_for_it
test_an_older_round = test_receipts.test_an_older_round_cannot_end_a_job_whose_next_round_was_asked_for
test_cancelling = test_receipts.test_a_job_is_cancelled_once_before_it_ends
test_asking_for_another_round = test_receipts.test_another_round_can_be_asked_of_a_job_that_failed_or_was_cancelled
test_asking_twice = test_receipts.test_asking_twice_asks_for_one_round
