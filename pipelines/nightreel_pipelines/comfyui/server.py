"""One ComfyUI server: a link that stays up, and prompts that are followed to their pictures.

The link is a thread that keeps the websocket open and hands each message to the prompt that it is about. A server whose link
is down counts as down. A prompt that hears nothing looks into the server's history and queue, so a message that was lost,
or a link that broke in the middle, costs no picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Unrenderable
from .api import Api, Picture
from .errors import CalledOff, Forgotten, Gone, NodeFailed, NoEntry, ServerError, Silent
from .order import Order
from .png import BrokenPng, NoPng, checked
from .socket import Socket
from .words import failure, interruption

LOOK_S = 0.2  # between two looks whether the job is off
QUIET_LOOK_S = 10.0  # without a message, before history and queue are asked
BLIND_LOOK_S = 0.5  # the same, when no message can come
GONE_S = 3.0  # that a server may refuse connections before its prompts go to another one
LINK_AGAIN_S = (0.5, 1.0, 2.0, 5.0)  # before the link is tried again, the last one for ever

LINK = "link"  # our own message to those who wait: the link came up, or broke
Message = tuple[str, dict[str, Any]]


class Server:
    """Safe to use from several threads, one for each prompt."""

    def __init__(self, api: Api, timeout_s: float, changed: Callable[[], None]) -> None:
        """`changed` is told when the link comes up, or breaks. Opens the link at once, in a thread of its own."""
        self.api = api
        self.up = False
        self.trouble: ServerError | None = None
        """Why the link is down; None until it has been tried."""
        self.remaining = 0
        """Prompts that wait or run there, anybody's, as the server told last."""
        self.aside_until = 0.0
        self.aside_why: ServerError | None = None
        self.last_resort = False
        self.device = ""
        self._found: frozenset[str] = frozenset()
        """Prompts that were in its queue when the link came up."""
        self._timeout_s, self._changed = timeout_s, changed
        self._client = uuid.uuid4().hex
        self._boxes: dict[str, queue.SimpleQueue[Message]] = {}
        self._uploaded: dict[str, str] = {}
        self._closed = threading.Event()
        self._socket: Socket | None = None
        threading.Thread(target=self._keep_linked, name="comfyui", daemon=True).start()

    def has(self, order: Order) -> bool:
        """Was this keyframe in its queue when the link came up?"""
        return order.prompt in self._found

    def draw(self, order: Order, off: threading.Event) -> bytes:
        """The PNG of a keyframe. Raises ServerError, and Unrenderable for an output that is none."""
        box = self._boxes[order.prompt] = queue.SimpleQueue()
        following = _Following(self, order, box, off, self._timeout_s)
        try:
            prompt, pictures = self._begin(order)
            self._boxes[prompt] = box  # an old server gives ids of its own
            pictures = pictures or following.wait(prompt)
            return self._picture(order, pictures)
        except (CalledOff, Silent):
            with contextlib.suppress(ServerError):
                self.api.call_off(following.prompt)
            raise
        finally:
            for prompt in [known for known, each in self._boxes.items() if each is box]:
                del self._boxes[prompt]

    def close(self) -> None:
        self._closed.set()
        if self._socket:
            self._socket.close()

    # the link

    def _keep_linked(self) -> None:
        tries = 0
        while not self._closed.is_set():
            trouble: ServerError = Gone(f"{self.api.address}: the connection broke off: is it up?")
            try:
                self._socket = Socket(self.api, self._client)
                self._greet()
                tries = 0
                self._listen(self._socket)
            except ServerError as exc:
                trouble = exc
            except Exception as exc:  # noqa: BLE001  # the link's boundary: nothing that a server says may end it
                trouble = Gone(f"{self.api.address}: says what ComfyUI does not ({type(exc).__name__}: {exc})")
            self._fell(trouble)
            self._closed.wait(LINK_AGAIN_S[min(tries, len(LINK_AGAIN_S) - 1)])
            tries += 1

    def _greet(self) -> None:
        devices = self.api.stats().get("devices") or [{}]
        self.device = str(devices[0].get("name", "")) if isinstance(devices[0], dict) else ""
        self._found, self._uploaded = self.api.queued(), {}
        self.up, self.trouble, self.aside_until = True, None, 0.0
        self._all_look()

    def _listen(self, socket: Socket) -> None:
        for kind, data in socket.messages():
            if kind == "status":
                info = (data.get("status") or {}).get("exec_info") or {}
                self.remaining = int(info.get("queue_remaining", 0))
            elif box := self._boxes.get(str(data.get("prompt_id"))):
                box.put((kind, data))
        socket.close()

    def _fell(self, trouble: ServerError) -> None:
        self.up, self.trouble, self.remaining = False, trouble, 0
        self._all_look()

    def _all_look(self) -> None:
        """Messages may have been lost."""
        for box in list(self._boxes.values()):
            box.put((LINK, {}))
        self._changed()

    # one prompt

    def _begin(self, order: Order) -> tuple[str, list[Picture]]:
        """Find the keyframe there, drawn or about to be, or have it drawn: its prompt's id, and pictures if it is done."""
        kept = self.api.history(order.prompt)
        if kept and (pictures := _pictures(kept, order.workflow.output)):
            return order.prompt, pictures
        if self.has(order) and order.prompt in self.api.queued():
            return order.prompt, []
        image = self._upload(order.picture) if order.picture else ""
        nodes = order.workflow.filled(
            order.recipe, image, f"nightreel/{order.recipe.fingerprint[:16]}-{uuid.uuid4().hex[:8]}"
        )
        prompt = order.prompt if kept is None else str(uuid.uuid4())  # the history has it as failed
        self._boxes[prompt] = self._boxes[order.prompt]
        return self.api.submit(nodes, self._client, prompt), []

    def _upload(self, picture: Path) -> str:
        data = picture.read_bytes()
        name = f"{hashlib.sha256(data).hexdigest()}{_suffix(data)}"
        if name not in self._uploaded:
            self._uploaded[name] = self.api.upload(name, data)
        return self._uploaded[name]

    def _picture(self, order: Order, pictures: list[Picture]) -> bytes:
        if len(pictures) > 1:
            raise Unrenderable(
                f"workflow {order.workflow.name}: it gave {len(pictures)} pictures for one keyframe: set batch_size to 1"
            )
        data = self.api.picture(pictures[0])
        try:
            return checked(data, order.recipe.width, order.recipe.height)
        except NoPng as exc:
            raise Unrenderable(f"workflow {order.workflow.name}: the output {exc}") from exc
        except BrokenPng as exc:
            raise Gone(f"{self.api.address}: a picture came damaged: {exc}") from exc


