"""Render examples/gallery.yaml and make the pictures of docs/gallery.md from its videos.

    python scripts/gallery.py                   # into docs/images
    python scripts/gallery.py --out FOLDER      # elsewhere, to compare

Each job is one contact sheet, `FOLDER/NAME.jpg` for the job `FOLDER-NAME`: some of its frames, from left to right and then
down, as they came out of the MP4. Of a transition every shared frame is shown.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "examples" / "gallery.yaml"
IMAGES = ROOT / "docs" / "images"
PORT = 8765  # of the job motions-init
SKETCH = "sketch.jpg"
LARGE, SMALL = (4, 240), (6, 160)  # tiles a row, and a tile's width in pixels: for motions, and for transitions
ROWS, GAP_PX = 2, 4
QUALITY = 82  # of JPEG


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of docs/gallery.md.")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures (default: docs/images)")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        shelf = Path(folder) / "shelf"
        shelf.mkdir()
        sketch().save(shelf / SKETCH, quality=QUALITY)
        for video in sorted(render(Path(folder), shelf).glob("*/*.mp4")):
            kind, _, name = video.stem.partition("-")
            (out / kind).mkdir(parents=True, exist_ok=True)
            sheet(video, kind).save(out / kind / f"{name}.jpg", quality=QUALITY, optimize=True)
        (out / "motions" / SKETCH).write_bytes((shelf / SKETCH).read_bytes())


def render(folder: Path, shelf: Path) -> Path:
    """Have everything rendered; returns the store. What lies on the shelf is served to the worker meanwhile."""
    store = folder / "store"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=shelf)
    with http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        trusting = {"NIGHTREEL_INPUT_HTTPS": "true", "NIGHTREEL_TRUSTED_HOSTS": f"127.0.0.1:{PORT}"}
        command = (sys.executable, "-m", "nightreel", "render", str(MANIFEST), "--store", str(store))
        subprocess.run(command, env=os.environ | trusting, cwd=folder, check=True)
        server.shutdown()
    return store


def sketch() -> Image.Image:
    """A picture as a person would scribble it, to be drawn over."""
    image = Image.new("RGB", (480, 270), (250, 170, 90))
    pen = ImageDraw.Draw(image)
    pen.ellipse((330, 40, 410, 120), fill=(200, 40, 30))
    pen.polygon([(0, 270), (0, 190), (110, 110), (230, 200), (350, 150), (480, 210), (480, 270)], fill=(50, 80, 160))
    return image


def sheet(video: Path, kind: str) -> Image.Image:
    """Frames of a video side by side: of a transition those around the cut, otherwise evenly from first to last."""
    frames = decoded(video)
    columns, width = SMALL if kind == "transitions" else LARGE
    count = columns * ROWS
    first, last = (0, len(frames) - 1)
    if kind == "transitions":
        first = (len(frames) - count) // 2
        last = first + count - 1
    height = round(width * frames[0].height / frames[0].width)
    page = Image.new("RGB", (columns * (width + GAP_PX) - GAP_PX, ROWS * (height + GAP_PX) - GAP_PX), "white")
    for tile, at in enumerate(np.linspace(first, last, count).round().astype(int)):
        place = (tile % columns * (width + GAP_PX), tile // columns * (height + GAP_PX))
        page.paste(frames[at].resize((width, height), Image.Resampling.LANCZOS), place)
    return page


def decoded(video: Path) -> list[Image.Image]:
    """Every frame."""
    reader, frames = cv2.VideoCapture(str(video)), []
    while (read := reader.read())[0]:
        frames.append(Image.fromarray(np.ascontiguousarray(read[1][:, :, ::-1])))
    reader.release()
    return frames


if __name__ == "__main__":
    main()
