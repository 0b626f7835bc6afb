"""A server that speaks ComfyUI's protocol and draws cards. Started as a process, so that it can be killed.

Written from the behaviour of ComfyUI 0.3.64; comments name the file of its source that has each shape. Words in a prompt ask
for trouble; `control.json` in its folder, read at each request, asks for more. What it draws stands in `drawn.log`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

MODELS = {
    "unet_name": ["flux1-schnell.safetensors"],
    "vae_name": ["ae.safetensors"],
    "clip_name1": ["clip_l.safetensors", "t5xxl_fp8_e4m3fn.safetensors"],
    "clip_name2": ["clip_l.safetensors", "t5xxl_fp8_e4m3fn.safetensors"],
}
CLASSES = (
    "CLIPTextEncode", "VAEDecode", "VAEEncode", "SaveImage", "PreviewImage", "SaveText", "VAELoader", "DualCLIPLoader",
    "UNETLoader", "EmptySD3LatentImage", "KSampler", "LoadImage", "ImageScale",
)  # fmt: skip
OUTPUTS = ("SaveImage", "PreviewImage", "SaveText")


class Comfy:
    """One server's state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets: dict[str, WebSocket] = {}
        self.pending: list[tuple[int, str, dict[str, Any], str]] = []
        self.running: tuple[int, str, dict[str, Any], str] | None = None
        self.history: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.more = asyncio.Event()
        self.interrupted = False
        self.number = 0

    @property
    def control(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.folder / "control.json").read_text()))
        return {}

    def note(self, name: str, line: str) -> None:
        with (self.folder / name).open("a") as log:
            log.write(line + "\n")

    # server.py: websocket_handler, get_queue_info, send_json

    async def websocket(self, socket: WebSocket) -> None:
        if not self.allowed(socket.headers.get("authorization")):
            await socket.close()  # before the handshake: answered with 403
            return
        await socket.accept()
        sid = socket.query_params.get("clientId") or uuid.uuid4().hex
        self.sockets[sid] = socket
        await self.send("status", {"status": self.queue_info(), "sid": sid}, sid)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.receive_text()
        if self.sockets.get(sid) is socket:
            del self.sockets[sid]

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": len(self.pending) + (self.running is not None)}}

    async def send(self, kind: str, data: dict[str, Any], sid: str | None = None) -> None:
        for known, socket in list(self.sockets.items()):
            if sid in (None, known):
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await socket.send_json({"type": kind, "data": data})

    async def queue_updated(self) -> None:
        await self.send("status", {"status": self.queue_info()})

    def allowed(self, header: str | None) -> bool:
        token = self.control.get("token")
        return token is None or header == f"Bearer {token}"

    # server.py: the routes

    async def post_prompt(self, request: Request) -> Response:
        said = await request.json()
        prompt, prompt_id = said["prompt"], str(said.get("prompt_id", uuid.uuid4()))
        if self.control.get("old"):  # before 0.3.45 the server gave ids of its own
            prompt_id = str(uuid.uuid4())
        if refusal := self.validate(prompt):
            return JSONResponse(refusal, status_code=400)
        self.number += 1
        self.pending.append((self.number, prompt_id, prompt, str(said.get("client_id"))))
        self.note("prompts.log", prompt_id)
        self.more.set()
        await self.queue_updated()
        if self.control.get("lose_answer") and self.number == 1:  # it took the prompt, and nobody hears of it
            return Response(status_code=502)
        return JSONResponse({"prompt_id": prompt_id, "number": self.number, "node_errors": {}})

    def validate(self, prompt: dict[str, Any]) -> dict[str, Any] | None:
        """execution.py: validate_prompt, validate_inputs."""
        for key, node in prompt.items():
            if node["class_type"] not in CLASSES:
                words = f"Cannot execute because node {node['class_type']} does not exist."
                return {"error": _error("invalid_prompt", words, f"Node ID '#{key}'"), "node_errors": {}}
        if not [node for node in prompt.values() if node["class_type"] in OUTPUTS]:
            return {"error": _error("prompt_no_outputs", "Prompt has no outputs", ""), "node_errors": {}}
        lacks = self.control.get("lacks", [])
        errors = {}
        for key, node in prompt.items():
            for name in MODELS.keys() & node["inputs"].keys():
                value, have = node["inputs"][name], [each for each in MODELS[name] if each not in lacks]
                if value not in have:
                    told = _error("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {have}")
                    told["extra_info"] = {"input_name": name, "input_config": None, "received_value": value}
                    errors[key] = {"errors": [told], "dependent_outputs": ["9"], "class_type": node["class_type"]}
        if not errors:
            return None
        return {
            "error": _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", ""),
            "node_errors": errors,
        }

    async def post_queue(self, request: Request) -> Response:
        delete = (await request.json()).get("delete", [])
        self.pending = [each for each in self.pending if each[1] not in delete]
        for each in delete:
            self.note("deleted.log", each)
        await self.queue_updated()
        return Response()

    async def post_interrupt(self, request: Request) -> Response:
        wanted = (await request.json()).get("prompt_id")
        if self.control.get("old"):  # before 0.3.57 it did not look
            wanted = None
        if self.running and wanted in (None, self.running[1]):
            self.interrupted = True
            self.note("interrupted.log", str(wanted))
        return Response()

    async def get_queue(self, request: Request) -> Response:
        rows = [[number, key, prompt, {"client_id": client}, ["9"]] for number, key, prompt, client in self.pending]
        running = [[*self.running[:3], {"client_id": self.running[3]}, ["9"]]] if self.running else []
        return JSONResponse({"queue_running": running, "queue_pending": rows})

    async def get_history(self, request: Request) -> Response:
        key = request.path_params["prompt_id"]
        return JSONResponse({key: self.history[key]} if key in self.history else {})

    async def get_view(self, request: Request) -> Response:
        name = request.query_params["filename"]
        if name not in self.files or self.control.get("no_files"):
            return Response(status_code=404)
        data = self.files[name]
        headers = {"Content-Length": str(len(data))}
        if harm := self.control.get("damage"):
            (self.folder / "control.json").unlink()
            data = data[: len(data) // 2] if harm in ("half", "cut") else b""
            if harm in ("half", "empty"):  # otherwise the connection ends before the answer does
                headers = {"Content-Length": str(len(data))}
        return Response(data, media_type="image/png", headers=headers)

    async def post_image(self, request: Request) -> Response:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + await request.body(), policy=HTTP).iter_parts()
        form = {str(part.get_param("name", header="content-disposition")): part for part in parts}
        name, subfolder = str(form["image"].get_filename()), form["subfolder"].get_content().strip()
        self.uploads[f"{subfolder}/{name}"] = form["image"].get_content()
        return JSONResponse({"name": name, "subfolder": subfolder, "type": "input"})

    async def get_stats(self, request: Request) -> Response:
        device = {"name": "cuda:0 Test Card", "type": "cuda", "index": 0, "vram_total": 24 << 30, "vram_free": 9 << 30}
        devices = self.control.get("devices", [device])
        return JSONResponse({"system": {"comfyui_version": "0.3.64"}, "devices": devices})

    # main.py: prompt_worker; execution.py: PromptExecutor.execute_async

    async def work(self) -> None:
        while True:
            await self.more.wait()
            while self.pending:
                self.running = self.pending.pop(0)
                self.interrupted = False
                await self.queue_updated()
                status, outputs = await self.execute(*self.running[1:])
                prompt_id, client = self.running[1], self.running[3]
                self.history[prompt_id] = {"prompt": self.running[2], "outputs": outputs, "status": status}
                self.running = None
                await self.queue_updated()
                await self.send("executing", {"node": None, "prompt_id": prompt_id}, client)
            self.more.clear()

    async def execute(
        self, prompt_id: str, prompt: dict[str, Any], client: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        messages: list[list[Any]] = []

        async def tell(kind: str, **data: Any) -> None:
            told = {**data, "prompt_id": prompt_id, "timestamp": int(time.time() * 1000)}
            messages.append([kind, told])
            await self.send(kind, told, client)

        await tell("execution_start")
        await tell("execution_cached", nodes=[])
        try:
            outputs = await self.draw(prompt_id, prompt, client)
        except InterruptedError:
            await tell("execution_interrupted", node_id="31", node_type="KSampler", executed=[])
            return {"status_str": "error", "completed": False, "messages": messages}, {}
        except RuntimeError as exc:
            await tell("execution_error", node_id="31", node_type="KSampler", executed=[], exception_message=f"{exc}\n",
                       exception_type="RuntimeError", traceback=[], current_inputs={}, current_outputs=[])  # fmt: skip
            return {"status_str": "error", "completed": False, "messages": messages}, {}
        await tell("execution_success")
        return {"status_str": "success", "completed": True, "messages": messages}, outputs

    async def draw(self, prompt_id: str, prompt: dict[str, Any], client: str) -> dict[str, Any]:
        wanted = _wanted(prompt)
        text = wanted["text"]
        steps = 100 if "slow" in text else wanted["steps"]
        if "hang" in text:
            await asyncio.sleep(3600)
        for step in range(steps):
            if self.interrupted:
                raise InterruptedError
            await asyncio.sleep(0.1 if "slow" in text else self.control.get("step_s", 0.0))
            if "cut" in text and step == 0:
                for socket in list(self.sockets.values()):
                    await socket.close()
                self.sockets = {}
            data = {"value": step + 1, "max": steps, "prompt_id": prompt_id, "node": "31"}  # main.py: hijack_progress
            await self.send("progress", data, client)
            if client in self.sockets:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await self.sockets[client].send_bytes(b"\0\0\0\1\0\0\0\1preview")  # protocol.py: PREVIEW_IMAGE
        if "fail" in text or self.control.get("lying"):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        self.note("drawn.log", text)
        output = next(key for key, node in prompt.items() if node["class_type"] in OUTPUTS)
        name = f"{prompt[output]['inputs'].get('filename_prefix', 'x').replace('/', '_')}_{uuid.uuid4().hex[:5]}_.png"
        if prompt[output]["class_type"] == "SaveText":
            return {}
        self.files[name] = _card(wanted, prompt, self.uploads)
        said = {"images": [{"filename": name, "subfolder": "", "type": "output"}] * (2 if "twice" in text else 1)}
        if "untold" not in text:
            told = {"node": output, "display_node": output, "output": said, "prompt_id": prompt_id}
            await self.send("executed", told, client)
        return {output: said}


def _error(kind: str, message: str, details: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _wanted(prompt: dict[str, Any]) -> dict[str, Any]:
    """What the workflow asks for, found by following its links as a person does."""
    sampler = next(node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
    sized = next(node["inputs"] for node in prompt.values() if "width" in node["inputs"])
    image = next((node["inputs"]["image"] for node in prompt.values() if node["class_type"] == "LoadImage"), None)
    own = {"seed": sampler["seed"], "steps": sampler["steps"], "denoise": sampler["denoise"], "image": image}
    return own | {
        "text": prompt[sampler["positive"][0]]["inputs"]["text"],
        "size": (sized["width"], sized["height"]),
    }


def _card(wanted: dict[str, Any], prompt: dict[str, Any], uploads: dict[str, bytes]) -> bytes:
    """nodes.py: SaveImage writes the whole workflow into its PNG."""
    width, height = wanted["size"]
    colour = tuple(40 + (wanted["seed"] >> shift) % 160 for shift in (0, 8, 16))
    image = Image.new("RGB", (64, 64) if "small" in wanted["text"] else (width, height), colour)
    if wanted["image"]:
        with Image.open(io.BytesIO(uploads[wanted["image"]])) as over:
            image = Image.blend(over.convert("RGB").resize(image.size), image, wanted["denoise"])
    draw = ImageDraw.Draw(image)
    draw.ellipse((width * 0.3, height * 0.2, width * 0.7, height * 0.8), outline="white", width=max(1, height // 60))
    draw.text((width / 2, height / 2), wanted["text"], fill="white", anchor="mm", font_size=max(8, height // 12))
    info = PngInfo()
    info.add_text("prompt", json.dumps(prompt))
    out = io.BytesIO()
    if "jpeg" in wanted["text"]:
        image.save(out, "JPEG")
    elif "alpha" in wanted["text"]:
        image.convert("RGBA").save(out, "PNG")
    else:
        image.save(out, "PNG", pnginfo=info, compress_level=4)
    return out.getvalue()


def app(folder: Path) -> Starlette:
    comfy = Comfy(folder)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(comfy.work())
        yield
        worker.cancel()

    async def guard(request: Request, call_next: Any) -> Response:
        if not comfy.allowed(request.headers.get("authorization")):
            return Response(status_code=401)
        status = comfy.control.get("status")
        if status and request.url.path == "/prompt":
            return Response("no", status_code=status, headers={"Retry-After": "1"})
        answer: Response = await call_next(request)
        return answer

    routes = [
        WebSocketRoute("/ws", comfy.websocket),
        Route("/prompt", comfy.post_prompt, methods=["POST"]),
        Route("/queue", comfy.get_queue, methods=["GET"]),
        Route("/queue", comfy.post_queue, methods=["POST"]),
        Route("/interrupt", comfy.post_interrupt, methods=["POST"]),
        Route("/history/{prompt_id}", comfy.get_history),
        Route("/view", comfy.get_view),
        Route("/upload/image", comfy.post_image, methods=["POST"]),
        Route("/system_stats", comfy.get_stats),
    ]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


def main() -> None:
    """`python -m comfy_server PORT FOLDER`"""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    uvicorn.run(app(folder), host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    main()
