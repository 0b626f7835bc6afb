"""What the worker's ComfyUI source costs a keyframe, beside calling ComfyUI's API by hand.

    python bench/comfyui.py [--quick] [--rounds N]

Both ask the same server of the protocol (tests/comfy_server.py), which draws a small card in next to no time: what is left is
the way there and back. By hand is the script that ComfyUI's own examples show: send a prompt, listen, fetch the picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from common import Table, arguments, count, median, publish, spread
from websockets.sync.client import connect

from nightreel_pipelines.comfyui.settings import ComfyuiSettings
from nightreel_pipelines.comfyui.source import ComfyuiSource
from nightreel_pipelines.comfyui.workflow import parse
from nightreel_pipelines.models import load_models
from nightreel_pipelines.recipe import Recipe

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "pipelines/nightreel_pipelines/comfyui/workflows/flux-schnell.json"
PATIENCE_S = 30.0


def main() -> None:
    asked = arguments("What the ComfyUI source costs a keyframe.").parse_args()
    rounds = range(asked.rounds or (1 if asked.quick else 3))
    keyframes = 10 if asked.quick else 200
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as address:
        _by_hand(address, _recipes(2, "first"))
        by_hand, ours = [], []
        for _ in rounds:
            by_hand.append(_by_hand(address, _recipes(keyframes, uuid.uuid4().hex)) / keyframes * 1000)
            ours.append(_ours(address, _recipes(keyframes, uuid.uuid4().hex)) / keyframes * 1000)
    publish("comfyui", (_table(by_hand, ours, keyframes, rounds),), asked)


def _table(by_hand: list[float], ours: list[float], keyframes: int, rounds: range) -> Table:
    ratios = [mine / theirs for mine, theirs in zip(ours, by_hand, strict=True)]
    rows = (
        ("API by hand, one prompt after the other", f"{median(by_hand):.1f} ms", "1"),
        ("nightreel's source", f"{median(ours):.1f} ms", spread(ratios)),
    )
    note = (
        f"{keyframes} keyframes of 96x64, {count(rounds)}; drawing takes next to nothing. The source looks into the history before"
        " it sends, keeps the next prompt waiting at the server, and checks every byte of a picture."
    )
    return Table("ComfyUI: the way there and back", ("who asks", "a keyframe", "ratio"), rows, (note,))


def _recipes(number: int, name: str) -> list[Recipe]:
    return [Recipe("comfyui/1", name, "", f"boat {each}", each, 1, 0.0, 96, 64) for each in range(number)]


def _ours(address: str, recipes: list[Recipe]) -> float:
    source = ComfyuiSource(load_models()["comfyui-schnell"], ComfyuiSettings(servers=address, workflow=str(WORKFLOW)))
    try:
        list(source.keyframes(_recipes(1, uuid.uuid4().hex), {}, lambda: None))  # links and imports
        begun = time.perf_counter()
        assert len(list(source.keyframes(recipes, {}, lambda: None))) == len(recipes)
        return time.perf_counter() - begun
    finally:
        source.close()


def _by_hand(address: str, recipes: list[Recipe]) -> float:
    workflow, client = parse(WORKFLOW.name, WORKFLOW.read_text()), uuid.uuid4().hex
    with connect(f"ws{address.removeprefix('http')}/ws?clientId={client}", compression=None) as listening:
        begun = time.perf_counter()
        for recipe in recipes:
            body = {"prompt": workflow.filled(recipe, "", uuid.uuid4().hex), "client_id": client}
            asked = urllib.request.Request(f"{address}/prompt", json.dumps(body).encode())
            prompt = json.loads(_read(asked))["prompt_id"]
            for message in listening:
                said = json.loads(message) if isinstance(message, str) else {}
                done = {"node": None, "prompt_id": prompt}
                if said.get("type") == "executing" and said["data"] == done:
                    break
            kept = json.loads(_read(f"{address}/history/{prompt}"))[prompt]
            assert _read(f"{address}/view?{urlencode(kept['outputs']['9']['images'][0])}").startswith(b"\x89PNG")
        return time.perf_counter() - begun


def _read(asked: urllib.request.Request | str) -> bytes:
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        data: bytes = answer.read()
    return data


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = (sys.executable, "-m", "comfy_server", str(port), str(folder))
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": paths})
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                _read(f"{address}/system_stats")
                break
            if time.monotonic() > deadline:
                raise SystemExit("the server of the protocol does not start")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