class _Following:
    """The wait for one prompt."""

    def __init__(
        self, server: Server, order: Order, box: queue.SimpleQueue[Message], off: threading.Event, timeout_s: float
    ) -> None:
        self.prompt = order.prompt
        self._server, self._output, self._box, self._off = server, order.workflow.output, box, off
        self._timeout_s = timeout_s
        self._foreign = server.has(order)
        """Another client sent it: no message of it comes to us."""

    def wait(self, prompt: str) -> list[Picture]:
        """The pictures, once they are there. Raises ServerError."""
        self.prompt = prompt
        heard = looked = time.monotonic()
        gone_since: float | None = None
        pictures: list[Picture] = []
        while True:
            if self._off.is_set():
                raise CalledOff(f"{self._server.api.address}: called off")
            with contextlib.suppress(queue.Empty):
                kind, data = self._box.get(timeout=LOOK_S)
                if kind == LINK:
                    looked = 0.0
                    continue
                heard = looked = time.monotonic()
                pictures = self._told(kind, data) or pictures
                if kind == "execution_success":
                    return pictures or self._kept()
                continue
            now = time.monotonic()
            if now - looked >= (QUIET_LOOK_S if self._server.up and not self._foreign else BLIND_LOOK_S):
                looked = now
                try:
                    if found := self._look():
                        return found
                    gone_since = None
                except (Gone, NoEntry):
                    gone_since = gone_since or now
                    if now - gone_since > GONE_S:
                        raise
            if now - heard > self._timeout_s:
                raise Silent(f"{self._server.api.address}: nothing was heard of a keyframe for {self._timeout_s:g} s")

    def _told(self, kind: str, data: dict[str, Any]) -> list[Picture]:
        match kind:
            case "execution_error":
                raise NodeFailed(f"{self._server.api.address}: {failure(data)}")
            case "execution_interrupted":
                raise NodeFailed(f"{self._server.api.address}: {interruption(data)}")
            case "executed" if self._output in (str(data.get("node")), str(data.get("display_node"))):
                return _named(data.get("output"))
        return []

    def _look(self) -> list[Picture]:
        """In the server's history and queue; nothing while the prompt waits or runs. Raises Forgotten, NodeFailed."""
        if kept := self._server.api.history(self.prompt):
            return self._pictures_of(kept)
        if self.prompt in self._server.api.queued():
            return []
        if kept := self._server.api.history(self.prompt):  # it ended between the two looks
            return self._pictures_of(kept)
        raise Forgotten(f"{self._server.api.address}: does not know a prompt that it took: it was started anew")

    def _kept(self) -> list[Picture]:
        """A prompt enters the history a moment after its success is told."""
        ends_at = time.monotonic() + GONE_S
        while time.monotonic() < ends_at:
            if kept := self._server.api.history(self.prompt):
                return self._pictures_of(kept)
            time.sleep(LOOK_S / 4)
        raise Forgotten(f"{self._server.api.address}: tells of a success, and keeps no picture")

    def _pictures_of(self, kept: dict[str, Any]) -> list[Picture]:
        if pictures := _pictures(kept, self._output):
            return pictures
        for kind, data in _messages(kept):
            self._told(kind, data)
        raise Unrenderable(f"the workflow's output, node {self._output}, gave no picture: end it in SaveImage")


def _pictures(kept: dict[str, Any], output: str) -> list[Picture]:
    """From an entry of the history that ended well."""
    if not (kept.get("status") or {}).get("completed", True):
        return []
    return _named((kept.get("outputs") or {}).get(output))


def _named(output: object) -> list[Picture]:
    images = output.get("images") if isinstance(output, dict) else None
    return [
        Picture(str(each.get("filename", "")), str(each.get("subfolder", "")), str(each.get("type", "output")))
        for each in images or ()
        if isinstance(each, dict)
    ]


def _messages(kept: dict[str, Any]) -> list[Message]:
    rows = (kept.get("status") or {}).get("messages") or ()
    return [
        (str(row[0]), row[1]) for row in rows if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict)
    ]


def _suffix(data: bytes) -> str:
    """By what it is. Raises Unrenderable for what Nightreel takes nowhere: no other decoder sees a stranger's bytes."""
    if data.startswith(b"\x89PNG"):
        return ".png"
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    raise Unrenderable("init.image: is not a PNG, JPEG or WebP picture: export it again")
