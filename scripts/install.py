"""The part of scripts/install that runs once a suitable Python is found. Standard library only.

The stamp in .venv says what was installed there; while it fits, there is nothing to do. A .venv without one was
interrupted, and is made again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "nightreel-install.json"
REQUIREMENTS = "requirements-cpu.txt"
REQUIREMENTS_DEV = "requirements-dev.txt"  # includes the other

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE = ("--timeout", "10", "--retries", "1")

# Measured with the pinned set; only ever announced, with "about".
LINUX_MB, MACOS_MB, DEV_MB, CUDA_MB = 400, 250, 35, 3000

OTHER_PYTHON = "Or put another Python (3.11, 3.12 or 3.13) first on PATH: it may have a build"

NEEDS_NEW_VENV = 3  # exit status, known to scripts/install
INTERRUPTED = 130

HELP = """Makes .venv in the repository's root, with Nightreel in it, for work on a CPU (for a GPU: requirements.txt).
Takes the first suitable Python of python3, python3.13, python3.12 and python3.11; delete .venv to change it.
Run it as often as you like: while requirements and pyproject.toml stay the same, it does nothing."""


class InstallError(Exception):
    """Raised when there is nothing more to try; the message says what the user can do."""


@dataclass(frozen=True)
class Stamp:
    """What a finished .venv was made of."""

    root: str
    """Where: programs in .venv name their Python by its full path."""
    python: str
    dev: bool
    inputs: str
    """Hash of the requirement files and of pyproject.toml's packaging half."""

    def fits(self, wanted: Stamp) -> bool:
        """An environment with the development tools also does for those who do not want them."""
        return self in (wanted, Stamp(wanted.root, wanted.python, True, wanted.inputs))


def main() -> int:
    options = parse_arguments()
    try:
        with only_one_at_a_time():
            return bring_up_to_date(options)
    except InstallError as error:
        print(f"nightreel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nightreel: interrupted; scripts/install starts over the next time.", file=sys.stderr)
        return INTERRUPTED


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/install", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dev", action="store_true", help="with the tools for tests and checks")
    parser.add_argument(
        "--allow-cuda",
        action="store_true",
        default=os.environ.get("NIGHTREEL_ALLOW_CUDA") == "1",
        help=f"where no CPU build of torch can be had, take the one that brings about {CUDA_MB / 1000:.0f} GB of CUDA "
        "(also: NIGHTREEL_ALLOW_CUDA=1)",
    )
    parser.add_argument("--update", action="store_true", help=argparse.SUPPRESS)  # runs on .venv's own Python
    return parser.parse_args()


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two calls at once would write into each other's .venv: the second waits, and finds nothing left to do."""
    with (ROOT / "pyproject.toml").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bring_up_to_date(options: argparse.Namespace) -> int:
    found = read_stamp()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    dev = options.dev or (found is not None and found.dev)
    wanted = Stamp(str(ROOT), python, dev, hash_of_inputs())
    if found is not None and found.fits(wanted):
        return 0
    if not options.update:
        make_anew(wanted, allow_cuda=options.allow_cuda)
    elif found is not None and (found.root, found.python) == (wanted.root, wanted.python):
        update(wanted, allow_cuda=options.allow_cuda)
    else:
        return NEEDS_NEW_VENV
    STAMP.write_text(json.dumps(asdict(wanted)))
    say("ready. Its programs are in .venv/bin.")
    return 0


