"""Google's SDK for Cloud Storage: the only module that imports it. How it shall call, and what its troubles mean."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed, RetryError
from google.auth.credentials import Signing
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from . import gcs_errors
from .errors import StoreError, StoreUnavailable

__all__ = [
    "RETRY_S",
    "Blob",
    "Client",
    "GoogleAPICallError",
    "NotFound",
    "PreconditionFailed",
    "keeper",
    "patience",
    "signer",
    "translated",
]

# Otherwise the SDK asks for the bucket's settings in a thread of its own, for traces that nobody has switched on.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

RETRY_S = 60.0  # how long a request is repeated while the network or Google is in trouble
RETRY_DELAYS_S = (0.2, 8.0)  # the first and the longest pause between two tries, jittered
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0  # of silence, not of transfer


def patience(retry_s: float) -> dict[str, Any]:
    """How the SDK shall call: options of every method. Only for what may be repeated."""
    first_s, longest_s = RETRY_DELAYS_S
    return {
        "retry": DEFAULT_RETRY.with_delay(first_s, longest_s, 2.0).with_timeout(retry_s),
        "timeout": (min(CONNECT_TIMEOUT_S, retry_s), min(READ_TIMEOUT_S, retry_s)),
    }


def keeper(project: str | None) -> Client:
    """A client that may make buckets. Raises StoreUnavailable when there is no telling in which project."""
    with contextlib.suppress(OSError):  # so says the SDK that it found no project
        client = Client(project=project) if project else Client()
        if client.project:
            return client
    raise StoreUnavailable(
        "no project to make a bucket in: give one, set GOOGLE_CLOUD_PROJECT, or `gcloud config set project PROJECT`"
    )


@contextlib.contextmanager
def translated(bucket: str, retry_s: float, role: str = gcs_errors.ROLE) -> Iterator[None]:
    """Raises this package's errors instead of the SDK's."""
    try:
        yield
    except (RetryError, TransportError, RequestException, ConnectionError) as exc:
        raise gcs_errors.unreachable(bucket, getattr(exc, "cause", None) or exc, retry_s) from exc
    except GoogleAuthError as exc:
        raise gcs_errors.no_credentials(exc) from exc
    except GoogleAPICallError as exc:
        raise gcs_errors.answered(bucket, exc.code, exc.message, role) from exc
    except (DataCorruption, InvalidResponse) as exc:
        raise StoreError(f"gs://{bucket}: {exc}") from exc


def signer(client: Client) -> dict[str, str]:
    """What signing needs besides the client's credentials: nothing, if there is a key in them."""
    credentials = client._credentials
    if isinstance(credentials, Signing):
        return {}
    if not hasattr(credentials, "service_account_email"):
        raise StoreUnavailable(
            "a signed address needs a service account's credentials: run `gcloud auth application-default login"
            " --impersonate-service-account=ACCOUNT`, or set GOOGLE_APPLICATION_CREDENTIALS to its key"
        )
    credentials.refresh(Request())  # the metadata server tells the account's name only now
    return {"service_account_email": credentials.service_account_email, "access_token": credentials.token}
