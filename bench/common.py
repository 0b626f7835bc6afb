"""What the benchmarks share: tables, the machine and its programs, and their sections of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from nightreel_pipelines.encode import ffmpeg
from nightreel_pipelines.errors import EncoderFailed

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("torch", "diffusers", "transformers", "opencv-python-headless", "nightreel")
TITLE = "# Benchmarks\n"
WIDTH = 120  # of what is printed, in characters


@dataclass(frozen=True, slots=True)
class Table:
    """Some figures, and how they are to be read."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each as long as `columns`; the first cell says what the row is."""
    notes: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Print it for a person."""
        table = RichTable(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def markdown(self) -> str:
        """The table as it stands in the docs."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows)]
        return "\n\n".join((f"### {self.title}", "\n".join(lines), *self.notes))


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tiny workload, once: shows that the script works")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (default: 3; quick: 1)")
    parser.add_argument(
        "--docs", type=Path, help="file that gets the section (default: docs/benchmarks.md; quick: none)"
    )
    return parser


def publish(name: str, tables: Sequence[Table], asked: argparse.Namespace) -> None:
    """Print the tables of one section, and put it into the docs unless this was only a quick run."""
    console = Console(highlight=False, width=WIDTH)
    for table in tables:
        table.show(console)
    docs = asked.docs or (None if asked.quick else DOCS)
    if docs is not None:
        write_section(docs, name, "\n\n".join((_circumstances(asked), *(table.markdown() for table in tables))))


def write_section(docs: Path, name: str, text: str) -> None:
    """Replace what stands between this benchmark's markers, and nothing else; without markers it goes to the end."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    old = docs.read_text(encoding="utf-8") if docs.exists() else TITLE
    section = f"{begin}\n\n{text}\n\n{end}"
    new, found = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: section, old, flags=re.DOTALL)
    docs.write_text(new if found else f"{old.rstrip()}\n\n{section}\n", encoding="utf-8")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def count(rounds: Sequence[object]) -> str:
    return "1 round" if len(rounds) == 1 else f"{len(rounds)} rounds"


def seconds(values: Sequence[float]) -> str:
    """The median of some seconds, as a cell."""
    return f"{median(values):.2f} s"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median of some ratios with the least and the greatest, as a cell."""
    low, high = min(values), max(values)
    return f"{median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _circumstances(asked: argparse.Namespace) -> str:
    now = dt.datetime.now(dt.UTC)
    return f"`{_command(asked)}`, {now:%Y-%m-%d}.\n\nMachine: {_machine()}.\n\nVersions: {_versions()}."


def _command(asked: argparse.Namespace) -> str:
    """What to type for the same again; where the docs lie is this machine's own affair."""
    flags = [
        (flag, value) for flag, value in sorted(vars(asked).items()) if flag != "docs" and value not in (None, False)
    ]
    said = [f"--{flag.replace('_', '-')}" + ("" if value is True else f" {value}") for flag, value in flags]
    return " ".join((f"python bench/{Path(sys.argv[0]).name}", *said))


def _machine() -> str:
    """CPU, cores, memory; how busy it was says how far absolute times can be trusted."""
    model = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    cpu = model[1].strip() if model else platform.machine()
    memory_gb = f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "memory unknown"
    not_used = "" if Path(sys.argv[0]).stem == "gpu" else " that was not used"
    gpu = f"a GPU{not_used}" if Path("/dev/nvidia0").exists() else "no GPU"
    return f"{cpu}, {os.cpu_count()} cores, {memory_gb}, {gpu}; load average {os.getloadavg()[1]:.1f} at the end"


def _versions() -> str:
    versions = [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]
    try:
        said = subprocess.run([ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout
    except EncoderFailed:  # bench/gpu.py needs none
        return ", ".join(versions)
    return ", ".join([*versions, f"ffmpeg {said.split()[2]}"])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else ""
