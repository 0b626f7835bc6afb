"""A server that speaks RunPod's REST v2 and its GraphQL for spot pods, as documented; it says no, and breaks, when told.

Its pods are rows, or, with `runs`, real processes that are treated as RunPod treats containers: started again when they
end, SIGTERM and then SIGKILL when the pod is stopped.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

KEY = "rpa_THEKEY"
CREATE = {"name", "image", "args", "cloud", "gpu", "disk", "env", "dataCenterIds", "registry", "mounts"}
RENT = {"name", "imageName", "dockerArgs", "cloudType", "gpuTypeId", "gpuCount", "bidPerGpu", "containerDiskInGb",
        "volumeInGb", "env", "dataCenterId", "containerRegistryAuthId", "networkVolumeId", "volumeMountPath"}  # fmt: skip
ACTIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
}
RTX_3090, A5000, L4 = "NVIDIA GeForce RTX 3090", "NVIDIA RTX A5000", "NVIDIA L4"


@dataclass
class Card:
    """A type of GPU."""

    secure: float
    community: float
    bid: float
    left: int = 100
    said: str = "HIGH"
    """What the catalog says of its stock, which may be wrong."""


@dataclass
class Fault:
    """What goes wrong with the next request whose method and path these words begin."""

    of: str
    status: int = 0
    detail: str = "something"
    kind: Literal["says", "drops", "hangs"] = "says"
    done: bool = False
    """Is it done all the same?"""
    retry_after: int | None = None
    body: bytes | None = None


class Refused(Exception):
    def __init__(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors


@dataclass
class FakeRunPod:
    command: Sequence[str] = ()
    """How containers begin, before their args; empty: pods are rows only."""
    folder: Path = Path()
    cards: dict[str, Card] = field(
        default_factory=lambda: {RTX_3090: Card(0.46, 0.22, 0.11), A5000: Card(0.27, 0.16, 0.12)}
    )
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """Method and path, and the body, of each request that came with a key."""
    pod_key_may: frozenset[str] = frozenset(("/v2", "/graphql"))
    """What pods' own keys are good for."""
    cost_now: float | None = None
    """What a new pod costs, whatever the catalog says."""
    too_early: set[str] = field(default_factory=set)
    """Containers that ended by themselves while RunPod was about to end them: it would have started these again."""
    starts: dict[str, int] = field(default_factory=dict)
    """How often each pod's container was started."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._containers: dict[str, subprocess.Popen[bytes]] = {}
        self._ending: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)]
        if self.command:
            self._threads.append(threading.Thread(target=self._keep_running, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()
        for process in list(self._containers.values()):
            if process.poll() is None:
                process.kill()
            process.wait()

    def requests(self, of: str) -> list[Any]:
        """The bodies of requests that begin so."""
        return [body for line, body in self.asked if line.startswith(of)]

    def put(self, name: str, **fields: Any) -> str:
        """A pod that is there already."""
        id = f"pod{len(self.pods)}x{os.urandom(2).hex()}"
        now = dt.datetime.now(dt.UTC).isoformat()
        self.pods[id] = {
            "id": id, "name": name, "status": "RUNNING", "actions": [], "image": "i", "args": "", "disk": 30, "mounts": {},
            "ports": [], "env": {}, "registry": None, "cloud": "SECURE", "dataCenterId": None, "cudaVersion": None,
            "ssh": {"proxy": None, "direct": None}, "template": None, "cost": 0.46, "locked": False, "runtime": None,
            "globalNetworking": {"enabled": False}, "gpu": {"id": RTX_3090, "count": 1}, "createdAt": now, "startedAt": now,
        } | fields  # fmt: skip
        return id

    # what RunPod does

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(body) - CREATE:
            raise Refused(422, "invalid body", [f"$: additional properties {sorted(unknown)} not allowed"])
        gpu = body["gpu"]["id"]
        price = (
            self.cards[gpu].secure
            if body["cloud"] == "SECURE"
            else self.cards[gpu].community
            if gpu in self.cards
            else 0
        )
        return self._place(gpu, price, body)

    def rent(self, body: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(body) - RENT:
            raise Refused(400, f"unknown fields {unknown}")
        card = self.cards[body["gpuTypeId"]]
        if body["bidPerGpu"] < card.bid:
            raise ValueError("Your bid is too low")
        env = {each["key"]: each["value"] for each in body["env"]}
        pod = self._place(
            body["gpuTypeId"], body["bidPerGpu"], {"env": env, "name": body["name"], "args": body["dockerArgs"]}
        )
        return {"id": pod["id"], "costPerHr": pod["cost"]}

    def _place(self, gpu: str, price: float, fields: dict[str, Any]) -> dict[str, Any]:
        card = self.cards.get(gpu)
        if card is None or card.left < 1:
            raise Refused(400, "There are no instances currently available")
        card.left -= 1
        kept = {name: fields[name] for name in ("name", "env", "args", "image", "disk", "mounts") if name in fields}
        cost = price if self.cost_now is None else self.cost_now
        id = self.put(**kept, gpu={"id": gpu, "count": 1}, cost=cost, status="PROVISIONING", startedAt=None)
        if self.command:
            self._begin(id)
        return self.pods[id]

    def act(self, id: str, action: str) -> dict[str, Any] | None:
        pod = self._find(id)
        if action != "terminate" and pod["locked"]:
            raise Refused(409, "pod is locked")
        if action not in ACTIONS[pod["status"]]:
            raise Refused(409, f"cannot {action} a pod that is {pod['status']}")
        if action == "start":
            pod |= {"status": "STARTING", "cost": pod.get("next_cost", 0.46), "startedAt": pod["createdAt"]}
            return pod
        pod |= {"status": "EXITED", "cost": 0.0, "runtime": None}
        if action == "terminate":
            del self.pods[id]
        if id in self._containers and id not in self._ending:
            self._ending.add(id)
            threading.Thread(target=self._end, args=(id,), daemon=True).start()
        return pod if action == "stop" else None

    def _find(self, id: str) -> dict[str, Any]:
        if id not in self.pods:
            raise Refused(404, "pod not found")
        return self.pods[id]

    # containers

    def _begin(self, id: str) -> None:
        pod = self.pods[id]
        self.starts[id] = self.starts.get(id, 0) + 1
        own = {"RUNPOD_POD_ID": id, "RUNPOD_API_KEY": f"podkey-{id}"}
        log = (self.folder / f"{id}.log").open("ab")
        environment = {**os.environ, **pod["env"], **own}
        self._containers[id] = subprocess.Popen(
            [*self.command, *pod["args"].split()], env=environment, cwd=self.folder, stdout=log, stderr=log
        )
        log.close()
        pod |= {"status": "RUNNING", "startedAt": dt.datetime.now(dt.UTC).isoformat()}

    def _keep_running(self) -> None:
        """A container whose process has ended is started again: that is what RunPod does, and bills."""
        while not self._closed.wait(0.05):
            with self._lock:
                for id, process in list(self._containers.items()):
                    if process.poll() is not None and id in self._ending:
                        self.too_early.add(id)
                    elif process.poll() is not None:
                        self._begin(id)

    def _end(self, id: str) -> None:
        """It takes a moment until a pod that is stopped or deleted gets its SIGTERM, and its SIGKILL after five seconds."""
        self._closed.wait(0.3)
        process = self._containers[id]
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5 if id not in self.pods else 5)
        process.kill()
        process.wait()
        with self._lock:
            del self._containers[id]

    def is_running(self, id: str) -> bool:
        """Has it a container?"""
        return id in self._containers

    # HTTP

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake._serve(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _serve(self, at: BaseHTTPRequestHandler) -> None:
        length = int(at.headers.get("Content-Length") or 0)
        body = json.loads(at.rfile.read(length)) if length else None
        line = f"{at.command} {at.path}"
        with self._lock:
            fault = next((each for each in self.faults if line.startswith(each.of)), None)
            if fault:
                self.faults.remove(fault)
            self.asked.append((line, body))
            answer: tuple[int, Any] = (0, None)
            if fault is None or fault.done:
                answer = self._answer(at.command, at.path, body, at.headers.get("Authorization", ""))
        if fault is None:
            self._say(at, *answer)
        elif fault.kind == "hangs":
            self._closed.wait(10)
        elif fault.kind == "says":
            told = {"title": "Whatever", "status": fault.status, "detail": fault.detail}
            self._say(at, fault.status, told, fault.retry_after, fault.body)
        at.close_connection = True

    @staticmethod
    def _say(
        at: BaseHTTPRequestHandler, status: int, told: Any, retry_after: int | None = None, raw: bytes | None = None
    ) -> None:
        data = raw if raw is not None else b"" if told is None else json.dumps(told).encode()
        with contextlib.suppress(OSError):  # the client has left
            at.send_response(status)
            if retry_after is not None:
                at.send_header("Retry-After", str(retry_after))
            at.send_header("Content-Length", str(len(data)))
            at.end_headers()
            at.wfile.write(data)

    def _answer(self, method: str, path: str, body: Any, sent_key: str) -> tuple[int, Any]:
        try:
            self._check_key(path, sent_key.removeprefix("Bearer "))
            if path == "/graphql":
                return 200, self._graphql(body["query"], body["variables"])
            return self._rest(method, urlsplit(path).path.split("/")[2:], parse_qs(urlsplit(path).query), body)
        except Refused as exc:
            told = {"title": "Error", "status": exc.status, "detail": exc.detail}
            return exc.status, told | ({"errors": list(exc.errors)} if exc.errors else {})

    def _check_key(self, path: str, key: str) -> None:
        of_pod = key.startswith("podkey-") and any(path.startswith(each) for each in self.pod_key_may)
        if key != KEY and not of_pod:
            raise Refused(403 if key.startswith("podkey-") else 401, "invalid bearer token")

    def _rest(self, method: str, parts: list[str], query: Mapping[str, list[str]], body: Any) -> tuple[int, Any]:
        match method, parts:
            case "GET", ["pods"]:
                return 200, {"pods": list(self.pods.values())}
            case "POST", ["pods"]:
                return 201, self.create(body)
            case "GET", ["pods", id]:
                return 200, self._find(id)
            case "DELETE", ["pods", id]:
                self._find(id)
                return 204, self.act(id, "terminate")
            case "POST", ["pods", id, "action"]:
                return 200, self.act(id, body["action"])
            case "GET", ["catalog", "gpus"]:
                if query.get("include") != ["AVAILABILITY"] or query.get("product") != ["POD"]:
                    raise Refused(400, "include=AVAILABILITY requires product")
                return 200, {"gpus": [_listed(id, card) for id, card in self.cards.items()]}
        raise Refused(404, "no such path")

    def _graphql(self, query: str, variables: Any) -> dict[str, Any]:
        try:
            if "podRentInterruptable" in query:
                return {"data": {"podRentInterruptable": self.rent(variables["input"])}}
            if "lowestPrice" in query:
                card = self.cards.get(variables["id"])
                rows = [{"id": variables["id"], "lowestPrice": {"minimumBidPrice": card.bid}}] if card else []
                return {"data": {"gpuTypes": rows}}
            action = "stop" if "podStop" in query else "terminate"
            self.act(variables["input"]["podId"], action)
            return {"data": {f"pod{action.title()}": None}}
        except (Refused, ValueError) as exc:
            return {"errors": [{"message": str(exc)}], "data": None}


def _listed(id: str, card: Card) -> dict[str, Any]:
    return {
        "id": id,
        "name": id,
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": 24,
        "secure": True,
        "community": True,
        "price": {"secure": card.secure, "community": card.community},
        "maxCount": {"secure": 8, "community": 4},
        "availability": card.said,
    }


def until(condition: Any, what: str, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)
