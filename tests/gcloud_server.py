"""The real gcloud, with its modules loaded once: a command is a fork of this process instead of a start of Python.

Run as a program, by the Python that the tests run with, which needs nothing but the SDK: SDK_ROOT, a socket's path. Its
client is a program called gcloud in a folder that a test puts on PATH. A start of gcloud takes 0.8 s of CPU, a fork a
quarter of that.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

READY_S = 60.0  # that the imports may take on a busy machine
MAX_BYTES = 1 << 20  # of a command's words and environment
WARM = (  # imports that most commands share
    "googlecloudsdk.core.resource.resource_printer",
    "googlecloudsdk.api_lib.storage.gcs_json.client",
    "googlecloudsdk.api_lib.run.job",
    "googlecloudsdk.command_lib.run.serverless_operations",
    "googlecloudsdk.command_lib.util.apis.yaml_command_translator",
    "googlecloudsdk.command_lib.iam.iam_util",
    "googlecloudsdk.command_lib.storage.tasks.task_graph_executor",
    "googlecloudsdk.api_lib.cloudbuild.cloudbuild_util",
    "requests",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({socket!r})
words = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(line, [len(words).to_bytes(4, "big")], [0, 1, 2])
line.sendall(words)
sys.exit(line.recv(1)[0])
"""


def find_sdk() -> Path | None:
    """Where the SDK of the gcloud on PATH is; None without one."""
    gcloud = shutil.which("gcloud")
    root = Path(gcloud).resolve().parent.parent if gcloud else None
    return root if root and (root / "lib" / "gcloud.py").exists() else None


@contextlib.contextmanager
def serving(sdk: Path, folder: Path) -> Iterator[Path]:
    """Yields a folder for PATH, in which gcloud is the one that is served."""
    where = folder / "gcloud.sock"
    log = (folder / "gcloud.log").open("wb")
    command = [sys.executable, "-IS", __file__, str(sdk), str(where)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    deadline = time.monotonic() + READY_S
    while not where.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"gcloud did not start:\n{(folder / 'gcloud.log').read_text()}")
        time.sleep(0.05)
    client = folder / "bin" / "gcloud"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, socket=str(where)))
    client.chmod(0o755)
    yield client.parent
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
    log.close()


def load(sdk: str) -> Any:
    sys.path[:0] = [f"{sdk}/lib/third_party", f"{sdk}/lib"]
    main = importlib.import_module("googlecloudsdk.gcloud_main")
    for name in WARM:
        with contextlib.suppress(ImportError):  # another SDK may lack it: then a command imports what it needs itself
            importlib.import_module(name)
    return main


def become(main: Any, line: socket.socket) -> None:
    """In the fork: take over the client's words, environment, folder and files, and be gcloud."""
    first, files, _, _ = socket.recv_fds(line, 4, 3)
    size, text = int.from_bytes(first, "big"), b""
    while len(text) < size:
        text += line.recv(MAX_BYTES)
    words, environment, folder = json.loads(text)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["gcloud", *words]
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  # last as long as we do
    code: Any = 0
    try:
        main.main()
    except SystemExit as exc:
        code = exc.code
    sys.stdout.flush()
    sys.stderr.flush()
    line.sendall(bytes([code if isinstance(code, int) else 1 if code else 0]))


def serve(sdk: str, where: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a command
    main = load(sdk)
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{where}.new")
    server.listen(8)
    os.rename(f"{where}.new", where)  # noqa: PTH104  # there only when it answers
    watched: list[socket.socket | int] = [server, 0]
    while select.select(watched, [], [])[0] == [
        server
    ]:  # ends with its standard input: with the tests, however they end
        line, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                become(main, line)
            finally:
                os._exit(0)
        line.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
