"""A folder as a bucket: objects are plain files that a person opens, and every put is whole or not there at all.

    ROOT/NAME                              the content
    ROOT/.nightreel/objects/NAME~.json     the sidecar: the entry, and where its content was staged
    ROOT/.nightreel/staged/                content and sidecars on their way
    ROOT/.nightreel/workers/               logs of the workers that this machine's dispatcher started
    ROOT/.nightreel/lock                   one writer at a time commits; the kernel frees it when a process dies

A put copies the content into `staged`, then, under the lock, moves a sidecar that names the staged file into place:
from that instant on the put has happened. The staged file is moved to its place next; when the writer dies before that,
whoever meets the sidecar moves it ("rolls forward"). So a kill at any instant leaves the old object or the new one.

People may change the folder by hand. A file without a sidecar, or with another content than its sidecar says, is an
object that Nightreel did not put: no sha256, no metadata, its time as generation, and nothing overwrites it unasked.
A file that was deleted is an object that is absent. Symbolic links are no objects and lead to none.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from .base import ABSENT, Entry, check_name
from .disk import chunks, copy, make_folders, remove_empty_folders, sync_folder, translated, write_new
from .errors import BadName, Conflict, NotFound, StoreError
from .sidecar import SUFFIX, Found, Sidecar, read_sidecar

STAGED_MAX_AGE_S = 86400.0  # what lies in `staged` for longer was left by a writer that died

_PRIVATE = ".nightreel"


class FolderStore:
    """The store in the folder `root`, which is made when there is none. Raises StoreUnavailable."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._objects = self._root / _PRIVATE / "objects"
        self._staged = self._root / _PRIVATE / "staged"
        self._lock = self._root / _PRIVATE / "lock"
        self._holder = threading.local()
        with translated(self._root):
            make_folders(self._objects)
            make_folders(self._staged)
        with contextlib.suppress(OSError, StoreError):  # a courtesy: a folder that cannot be swept can still be read
            self._sweep()

    @staticmethod
    def may_be_at(root: Path) -> bool:
        """Has somebody opened a store in this folder before? True for a file, which nobody can: opening it says why."""
        return root.is_file() or os.path.lexists(root / _PRIVATE / "objects")

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
        """As in the contract. Raises BadName, too, where a file and a folder would have to bear the same name."""
        self._check(name)
        content: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with content, translated(self._root, content.seek(0, os.SEEK_END)):
            content.seek(0)
            self._expect(name, generation)  # most conflicts show before anything is copied
            staged = self._staged / uuid.uuid4().hex
            try:
                found, sha256 = write_new(staged, _ticking(chunks(content), tick))
                sync_folder(self._staged)
                with self._locked():
                    sidecar = Sidecar(
                        generation=max(self._expect(name, generation) + 1, time.time_ns()),
                        replaces=generation,
                        size_bytes=found.st_size,
                        sha256=sha256,
                        content_type=content_type,
                        metadata=dict(metadata or {}),
                        staged=staged.name,
                    )
                    self._commit(name, sidecar)
            except BaseException:
                self._discard(name, staged)
                raise
        return sidecar.entry(name)

    def head(self, name: str) -> Entry | None:
        self._check(name)
        with translated(self._root):
            entry = self._look(name)
            if entry is None:
                self._must_exist()
            return entry

    def get(self, name: str) -> tuple[bytes, Entry]:
        content = io.BytesIO()
        entry = self._copy_out(name, content)
        return content.getvalue(), entry

    def fetch(self, name: str, path: Path) -> Entry:
        """As in the contract. Raises OSError when it is `path` that cannot be written."""
        with path.open("wb") as file:
            try:
                return self._copy_out(name, file)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """As in the contract, one folder at a time. Leaves out the store's own files and the queue's."""
        folder = prefix[: prefix.rfind("/") + 1]  # the folders above it may hold any number of others
        with translated(self._root):
            self._must_exist()
            if not folder or self._may_hold(folder.removesuffix("/")):
                yield from self._walk(folder, prefix)

    def delete(self, name: str, *, generation: int) -> None:
        """As in the contract. The content goes first: a sidecar without one is an object that is absent."""
        self._check(name)
        with translated(self._root), self._locked():
            self._expect(name, generation)
            self._data(name).unlink()
            self._sidecar(name).unlink(missing_ok=True)
            remove_empty_folders(self._sidecar(name).parent, self._objects)
            remove_empty_folders(self._data(name).parent, self._root)

    def url(self, name: str) -> str:
        self._check(name)
        return str(self._data(name))

    # Putting

    def _expect(self, name: str, generation: int) -> int:
        """The newest generation that `name` ever had, if its object is at `generation` now. Raises Conflict."""
        self._check_place(name)
        entry = self._look(name)
        if entry and generation not in (ABSENT, entry.generation):
            with contextlib.suppress(NotFound):  # a change by hand that kept the size shows in the content alone
                entry = self._copy_out(name, io.BytesIO())
        current = entry.generation if entry else ABSENT
        if current != generation:
            is_now = f"is at generation {current}" if current else "does not exist"
            expected = f"generation {generation}" if generation else "no object"
            raise Conflict(f"{name} {is_now}, expected was {expected}: somebody else was first")
        sidecar = read_sidecar(self._sidecar(name))  # an object that was deleted by hand still has one
        return max(current, sidecar.generation if sidecar else ABSENT)

    def _commit(self, name: str, sidecar: Sidecar) -> None:
        """Put staged content in its place. Needs the lock."""
        (self._staged / sidecar.staged).stat()  # still there, even if this writer slept for a day
        try:
            self._write_sidecar(name, sidecar)
            placed = self._roll_forward(name, sidecar)
        except OSError:
            if sidecar.replaces == ABSENT and self._is_pending(sidecar):
                # Taken back: nobody has seen it, for seeing it takes the lock that is ours.
                self._sidecar(name).unlink(missing_ok=True)
            remove_empty_folders(self._sidecar(name).parent, self._objects)
            remove_empty_folders(self._data(name).parent, self._root)
            raise
        if not placed:
            raise Conflict(f"{name}: somebody placed a file of that name by hand just now")

    def _write_sidecar(self, name: str, sidecar: Sidecar) -> None:
        """The commit point: the sidecar appears under its name, and all that it speaks of is on the disk already."""
        path = self._sidecar(name)
        make_folders(path.parent)
        make_folders(self._data(name).parent)
        draft = self._staged / f"{sidecar.staged}.json"
        try:
            write_new(draft, iter([sidecar.model_dump_json().encode()]))
            os.replace(draft, path)  # noqa: PTH105 - os.replace is where the tests kill
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    def _roll_forward(self, name: str, sidecar: Sidecar) -> bool:
        """Move staged content to its place; False when something was placed there by hand. Needs the lock."""
        staged, data = self._staged / sidecar.staged, self._data(name)
        if sidecar.replaces == ABSENT and os.path.lexists(data):
            staged.unlink()
            return False
        make_folders(data.parent)
        os.replace(staged, data)  # noqa: PTH105 - as above
        sync_folder(data.parent)
        return True

    def _discard(self, name: str, staged: Path) -> None:
        """Remove what a failed put has staged, unless it was committed before it failed."""
        with contextlib.suppress(OSError, StoreError):
            sidecar = read_sidecar(self._sidecar(name))
            if sidecar is None or sidecar.staged != staged.name:
                staged.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what writers that died left in `staged`; what they had committed goes to its place instead."""
        too_old = time.time() - STAGED_MAX_AGE_S
        leftovers = [file for file in self._staged.iterdir() if file.stat().st_mtime < too_old]
        if not leftovers:
            return
        with self._locked():
            for path in self._objects.rglob(f"*{SUFFIX}"):
                sidecar = read_sidecar(path)
                if sidecar and self._is_pending(sidecar):
                    self._roll_forward(path.relative_to(self._objects).as_posix().removesuffix(SUFFIX), sidecar)
            for file in leftovers:
                file.unlink(missing_ok=True)

    # Looking

    def _look(self, name: str) -> Entry | None:
        """The object's entry. Without the lock: a sidecar that is the same before and after saw no put in between."""
        while True:
            sidecar = self._settled(name)
            found = self._find(name)
            if sidecar and found and found.is_of(sidecar):
                return sidecar.entry(name)
            if read_sidecar(self._sidecar(name)) == sidecar:
                return found.placed_by_hand(name, sidecar) if found else None

    def _copy_out(self, name: str, target: IO[bytes]) -> Entry:
        """Like `_look`, and the content is read on the way."""
        self._check(name)
        while True:
            with translated(self._root):
                sidecar = self._settled(name)
            found = self._read(name, target)  # trouble with the target is no trouble of the store's
            with translated(self._root):
                if sidecar and found and found.is_of(sidecar):
                    return sidecar.entry(name)
                if read_sidecar(self._sidecar(name)) == sidecar:
                    if found:
                        return found.placed_by_hand(name, sidecar)
                    self._must_exist()
                    raise NotFound(f"{name}: there is no such object in {self._root}")

    def _settled(self, name: str) -> Sidecar | None:
        """The sidecar, its content being in its place."""
        sidecar = read_sidecar(self._sidecar(name))
        if sidecar is None or not self._is_pending(sidecar):
            return sidecar
        with self._locked():
            sidecar = read_sidecar(self._sidecar(name))
            if sidecar and self._is_pending(sidecar):
                self._roll_forward(name, sidecar)
            return sidecar

    def _is_pending(self, sidecar: Sidecar) -> bool:
        return os.path.lexists(self._staged / sidecar.staged)

    def _find(self, name: str) -> Found | None:
        try:
            found = os.lstat(self._data(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Found(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def _read(self, name: str, target: IO[bytes]) -> Found | None:
        target.seek(0)
        target.truncate()
        with contextlib.ExitStack() as stack:
            with translated(self._root):
                if self._find(name) is None:
                    return None
                try:
                    file = stack.enter_context(self._data(name).open("rb"))
                except FileNotFoundError:  # deleted since
                    return None
            sha256 = copy(self._chunks(file), target)
            return Found(target.tell(), os.fstat(file.fileno()).st_mtime_ns, sha256)

    def _chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        with translated(self._root):
            yield from chunks(file)

    def _walk(self, folder: str, prefix: str) -> Iterator[Entry]:
        for key in sorted(self._children(folder)):
            name = folder + key
            if name.endswith("/"):
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(name, prefix)
            elif name.startswith(prefix) and (entry := self._look(name)):
                yield entry

    def _children(self, folder: str) -> set[str]:
        """Names of files, and of folders with a "/" behind them so that they sort as the names below them do.

        Both trees are read: content that was committed but not yet moved has only a sidecar.
        """
        keys = set()
        for place in (self._root, self._objects):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place / folder) as items:
                for item in items:
                    if item.is_dir(follow_symlinks=False):
                        keys.add(item.name + "/")
                    elif item.is_file(follow_symlinks=False):
                        keys.add(item.name.removesuffix(SUFFIX) if place is self._objects else item.name)
        return {key for key in keys if _is_name(folder + key.removesuffix("/"))}

    def _may_hold(self, folder: str) -> bool:
        """Could objects be in a folder of that name? Never behind a link, nor among the store's own files."""
        places = (self._root / folder, self._objects / folder)
        return _is_name(folder) and all(os.path.realpath(place) == str(place) for place in places)

    def _must_exist(self) -> None:
        """A folder that is gone has no objects, but must not pass for an empty one: raises FileNotFoundError."""
        self._staged.stat()

    # Names and places

    def _data(self, name: str) -> Path:
        return self._root / name

    def _sidecar(self, name: str) -> Path:
        return self._objects / (name + SUFFIX)

    def _check(self, name: str) -> None:
        check_name(name)
        if _is_reserved(name):
            raise BadName(f"{name} is a file of the store's or the queue's own: choose another name")
        if os.path.realpath(self._data(name)) != str(self._data(name)):
            raise BadName(
                f"{name} leads through a symbolic link in {self._root}: only the store's folder itself may be one"
            )

    def _check_place(self, name: str) -> None:
        data = self._data(name)
        if data.is_dir():
            raise BadName(f"{name} cannot be put, for {data} is a folder: choose another name")
        for folder in data.parents:
            if folder == self._root:
                break
            if os.path.lexists(folder) and not folder.is_dir():
                raise BadName(f"{name} cannot be put, for {folder} is a file and not a folder: choose another name")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Have the lock; a thread that has it may ask again, and does when it meets what a dead writer committed."""
        if getattr(self._holder, "has_it", False):
            yield
            return
        with self._lock.open("ab") as lock:  # a descriptor of one's own: flock then locks out threads, too
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._holder.has_it = True
            try:
                yield
            finally:
                self._holder.has_it = False


def _ticking(source: Iterator[bytes], tick: Callable[[], None]) -> Iterator[bytes]:
    for chunk in source:
        tick()
        yield chunk


def _is_reserved(name: str) -> bool:
    first, _, rest = name.casefold().partition("/")  # some file systems take .Nightreel for .nightreel
    own = rest.partition("/")[0]
    return first == _PRIVATE and (own in {"objects", "staged", "lock", "workers"} or own.startswith("queue.db"))


def _is_name(name: str) -> bool:
    try:
        return not _is_reserved(check_name(name))
    except BadName:
        return False
