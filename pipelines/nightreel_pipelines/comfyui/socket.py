"""ComfyUI's websocket, on which a server tells what becomes of our prompts. The one module that imports websockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from .api import Api
from .errors import Gone, NoEntry, Overloaded

OPEN_S = 10.0
PING_S = 20.0  # between two pings; a server that loads a model may take PONG_S to answer one
PONG_S = 60.0
_ENDED = (WebSocketException, OSError, EOFError)
MAX_MESSAGE_BYTES = 16_000_000  # a failed node's inputs, as text


class Socket:
    """One connection, under one client id: a server tells of a prompt to the client that sent it."""

    def __init__(self, api: Api, client: str) -> None:
        """Raises Gone, NoEntry, Overloaded."""
        self._open = contextlib.ExitStack()
        try:
            opening = connect(
                f"{api.socket_address}?clientId={client}",
                additional_headers=api.headers,
                compression=None,
                proxy=None,
                open_timeout=OPEN_S,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
                max_size=MAX_MESSAGE_BYTES,
            )
            self._connection = self._open.enter_context(opening)
        except InvalidStatus as exc:
            raise _refused(api, exc.response.status_code) from exc
        except ConnectionRefusedError as exc:
            raise Gone(f"{api.address}: nobody listens there: start ComfyUI, or set NIGHTREEL_COMFYUI_SERVERS") from exc
        except _ENDED as exc:
            raise Gone(
                f"{api.address}: no websocket can be opened ({exc or type(exc).__name__}): is it ComfyUI?"
            ) from exc

    def messages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Type and data of each message, until the connection ends. Binary ones are previews, and left out."""
        with contextlib.suppress(*_ENDED):
            for message in self._connection:
                if isinstance(message, str) and (found := _read(message)):
                    yield found

    def close(self) -> None:
        with contextlib.suppress(*_ENDED):
            self._open.close()


def _read(text: str) -> tuple[str, dict[str, Any]] | None:
    with contextlib.suppress(ValueError):
        said = json.loads(text)
        if isinstance(said, dict) and isinstance(said.get("data"), dict):
            return str(said.get("type")), said["data"]
    return None


def _refused(api: Api, status: int) -> Exception:
    if status in (401, 403):
        return NoEntry(f"{api.address}: lets us not in ({status}): set NIGHTREEL_COMFYUI_TOKEN to what it asks for")
    if status == 429 or status >= 500:
        return Overloaded(f"{api.address}: answers {status}")
    return Gone(f"{api.address}: answers {status} to a websocket: is it ComfyUI?")
