"""Reading an object that is not a store's: a picture that a job names by its gs:// address."""

from __future__ import annotations

from pathlib import Path

from .errors import Damaged, NotFound, ObjectTooLarge
from .gcs_content import Checked
from .gcs_errors import speaks_of_the_bucket
from .gcs_sdk import Client, patience, translated
from .gcs_sdk import NotFound as Absent


def fetch(address: str, path: Path, *, limit_s: float, limit_bytes: int) -> None:
    """Copy gs://BUCKET/NAME, whatever its name, to a new local file; leaves none behind when that fails.

    `limit_s` bounds how long each of its two requests is repeated. Raises NotFound, ObjectTooLarge, Damaged, StoreUnavailable;
    OSError for the file.
    """
    bucket, _, name = address.removeprefix("gs://").partition("/")
    call = patience(limit_s)
    with translated(bucket, limit_s, "roles/storage.objectViewer"), path.open("xb") as file:
        try:
            blob = Client(project=None).bucket(bucket).blob(name)
            blob.reload(**call)
            if blob.size > limit_bytes:
                raise ObjectTooLarge(f"{address} has {blob.size:,} bytes; {limit_bytes:,} are allowed")
            checked = Checked(file)
            pinned = blob.bucket.blob(name, generation=blob.generation)
            pinned.download_to_file(checked, raw_download=bool(blob.content_encoding), checksum=None, **call)
            if checked.crc32c != blob.crc32c:
                raise Damaged(f"the content of {address} does not fit its checksum")
        except BaseException as exc:
            path.unlink()
            if isinstance(exc, Absent) and not speaks_of_the_bucket(str(exc)):
                raise NotFound(f"there is no {address}") from exc
            raise
