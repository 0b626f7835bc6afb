"""How large the two images are, from the sizes of their wheels: python scripts/image_size.py [--refresh]

A wheel is compressed, as a layer is in a registry, so the sum is about what is pushed, pulled and paid for. Sizes lie in
image_sizes.toml; --refresh asks pip and its package index again (nothing is downloaded but metadata).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tomllib
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = Path(__file__).with_name("image_sizes.toml")
LOCKS = {"worker": "requirements.txt", "dispatcher": "requirements-dispatcher.txt"}
MAX_GB = {"worker": 6.0, "dispatcher": 0.3}
BASE_MB = 60  # python:3.11-slim-bookworm with a user and Nightreel's own wheel; estimated, not measured

HEADER = """# Sizes in bytes of the wheels that the images are made of, for Linux on x86_64 and Python 3.11, as their index tells them.
# Written by: python scripts/image_size.py --refresh

dated = "{dated}"
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What image_sizes.toml holds."""

    dated: dt.date
    images: dict[str, dict[str, int]]
    """Image -> package==version -> bytes of its wheel."""

    def gb(self, image: str) -> float:
        """The image's size in a registry, 10^9 bytes, the base image included."""
        return (sum(self.images[image].values()) + BASE_MB * 1e6) / 1e9


def read_sizes(path: Path = SIZES) -> Sizes:
    found = tomllib.loads(path.read_text())
    return Sizes(dt.date.fromisoformat(found.pop("dated")), found)


def resolve(lock: str) -> dict[str, str]:
    """package==version -> the address of its wheel, as pip would install them into the image."""
    if (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 11)):
        raise SystemExit("--refresh must run on what the images run on: Python 3.11 on Linux, x86_64")
    dry_run = ("install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--report", "-")
    command = [sys.executable, "-m", "pip", *dry_run, "--requirement", str(ROOT / lock)]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    installs = json.loads(result.stdout)["install"]
    return {
        f"{each['metadata']['name'].lower().replace('_', '-')}=={each['metadata']['version']}": each["download_info"][
            "url"
        ]
        for each in installs
    }


def size_bytes(url: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30) as answer:
        return int(answer.headers["Content-Length"])


def refresh() -> None:
    text = HEADER.format(dated=dt.datetime.now(dt.UTC).date())
    for image, lock in LOCKS.items():
        wheels = resolve(lock)
        with ThreadPoolExecutor(4) as pool:
            sizes = dict(zip(wheels, pool.map(size_bytes, wheels.values()), strict=True))
        text += f"\n[{image}]\n" + "".join(f'"{name}" = {sizes[name]}\n' for name in sorted(sizes))
    SIZES.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser("scripts/image_size.py", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="ask the package index again")
    if parser.parse_args().refresh:
        refresh()
    sizes = read_sizes()
    too_large = False
    for image, wheels in sizes.images.items():
        largest = sorted(wheels, key=wheels.__getitem__, reverse=True)[:5]
        parts = ", ".join(f"{name} {wheels[name] / 1e6:.0f} MB" for name in largest)
        print(f"{image}: {sizes.gb(image):.2f} GB of at most {MAX_GB[image]:g} ({sizes.dated}; {parts})")
        too_large = too_large or sizes.gb(image) > MAX_GB[image]
    return int(too_large)


if __name__ == "__main__":
    sys.exit(main())
