"""As much of the Gemini API's video generation as ordering a clip needs, as a process of its own.

`python gemini_server.py PORT FOLDER`. Shapes and names are those that google-genai 2.34 reads and writes in its Developer API
mode: `_GenerateVideosParameters_to_mldev`, `_GenerateVideosOperation_from_mldev`, `_GenerateVideosResponse_from_mldev`,
`Files.download`. What it is asked is appended to FOLDER/asked.log, one line of JSON a request. Operations are kept in FOLDER,
so that it may be killed and started again. Words in a prompt make trouble:

    quota once, busy once    429 with Retry-After, 503; then all is well
    quota                    429 for ever
    refuse the order         400
    refuse the clip          an operation that the safety filter ends
    break                    an operation that ends with an error
    never                    an operation that does not end
    forget                   an operation that is not known when it is asked for
    hang up                  takes the order and cuts the connection without an answer
    oops                     takes the order and answers 500
    cut once, cut            a download that breaks off in the middle: the first, or each
    garbage                  a clip that does not decode
    slow                     the answer to the order takes until FOLDER/answer is there
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from proxy import free_port

from nightreel_pipelines.encode import ffmpeg

KEY = "AIzaSy-not-a-real-key"
LOOKS = 2  # that an operation takes until it has ended


class Api(BaseHTTPRequestHandler):
    """One connection. `folder` is set before the server starts."""

    folder: Path
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._knows_the_key() or not self.path.endswith(":predictLongRunning"):
            return
        model = self.path.removeprefix("/v1beta/models/").removesuffix(":predictLongRunning")
        if not model.startswith("veo-"):
            return self._error(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta")
        self._log({"order": body, "model": model})
        prompt = body["instances"][0]["prompt"]
        if ("quota once" in prompt and self._first(prompt)) or prompt == "quota":
            return self._error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", {"Retry-After": "1"})
        if "busy once" in prompt and self._first(prompt):
            return self._error(503, "UNAVAILABLE", "The model is overloaded")
        if "refuse the order" in prompt:
            return self._error(400, "INVALID_ARGUMENT", "The prompt could not be submitted: it violates our policies")
        name = f"models/{model}/operations/{uuid.uuid4().hex[:12]}"
        (self.folder / name.rpartition("/")[2]).write_text(json.dumps({"name": name, "body": body, "looks": 0}))
        if "hang up" in prompt and ("once" not in prompt or self._first(prompt)):
            self.close_connection = True
            return None
        if "oops" in prompt:
            return self._error(500, "INTERNAL", "An internal error has occurred")
        while "slow" in prompt and not (self.folder / "answer").exists():
            time.sleep(0.02)
        return self._answer({"name": name})

    def do_GET(self) -> None:
        if not self._knows_the_key():
            return None
        path = self.path.partition("?")[0].removeprefix("/v1beta/")
        if path.startswith("files/"):
            return self._file(path.removeprefix("files/").removesuffix(":download"))
        if "/operations/" not in path:
            return self._answer({"name": path, "supportedGenerationMethods": ["predictLongRunning"]})
        return self._operation(path)

    def _operation(self, name: str) -> None:
        self._log({"look": name})
        record = self.folder / name.rpartition("/")[2]
        with self.lock:
            found = json.loads(record.read_text())
            found["looks"] += 1
            record.write_text(json.dumps(found))
        prompt = found["body"]["instances"][0]["prompt"]
        if "forget" in prompt:
            return self._error(404, "NOT_FOUND", "Operation not found")
        if found["looks"] < LOOKS or "never" in prompt:
            return self._answer({"name": name, "metadata": {}})
        if "break" in prompt:
            return self._answer({"name": name, "done": True, "error": {"code": 13, "message": "it went wrong"}})
        made: dict[str, Any] = {
            "generatedSamples": [
                {
                    "video": {
                        "uri": f"https://generativelanguage.googleapis.com/v1beta/files/{record.name}:download?alt=media"
                    }
                }
            ]
        }
        if "refuse the clip" in prompt:
            made = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["sensitive words. Support codes: 58061214"]}
        return self._answer({"name": name, "done": True, "response": {"generateVideoResponse": made}})

    def _file(self, name: str) -> None:
        self._log({"download": name})
        body = json.loads((self.folder / name).read_text())["body"]
        prompt, wanted = body["instances"][0]["prompt"], body["parameters"]
        picture = "mandelbrot" if "mandelbrot" in prompt else "testsrc2"
        data = (self.folder / f"{picture}-{wanted['durationSeconds']}.mp4").read_bytes()
        data = b"<html>not a clip" if "garbage" in prompt else data
        is_cut = "cut" in prompt and ("once" not in prompt or self._first(f"cut {prompt}"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if is_cut else data)
        self.close_connection = self.close_connection or is_cut

    def _knows_the_key(self) -> bool:
        if self.headers.get("x-goog-api-key") == KEY:
            return True
        self.rfile.read(0)
        self.close_connection = True
        self._error(403, "PERMISSION_DENIED", "Permission denied: the caller does not have permission")
        return False

    def _first(self, what: str) -> bool:
        with self.lock:
            seen = self.folder / f"seen-{what.replace(' ', '-')}"
            first = not seen.exists()
            seen.touch()
            return first

    def _log(self, asked: dict[str, Any]) -> None:
        with self.lock, (self.folder / "asked.log").open("a") as log:
            log.write(json.dumps(asked) + "\n")

    def _error(self, code: int, status: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer({"error": {"code": code, "message": message, "status": status}}, code, headers)

    def _answer(self, body: dict[str, Any], code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Gemini:
    """Starts it, kills it, and reads what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        for picture in ("testsrc2", "mandelbrot"):
            for seconds in (4, 6):
                make_clip(folder / f"{picture}-{seconds}.mp4", picture, seconds)
        self.start()

    @property
    def settings(self) -> dict[str, str]:
        """Of a worker that uses it."""
        return {
            "model": "gemini-veo",
            "gemini_api_key": KEY,
            "gemini_monthly_usd": "100",
            "gemini_url": f"http://127.0.0.1:{self.port}",
            "gemini_poll_s": "0.1",
        }

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, str(self.port), str(self.folder)])
        for _ in range(1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("it does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def orders(self) -> list[str]:
        """Prompts of the clips that were ordered."""
        return [each["order"]["instances"][0]["prompt"] for each in self._asked("order")]

    def parameters(self) -> list[dict[str, Any]]:
        return [each["order"]["parameters"] for each in self._asked("order")]

    def looks(self) -> list[str]:
        """Names of the operations that were asked for."""
        return [each["look"] for each in self._asked("look")]

    def downloads(self) -> list[str]:
        return [each["download"] for each in self._asked("download")]

    def _asked(self, kind: str) -> list[dict[str, Any]]:
        log = self.folder / "asked.log"
        lines: list[dict[str, Any]] = list(map(json.loads, log.read_text().splitlines())) if log.exists() else []
        return [line for line in lines if kind in line]


def make_clip(path: Path, picture: str, seconds: float, size: str = "128x72") -> None:
    """A small MP4 as Veo's are: H.264, 24 frames a second, BT.709, with sound."""
    pictures = ("-f", "lavfi", "-i", f"{picture}=s={size}:r=24")
    sound = ("-f", "lavfi", "-i", "sine=440")
    colors = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=colorspace=bt709:color_primaries=bt709"
    how = ("-t", str(seconds), "-vf", colors, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")
    subprocess.run([ffmpeg(), "-v", "error", "-y", *pictures, *sound, *how, str(path)], check=True)


if __name__ == "__main__":
    Api.folder = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
