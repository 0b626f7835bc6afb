"""Google Cloud Storage as a store.

Every put is one upload with a generation precondition, so it may be repeated when its answer got lost. Whoever repeats
a put that had succeeded meets his own object and is refused; a put id in the metadata tells him that it is his own.

Content is checked both ways against its CRC32C: Google refuses an upload that differs from the checksum sent with it,
and every download, whole or resumed, is checked here against the checksum of the generation that was looked up.

STORAGE_EMULATOR_HOST (http://127.0.0.1:4443) leads to an emulator instead, without credentials.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from . import errors, gcs_errors
from .base import ABSENT, Entry
from .gcs_address import GcsAddress
from .gcs_content import Checked, Sums, Ticking
from .gcs_sdk import (
    RETRY_S,
    Blob,
    Client,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    patience,
    signer,
    translated,
)

CHUNK_BYTES = 8 << 20  # larger content goes up resumably, in requests of this size
RESTARTS = 3  # of a resumable upload whose session Google has lost
SIGNED_URL_MAX_S = 7 * 86400.0  # Google's limit

_SHA256 = "nightreel-sha256"
_PUT_ID = "nightreel-put"
_SESSION_LOST = (308, 404, 410, 416)  # 308: it has kept other bytes than we think
_FIELDS = "items(name,generation,size,contentType,metadata,timeCreated),nextPageToken"


class GcsStore:
    """The store at gs://BUCKET/PREFIX. Raises StoreUnavailable when the bucket is missing or cannot be read.

    `retry_s` bounds how long each request is repeated; a server that accepts and stays silent can double it.
    """

    def __init__(self, url: str, *, retry_s: float = RETRY_S, client: Client | None = None) -> None:
        self._address = GcsAddress.parse(url)
        self._retry_s = retry_s
        self._call = patience(retry_s)
        with translated(self._address.bucket, retry_s):
            self._client = client or Client(project=None)
            self._bucket = self._client.bucket(self._address.bucket)
            self._probe()

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        generation: int = ABSENT,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Entry:
        """As in the contract. `tick` is called once for each CHUNK_BYTES."""
        blob = self._bucket.blob(self._address.key(name), chunk_size=CHUNK_BYTES)
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            sums = Sums.of(content)
            blob.crc32c = sums.crc32c  # Google refuses any other content
            blob.metadata = {**(metadata or {}), _SHA256: sums.sha256, _PUT_ID: uuid.uuid4().hex}
            blob.content_type = content_type
            blob.cache_control = _cache_control(content_type)
            with self._translated():
                stored = self._upload(name, blob, Ticking(content, tick), sums.size_bytes, generation)
                self._must_be_whole(name, stored, sums)
                return self._entry(stored)

    def head(self, name: str) -> Entry | None:
        key = self._address.key(name)
        with self._translated():
            blob = self._look(key)
            return self._entry(blob) if blob else None

    def get(self, name: str) -> tuple[bytes, Entry]:
        content = io.BytesIO()
        entry = self._copy_out(name, content)
        return content.getvalue(), entry

    def fetch(self, name: str, path: Path) -> Entry:
        """As in the contract. Raises OSError when it is `path` that cannot be written."""
        self._address.key(name)
        with path.open("wb") as file:
            try:
                return self._copy_out(name, file)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """As in the contract. Leaves out objects whose names could not be asked for."""
        with self._translated():
            for blob in self._client.list_blobs(
                self._bucket, prefix=self._address.prefix + prefix, fields=_FIELDS, **self._call
            ):
                if self._address.name(blob.name) is not None:
                    yield self._entry(blob)

    def delete(self, name: str, *, generation: int) -> None:
        """As in the contract. Google checks the generation again; fake-gcs-server does not when it deletes."""
        blob = self._bucket.blob(self._address.key(name))
        with self._translated():
            self._expect(name, generation)
            try:
                blob.delete(if_generation_match=generation, **self._call)
            except (NotFound, PreconditionFailed) as exc:
                if gcs_errors.speaks_of_the_bucket(str(exc)):
                    raise
                raise _conflict(name, self._look(blob.name), generation) from exc

    def url(self, name: str) -> str:
        return self._address.console_url(name)

    def signed_url(self, name: str, lifetime_s: float) -> str:
        """An address at which anybody can read the object for `lifetime_s` (up to a week); it need not exist yet.

        Signed with the credentials' own key, or by IAM in the name of their service account, which needs
        roles/iam.serviceAccountTokenCreator on itself. Raises StoreUnavailable when neither can be had.
        """
        if not 0 < lifetime_s <= SIGNED_URL_MAX_S:
            raise ValueError(f"a signed address lives from 1 to {SIGNED_URL_MAX_S:.0f} seconds, not {lifetime_s:g}")
        blob = self._bucket.blob(self._address.key(name))
        with self._translated():
            url: str = blob.generate_signed_url(
                version="v4", expiration=dt.timedelta(seconds=lifetime_s), **signer(self._client)
            )
            return url

    # Putting

    def _upload(self, name: str, blob: Blob, content: Ticking, size_bytes: int, generation: int) -> Any:
        """Upload until it is there, or certainly is not; returns the blob as Google describes it."""
        if size_bytes > CHUNK_BYTES:
            self._expect(name, generation)  # most conflicts show before anything goes over
        for restarts_left in reversed(range(RESTARTS + 1)):
            content.seek(0)
            try:
                blob.upload_from_file(
                    content, size=size_bytes, if_generation_match=generation, checksum=None, **self._call
                )
                return blob
            except GoogleAPICallError as exc:
                lost = exc.code in _SESSION_LOST and size_bytes > CHUNK_BYTES and restarts_left
                if not lost and not isinstance(exc, PreconditionFailed):
                    raise
                found = self._look(blob.name)
                if found and (found.metadata or {}).get(_PUT_ID) == blob.metadata[_PUT_ID]:
                    return found  # an earlier try had succeeded, and only its answer was lost
                if not lost:
                    raise _conflict(name, found, generation) from exc
                self._probe()  # what is lost may be the bucket
        raise AssertionError("unreachable: the last try returns or raises")

    def _expect(self, name: str, generation: int) -> None:
        found = self._look(self._address.key(name))
        if (found.generation if found else ABSENT) != generation:
            raise _conflict(name, found, generation)

    def _must_be_whole(self, name: str, stored: Blob, sums: Sums) -> None:
        if stored.crc32c != sums.crc32c:
            with contextlib.suppress(NotFound, PreconditionFailed):  # somebody else has replaced it since
                stored.delete(if_generation_match=stored.generation, **self._call)
            raise errors.StoreError(f"{name} was damaged on its way to {self._at}: nothing of it is kept; put it again")

    # Looking

    def _look(self, key: str) -> Any:
        """The newest generation's blob, or None."""
        blob = self._bucket.blob(key)
        try:
            blob.reload(**self._call)
        except NotFound as exc:
            if gcs_errors.speaks_of_the_bucket(str(exc)):
                raise
            return None
        return blob

    def _copy_out(self, name: str, target: IO[bytes]) -> Entry:
        """Copy the content of the newest generation. When that is replaced before it is read, look again."""
        key = self._address.key(name)
        with self._translated():
            while blob := self._look(key):
                target.seek(0)
                target.truncate()
                checked = Checked(target)
                pinned = self._bucket.blob(key, generation=blob.generation)
                try:
                    pinned.download_to_file(
                        checked, raw_download=bool(blob.content_encoding), checksum=None, **self._call
                    )
                except NotFound:
                    continue
                if checked.crc32c != blob.crc32c:
                    raise errors.Damaged(
                        f"the content of {name} in {self._at} does not fit its checksum: read it again; if it stays so,"
                        " delete the object"
                    )
                return self._entry(blob)
        raise errors.NotFound(f"{name}: there is no such object in {self._at}")

    def _entry(self, blob: Blob) -> Entry:
        metadata = dict(blob.metadata or {})
        sha256 = metadata.pop(_SHA256, "")
        metadata.pop(_PUT_ID, None)
        name = blob.name.removeprefix(self._address.prefix)
        content_type = blob.content_type or "application/octet-stream"
        return Entry(name, blob.generation, blob.size, sha256, content_type, metadata, blob.time_created)

    # The bucket and its keeper

    @property
    def _at(self) -> str:
        return f"gs://{self._address.bucket}/{self._address.prefix}"

    def _probe(self) -> None:
        """Raises NotFound without a bucket. Needs no right but to list, which every role on objects gives."""
        next(
            iter(self._client.list_blobs(self._bucket, prefix=self._address.prefix, max_results=1, **self._call)), None
        )

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return translated(self._address.bucket, self._retry_s)


def _conflict(name: str, found: Blob | None, generation: int) -> errors.Conflict:
    is_now = f"is at generation {found.generation}" if found else "does not exist"
    expected = f"generation {generation}" if generation else "no object"
    return errors.Conflict(f"{name} {is_now}, expected was {expected}: somebody else was first")


def _cache_control(content_type: str) -> str:
    """Records may be replaced; what is made of pixels and sound never is."""
    return "no-cache" if content_type == "application/json" else "private, max-age=31536000, immutable"
