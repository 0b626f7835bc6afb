"""The processes of this machine, as /proc tells them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def processes() -> Sequence[tuple[int, str]]:
    """Live processes and their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if line:
            found.append((int(folder.name), line))
    return found


def works_in(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None  # it ended meanwhile, or is somebody else's
