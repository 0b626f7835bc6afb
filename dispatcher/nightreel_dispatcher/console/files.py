"""Videos and posters of a batch, for a browser that plays and seeks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.background import BackgroundTask

from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound, StoreUnavailable
from nightreel_storage.folder import FolderStore

from ..jobs import Id
from .pages import FOREVER
from .shelf import ShelfOf

LINK_S = 3600.0  # for which a signed address plays
_KEEP = {"Cache-Control": FOREVER.replace("public", "private")}

Version = Annotated[str, Query(pattern=r"^[0-9a-f]{64}$", description="sha256 of the content")]

router = APIRouter()


@runtime_checkable
class Signing(Protocol):
    """A store whose objects a browser can fetch by itself."""

    def signed_url(self, name: str, lifetime_s: float) -> str:
        """Raises StoreUnavailable when it cannot sign."""
        ...


@router.get("/files/{batch}/{job}.mp4")
def video(shelf: ShelfOf, batch: Id, job: Id, v: Version) -> Response:
    """Of a folder from here, in ranges as a player asks for them; of a bucket from the bucket."""
    store, name = shelf.desk.store, f"{batch}/{job}.mp4"
    _check(store, name, v)
    if isinstance(store, FolderStore):
        return FileResponse(store.url(name), media_type="video/mp4", headers=_KEEP)
    if isinstance(store, Signing):
        try:
            return RedirectResponse(store.signed_url(name, LINK_S), 307)
        except StoreUnavailable:
            pass  # credentials that cannot sign: it goes through this machine
    return _copied(store, name)


@router.get("/files/{batch}/{job}.webp")
def poster(shelf: ShelfOf, batch: Id, job: Id, v: Version) -> Response:
    """In small."""
    try:
        content = shelf.thumbs.webp(f"{batch}/{job}.jpg", v)
    except OSError as exc:
        raise NotFound(f"the poster of {batch}/{job} is no picture: {exc}") from exc
    return Response(content, media_type="image/webp", headers=_KEEP)


@router.get("/files/{batch}/{job}.json")
def receipt(shelf: ShelfOf, batch: Id, job: Id) -> Response:
    content, _ = shelf.desk.store.get(f"{batch}/{job}.json")
    return Response(content, media_type="application/json")


def _check(store: Store, name: str, sha256: str) -> None:
    """A browser keeps what it got under this address, so it must be that. Raises NotFound."""
    entry = store.head(name)
    if entry is None or entry.sha256 != sha256:
        raise NotFound(f"{name} is not there, or is another file by now: load the page again")


def _copied(store: Store, name: str) -> Response:
    with tempfile.NamedTemporaryFile(suffix=".mp4", delete=False) as file:
        path = Path(file.name)
    try:
        store.fetch(name, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FileResponse(path, media_type="video/mp4", headers=_KEEP, background=BackgroundTask(path.unlink, True))
