"""Steps: what is looked at, what is done when it is missing or wrong, and why; carried out, or printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from .settings import DeployError

PAUSES_S = (1, 2, 4, 8, 16, 30)

Command = tuple[str, ...]
State = Literal["undone", "wrong", "done"]

_MISSING = re.compile(
    r"NOT_FOUND|not found|not_found|does not exist|could not be found|Cannot find|HTTPError 404", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that must be so."""

    why: str
    make: Command
    look: Command | None = None
    """Tells, as JSON, what is there; None: `make` may be given any number of times."""
    state: Callable[[Any], State] = lambda found: "undone" if found is None else "done"
    """Of what `look` told; None when it told that there is nothing."""
    mend: Command | None = None
    """When it is wrong; None: `make` mends too."""
    stdin: Callable[[], str] | None = field(default=None, repr=False)
    """What `make` reads: the place for secrets, which are never printed."""


class Hand:
    """Carries commands out, or prints them."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.changes = 0
        self._seen: dict[Command, Any] = {}

    def do(self, step: Step) -> None:
        """Raises DeployError when a command fails."""
        print(f"# {step.why}")
        if self.dry_run:
            self._print(step)
            return
        state = step.state(self.look(step.look)) if step.look else "undone"
        if state == "done":
            print("  is so already")
            return
        command = step.mend if state == "wrong" and step.mend else step.make
        print(f"  {shlex.join(command)}", flush=True)
        self._insist(command, step.stdin() if step.stdin else "")
        if step.look:
            self._seen.pop(step.look, None)  # what is looked at next is what there is now
        self.changes += 1

    @staticmethod
    def _insist(command: Command, stdin: str) -> None:
        """Google needs some seconds until all of it knows an account that was just made."""
        for pause_s in PAUSES_S:
            try:
                run(command, stdin=stdin)
                return
            except Missing:
                print(f"    not known everywhere yet; once more in {pause_s} s", flush=True)
                time.sleep(pause_s)
        run(command, stdin=stdin)

    def _print(self, step: Step) -> None:
        if step.look:
            print(f"#   looks with: {shlex.join(step.look)}")
        if step.mend:
            print(f"#   when it is there and wrong: {shlex.join(step.mend)}")
        print(f"{shlex.join(step.make)}{' < a secret' if step.stdin else ''}")

    def look(self, command: Command) -> Any:
        """What a command tells as JSON; None when it says that there is no such thing. The same one is asked once."""
        if command not in self._seen:
            try:
                text = run((*command, "--format=json"), show=False)
            except Missing:
                text = "null"
            self._seen[command] = json.loads(text or "null")
        return self._seen[command]


class Missing(DeployError):
    """Raised when a command says that what it was asked about is not there."""


def run(command: Command, *, stdin: str = "", show: bool = True) -> str:
    """What the command wrote. Its standard error is shown when it failed, or when `show`. Raises DeployError."""
    try:
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        mend = {"gcloud": "install the Google Cloud CLI", "nightreel": "scripts/install --dev"}.get(command[0], "")
        raise DeployError(f"{command[0]} is not there: {mend}") from None
    if result.returncode != 0:
        kind = Missing if _MISSING.search(result.stderr) else DeployError
        raise kind(f"{shlex.join(command)}\nfailed with exit code {result.returncode}:\n{result.stderr.strip()}")
    if show and result.stderr.strip():
        print("\n".join(f"    {line}" for line in result.stderr.strip().splitlines()), file=sys.stderr)
    return result.stdout


def listed(key: str, value: str, fits: Callable[[Any], bool] = lambda found: True) -> Callable[[Any], State]:
    """The state of the entry of a list whose `key` is `value`, or ends in /value; a dot leads into a field's field."""

    def state(found: Any) -> State:
        for each in found or []:
            its = str(reduce(lambda inside, name: inside.get(name, {}), key.split("."), each))
            if its == value or its.endswith(f"/{value}"):
                return "done" if fits(each) else "wrong"
        return "undone"

    return state


def gone(is_there: Callable[[Any], State]) -> Callable[[Any], State]:
    """The same of something that must not be there."""
    return lambda found: "done" if is_there(found) == "undone" else "undone"


def holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is found; what the server adds of its own does not count.

    Google's JSON has large whole numbers as text, and leaves out what is empty.
    """
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return found == wanted
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(holds(found.get(key, ""), its) for key, its in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(holds, found, wanted))
    return str(found) == str(wanted)
