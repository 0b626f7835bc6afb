"""Manifests in the store's own bucket: dropped under `manifests/`, answered under `replies/`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.names import name_from
from nightreel_storage.base import ABSENT, Store, check_name
from nightreel_storage.errors import BadName, Conflict, NotFound, StoreError

from .inbox import Dropped
from .replies import Reply

MANIFESTS = "manifests/"
REPLIES = "replies/"


class BucketTray:
    """A tray in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, dropped: Dropped, check_size: Callable[[int], None]) -> bytes | None:
        """As in the protocol. Raises InvalidJob for a name that could not be answered."""
        name = MANIFESTS + dropped.name
        try:
            check_name(name)
        except BadName as exc:
            raise InvalidJob([Problem(str(exc), place=dropped.name)]) from exc
        entry = self._store.head(name)
        if entry is None or entry.generation != dropped.generation:
            return None
        if entry.sha256:  # Nightreel's own, of a batch that is called "manifests": no manifest, nor a reply to one
            return None
        check_size(entry.size_bytes)
        try:
            data, entry = self._store.get(name)
        except NotFound:
            return None
        return data if entry.generation == dropped.generation else None

    def reply(self, reply: Reply) -> None:
        name = _reply_name(reply.manifest)
        while True:
            try:
                data, entry = self._store.get(name)
                generation = entry.generation
                if _is_later(data, name, reply):
                    return
            except NotFound:
                generation = ABSENT
            try:
                self._store.put(name, reply.to_bytes(), generation=generation, content_type="application/json")
            except Conflict:
                continue  # a reply to another version came in between
            return


def _is_later(data: bytes, name: str, reply: Reply) -> bool:
    """Is what lies there a reply to a later version?"""
    try:
        return Reply.from_bytes(data, name).generation > reply.generation
    except StoreError:
        return False  # somebody else's file: ours is the answer here


def _reply_name(manifest: str) -> str:
    """`replies/NAME.json`, or one that a store can keep where that cannot be."""
    try:
        return check_name(f"{REPLIES}{manifest}.json")
    except BadName:
        digest = hashlib.sha256(manifest.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{REPLIES}{name_from(PurePosixPath(manifest).stem, 'manifest')}-{digest}.json"
