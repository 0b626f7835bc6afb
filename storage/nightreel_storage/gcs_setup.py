"""Makes a bucket ready for Nightreel: one way to grant access, and rules that clear away what nobody needs any more."""

from __future__ import annotations

from typing import Any

from .gcs_address import GcsAddress
from .gcs_sdk import RETRY_S, keeper, patience, translated
from .keeping import KEEP_DAYS

_ROLE = "roles/storage.admin"


def setup_bucket(url: str, location: str, *, project: str | None = None, retry_s: float = RETRY_S) -> None:
    """Make the bucket of a store's address if it is missing, with uniform access and our lifecycle rules.

    Changes nothing that is right already. Rules for other prefixes stay; a bucket that exists stays at its location.
    `project` is where a missing bucket is made; the credentials' own by default. Raises StoreUnavailable.
    """
    address, options = GcsAddress.parse(url), patience(retry_s)
    with translated(address.bucket, retry_s, _ROLE):
        client = keeper(project)
        bucket = client.lookup_bucket(address.bucket, **options)
        if bucket is None:
            draft = client.bucket(address.bucket)
            _arrange(draft, address.prefix)
            client.create_bucket(draft, location=location, **options)
        elif _arrange(bucket, address.prefix):
            # A change by somebody else in between is not undone: then this is refused, and may be run again.
            bucket.patch(if_metageneration_match=bucket.metageneration, **options)


def _arrange(bucket: Any, prefix: str) -> bool:
    """Set what we want of a bucket, locally; returns whether that changed anything."""
    rules = [dict(rule) for rule in bucket.lifecycle_rules]
    wanted = _rules(prefix)
    ours = {target for rule in wanted for target in _targets(rule)}
    arranged = [rule for rule in rules if not ours.issuperset(_targets(rule) or [""])] + wanted
    access = bucket.iam_configuration
    if arranged == rules and access.uniform_bucket_level_access_enabled:
        return False
    bucket.lifecycle_rules = arranged
    access.uniform_bucket_level_access_enabled = True
    return True


def _rules(prefix: str) -> list[dict[str, Any]]:
    return [
        {"action": {"type": "Delete"}, "condition": {"age": days, "matchesPrefix": [prefix + folder]}}
        for folder, days in KEEP_DAYS.items()
    ]


def _targets(rule: dict[str, Any]) -> list[str]:
    targets: list[str] = rule["condition"].get("matchesPrefix", [])
    return targets