def read_stamp() -> Stamp | None:
    try:
        return Stamp(**json.loads(STAMP.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def hash_of_inputs() -> str:
    """A changed linter setting is no reason to install anything, so of pyproject.toml only what pip reads counts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tool = project.get("tool", {}).get("hatch", {})
    packaging = json.dumps([project.get("build-system"), project.get("project"), tool], sort_keys=True)
    files = [(ROOT / name).read_text() for name in (REQUIREMENTS, REQUIREMENTS_DEV)]
    return hashlib.sha256("\0".join([packaging, *files]).encode()).hexdigest()


def make_anew(wanted: Stamp, *, allow_cuda: bool) -> None:
    again = " again: the last installation was not finished here, or not for this place" if VENV.exists() else ""
    say(f"making {VENV} with Python {wanted.python}{again}.")
    try:
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "Python could not make a virtual environment")
        torch = choose_torch(allow_cuda=allow_cuda)
        say(f"{announcement(wanted, torch)}. This takes a few minutes.")
        install(wanted, torch)
    except BaseException:  # half an environment looks like one, so it goes, also on Ctrl-C
        shutil.rmtree(VENV, ignore_errors=True)
        raise


def update(wanted: Stamp, *, allow_cuda: bool) -> None:
    """In place: only what differs is downloaded."""
    try:
        has_torch = version("torch").partition("+")[0] == pinned_torch()
    except PackageNotFoundError:
        has_torch = False
    torch = Torch("installed") if has_torch else choose_torch(allow_cuda=allow_cuda)
    changes = f"only what changed, as a rule {DEV_MB} MB or less, to download"
    say(f"bringing .venv up to date: {changes if has_torch else announcement(wanted, torch)}.")
    install(wanted, torch)


@dataclass(frozen=True)
class Torch:
    """A build of torch, and how pip finds it."""

    kind: str
    size_mb: int = 0
    """All that it brings with it included, and all else that Nightreel needs."""
    index: str = ""
    """To be used for torch alone; empty for pip's usual places."""

    def __str__(self) -> str:
        return f"{self.kind}{f' from {self.index}' if self.index else ''}"


def choose_torch(*, allow_cuda: bool) -> Torch:
    """The CPU build wherever there is one: on Linux the usual one needs gigabytes of CUDA; elsewhere all are for CPUs."""
    if sys.platform != "linux":
        return Torch("build for macOS", MACOS_MB)
    pin = pinned_torch()
    usual = versions_of_torch()
    if f"{pin}+cpu" in usual:
        return Torch("CPU build", LINUX_MB)
    if f"{pin}+cpu" in versions_of_torch("--index-url", CPU_INDEX):
        return Torch("CPU build", LINUX_MB, CPU_INDEX)
    machine = f"Python {platform.python_version()} on {platform.machine()}"
    if not usual:
        raise InstallError(
            f"pip finds no torch at all for {machine}, neither in its usual places nor at {CPU_INDEX}. Is this machine "
            "online? Check the network and pip's settings (pip config list), then run scripts/install again."
        )
    if pin not in usual:
        raise InstallError(f"there is no torch {pin} for {machine}. {OTHER_PYTHON}.")
    if not allow_cuda:
        raise InstallError(
            f"no CPU build of torch {pin} can be had for {machine}: pip's usual places have only the one with CUDA, about "
            f"{(LINUX_MB + CUDA_MB) / 1000:.1f} GB to download in all instead of {LINUX_MB} MB, and {CPU_INDEX} cannot be "
            f"reached or has none. Make it reachable; or run scripts/install --allow-cuda. {OTHER_PYTHON}."
        )
    return Torch("CUDA build", LINUX_MB + CUDA_MB)


def pinned_torch() -> str:
    match = re.search(r"^torch==(\S+)", (ROOT / REQUIREMENTS).read_text(), re.MULTILINE)
    if match is None:
        raise InstallError(f"{REQUIREMENTS} has no line torch==VERSION. Restore it with git checkout {REQUIREMENTS}.")
    return match[1]


def versions_of_torch(*options: str) -> set[str]:
    """What pip could install here, found without downloading it (a dry run downloads every wheel)."""
    result = pip("index", "versions", "torch", *PROBE, *options)
    listed = re.search(r"^Available versions: (.+)$", result.stdout, re.MULTILINE)
    return set(listed[1].split(", ")) if listed else set()


def announcement(wanted: Stamp, torch: Torch) -> str:
    size_mb = torch.size_mb + (DEV_MB if wanted.dev else 0)
    size = f"{size_mb} MB" if size_mb < 1000 else f"{size_mb / 1000:.1f} GB"
    return f"about {size} to download, less what pip has already, with torch {pinned_torch()} ({torch})"


def install(wanted: Stamp, torch: Torch) -> None:
    failure = "pip could not install everything"
    if torch.index:
        options = ["--no-deps", "--index-url", torch.index, f"torch=={pinned_torch()}+cpu"]
        check(pip("install", *options), failure)
    requirements = ROOT / (REQUIREMENTS_DEV if wanted.dev else REQUIREMENTS)
    check(pip("install", "--requirement", str(requirements), "--editable", str(ROOT)), failure)


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(command: list[str], failure: str) -> None:
    check(subprocess.run(command, capture_output=True, text=True, check=False), failure)


def check(result: subprocess.CompletedProcess[str], failure: str) -> None:
    if result.returncode != 0:
        raise InstallError(
            f"{failure}; its last lines:\n{last_lines(result, 8)}\n"
            "Check the network, the room on the disk and pip's settings (pip config list), then run scripts/install again."
        )


def last_lines(result: subprocess.CompletedProcess[str], count: int) -> str:
    lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-count:])


def say(text: str) -> None:
    print(f"nightreel: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
