"""Workers as processes of this machine, `nightreel work`, each with a log file; they outlive the dispatcher.

A worker is up while its log file is locked. The lock (flock) is taken before the worker is started, and belongs to the open
file, which is the worker's standard output: it ends with the worker and its children, however they end, and needs no pid,
which may be somebody else's by now. So workers are found again by whoever looks into the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .base import Execution, LauncherUnavailable, NotAllowed, Refused

WORK = (sys.executable, "-m", "nightreel", "work")
KEPT_S = 3600.0  # that a worker is told of after its end
KEPT_LOGS = 20
TAIL_BYTES = 4096


class _Note(BaseModel):
    """What is known of a worker: `ID.json` beside `ID.log`."""

    model_config = ConfigDict(frozen=True)

    wake: str
    started_at: float
    pid: int = 0
    """0 when whoever started it was killed before it could write that down."""


class Processes:
    """Starts workers for one queue and one store."""

    name = "process"

    def __init__(self, folder: Path, environment: Mapping[str, str], command: Sequence[str] = WORK) -> None:
        """folder: for logs. environment: all that workers get; NIGHTREEL_WAKE_ID and NIGHTREEL_ROUTE are added."""
        self._folder, self._environment, self._command = folder, environment, command
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """As in the protocol."""
        started: list[str] = []
        for _ in range(count):
            try:
                started.append(self._start(wake, reason))
            except OSError as exc:
                if started:
                    break
                raise Refused(f"{self._folder} or {self._command[0]} cannot be used: {exc.strerror}") from exc
        return started

    def executions(self) -> Sequence[Execution]:
        """As in the protocol."""
        for child in self._children:
            child.poll()  # lets those go that have ended
        try:
            logs = sorted(self._folder.glob("*.log")) if self._folder.exists() else []
        except OSError as exc:
            raise LauncherUnavailable(f"{self._folder} cannot be read: {exc.strerror}") from exc
        found = [execution for log in logs if (execution := self._execution(log))]
        self._clear(found)
        return [each for each in found if each.is_up or time.time() - (each.ended_at or 0.0) < KEPT_S]

    def cancel(self, id: str) -> None:
        """As in the protocol: SIGTERM, after which a worker gives back what it has."""
        log = self._folder / f"{id}.log"
        note = _read(log)
        if note is None:
            raise NotAllowed(f"there is no worker {id}; see: nightreel workers")
        if not _is_locked(log):
            return
        if not note.pid:
            raise NotAllowed(f"the process of {id} is not known: look for it with: fuser {log}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(note.pid, signal.SIGTERM)

    def _start(self, wake: str, reason: str) -> str:
        """The log has its name only when it is locked: until then nobody sees it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        id_ = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{uuid.uuid4().hex[:8]}"
        log = self._folder / f"{id_}.log"
        hidden = log.with_suffix(".new")
        with hidden.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _write(log, _Note(wake=wake, started_at=now))
            hidden.rename(log)
            try:
                child = self._spawn(file.fileno(), {"NIGHTREEL_WAKE_ID": wake, "NIGHTREEL_ROUTE": reason})
            except OSError:
                _forget(log)
                raise
        self._children.append(child)
        _write(log, _Note(wake=wake, started_at=now, pid=child.pid))
        return id_

    def _spawn(self, output: int, told: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """In a session of its own: the signals of a terminal do not reach it."""
        return subprocess.Popen(
            self._command,
            env={**self._environment, **told},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _execution(self, log: Path) -> Execution | None:
        note = _read(log)
        if note is None:
            return None
        if _is_locked(log):
            return Execution(log.stem, "running", note.started_at, note.wake, words=f"log: {log}")
        try:
            ended_at, said = log.stat().st_mtime, _last_words(log)
        except OSError:
            return None  # somebody cleared it away
        code = next((child.returncode for child in self._children if child.pid == note.pid), None)
        words = f"{said} (log: {log})"
        return Execution(log.stem, "failed" if code else "ended", note.started_at, note.wake, ended_at, words)

    def _clear(self, found: Sequence[Execution]) -> None:
        """The oldest logs go."""
        over = [each for each in found if not each.is_up]
        for each in sorted(over, key=lambda each: each.started_at)[:-KEPT_LOGS]:
            _forget(self._folder / f"{each.id}.log")


def _is_locked(log: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _note(log: Path) -> Path:
    return log.with_suffix(".json")


def _read(log: Path) -> _Note | None:
    try:
        return _Note.model_validate_json(_note(log).read_bytes())
    except (OSError, ValidationError):
        return None  # somebody cleared it away, or a disk was full


def _write(log: Path, note: _Note) -> None:
    new = log.with_suffix(".json.new")
    new.write_text(note.model_dump_json())
    new.replace(_note(log))


def _forget(log: Path) -> None:
    for path in (log, _note(log)):
        path.unlink(missing_ok=True)


def _last_words(log: Path) -> str:
    """Why the worker left, or else what it said last, for people."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    said = [_fields(line) for line in lines]
    ended = next((each.get("why") for each in reversed(said) if each.get("message") == "run_ended"), None)
    if ended is None and said:
        ended = said[-1].get("reason") or said[-1].get("message") or lines[-1]
    return str(ended or "it said nothing")[:300]


def _fields(line: str) -> dict[str, Any]:
    """Of a line of the log; none of what others have written there."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}
