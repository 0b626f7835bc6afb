"""What Google Cloud Storage's answers mean for a store, in words that say what to do. Knows nothing of its SDK."""

from __future__ import annotations

from .errors import StoreError, StoreUnavailable

ROLE = "roles/storage.objectUser"  # create, replace, read and list objects; replacing one is refused with less


def no_credentials(cause: object) -> StoreUnavailable:
    return StoreUnavailable(
        f"no valid credentials for Google Cloud Storage ({_short(cause)}): run `gcloud auth application-default login`,"
        " or set GOOGLE_APPLICATION_CREDENTIALS; on Google Cloud, give the machine a service account"
    )


def unreachable(bucket: str, cause: object, retry_s: float) -> StoreUnavailable:
    return StoreUnavailable(
        f"gs://{bucket} cannot be reached, tried for {retry_s:g} s ({_short(cause)}): check the network, and"
        " https://status.cloud.google.com"
    )


def answered(bucket: str, code: int | None, message: str, role: str = ROLE) -> StoreError:
    """The error for an answer that is neither success, nor an absent object, nor a failed precondition."""
    if code in (401, 403):
        return StoreUnavailable(
            f"gs://{bucket} refuses these credentials (HTTP {code}: {_short(message)}): grant them {role}"
            f" (`gcloud storage buckets add-iam-policy-binding gs://{bucket} --role={role} --member=MEMBER`)"
        )
    if code == 404:
        return StoreUnavailable(
            f"there is no bucket {bucket}: make it (`gcloud storage buckets create gs://{bucket}`), or correct the"
            " store's address"
        )
    return StoreError(f"gs://{bucket} answered HTTP {code}: {_short(message)}")


def speaks_of_the_bucket(message: str) -> bool:
    """True for a 404 that means the bucket; that of an absent object says "No such object"."""
    return "bucket does not exist" in message


def _short(cause: object) -> str:
    """One line of what is often a page."""
    text = " ".join(str(cause).split())
    return text if len(text) <= 300 else text[:299] + "…"
