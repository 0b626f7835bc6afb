"""RunPod's API. Only this module calls it.

REST v2 (https://api.runpod.io/v2), as its OpenAPI document has it. v1 is retired by the end of 2026, and RunPod's Python
SDK speaks GraphQL, which is retired in early 2027. v2 has no spot pods: these are rented through GraphQL as long as it
lasts. None of our calls is repeated here: a pod whose making was not answered may be there.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from nightreel_worker.deadline import Deadline

from .base import LauncherUnavailable, NotAllowed, QuotaExceeded
from .runpod_shapes import Made, Offer, Pod, PodRequest

CALL_S = 12.0  # two of them, a start and a look for what came of it, stay below half a minute
MAX_ANSWER_BYTES = 8 << 20
NO_MACHINE_S = 300.0  # when to ask again for a machine; nobody is told when one comes free
Action = Literal["start", "stop", "terminate"]
_RENT = "mutation Rent($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) { id costPerHr } }"
_END = {
    "stop": "mutation Stop($input: PodStopInput!) { podStop(input: $input) { id } }",
    "terminate": "mutation End($input: PodTerminateInput!) { podTerminate(input: $input) }",
}
_SPOT = (
    "query Spot($id: String!, $secure: Boolean!) { gpuTypes(input: {id: $id})"
    " { id lowestPrice(input: {gpuCount: 1, secureCloud: $secure}) { minimumBidPrice } } }"
)


class NoSuchPod(NotAllowed):
    """Raised when there is no pod of an id (any more)."""


class Unfit(NotAllowed):
    """Raised when a pod's status does not allow what was asked for, or it is locked."""


class NoMachine(QuotaExceeded):
    """Raised when one type of GPU could not be had; another one may be. RunPod does not tell this from a bad request."""


@dataclass(frozen=True)
class RunPodApi:
    """Keeps nothing between two calls; safe to use from several threads. Every method raises LauncherError."""

    key: str = field(repr=False)
    endpoint: str = "https://api.runpod.io"
    limit_s: float = CALL_S
    """That an answer may take, from the connection to its last byte."""

    def pods(self, prefix: str) -> list[Pod]:
        """Those whose names begin so; the others are not even read."""
        listed = self._ask("GET", "/v2/pods").get("pods")
        if not isinstance(listed, list):
            raise LauncherUnavailable("RunPod's list of pods has none")
        ours = [each for each in listed if isinstance(each, dict) and str(each.get("name")).startswith(prefix)]
        return [_pod(each) for each in ours]

    def pod(self, id: str) -> Pod:
        """Raises NoSuchPod, too."""
        return _pod(self._ask("GET", _path(id)))

    def offers(self, gpus: Sequence[str], cloud: str) -> list[Offer]:
        """What these types cost on demand, in the same order; types that RunPod does not know are left out."""
        query = urlencode({"include": "AVAILABILITY", "product": "POD", "cloud": cloud})
        try:
            listed = {row["id"]: row for row in self._ask("GET", f"/v2/catalog/gpus?{query}")["gpus"]}
            rows = [listed[gpu] for gpu in gpus if gpu in listed]
            return [
                Offer(row["id"], float(row["price"][cloud.lower()]), row.get("availability") != "NONE") for row in rows
            ]
        except (KeyError, TypeError, ValueError) as exc:
            raise LauncherUnavailable(f"RunPod's list of GPUs is not as documented: {exc!r}") from exc

    def spot_offers(self, gpus: Sequence[str], cloud: str) -> list[Offer]:
        """The least that a bid must be; types of which none can be had are left out."""
        found = []
        for gpu in gpus:
            data = self._graphql(_SPOT, {"id": gpu, "secure": cloud == "SECURE"})
            try:
                bids = [(row["lowestPrice"] or {}).get("minimumBidPrice") for row in data["gpuTypes"]]
                found += [Offer(gpu, float(bid)) for bid in bids if bid]
            except (KeyError, TypeError, ValueError) as exc:
                raise LauncherUnavailable(f"RunPod's spot prices are not as documented: {exc!r}") from exc
        return found

    def make(self, request: PodRequest) -> Made:
        """Raises NoMachine, too, for a type of GPU that cannot be had."""
        made = _pod(self._ask("POST", "/v2/pods", request.as_v2(), making=True))
        return Made(made.id, made.cost)

    def rent(self, request: PodRequest, bid_usd: float) -> Made:
        """The same for a spot pod."""
        rented = self._graphql(_RENT, {"input": request.as_spot(bid_usd)}).get("podRentInterruptable")
        if not isinstance(rented, dict) or not isinstance(rented.get("id"), str):
            raise NoMachine(f"no spot machine with {request.gpu} at {bid_usd:g} USD an hour", NO_MACHINE_S)
        return Made(rented["id"], float(rented.get("costPerHr") or 0.0))

    def act(self, id: str, action: Action) -> None:
        """Raises NoSuchPod, and Unfit for a pod that is in no status for it."""
        if action == "terminate":
            self._ask("DELETE", _path(id))
        else:
            self._ask("POST", f"{_path(id)}/action", {"action": action})

    def end_by_graphql(self, id: str, action: Literal["stop", "terminate"]) -> None:
        """What RunPod's own tool does inside a pod. Raises NoMachine when it says no."""
        self._graphql(_END[action], {"input": {"podId": id}})

    def _graphql(self, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
        answer = self._ask("POST", "/graphql", {"query": query, "variables": variables}, making=True)
        if errors := answer.get("errors"):
            first = errors[0] if isinstance(errors, list) else errors
            raise NoMachine(f"RunPod says: {first.get('message') if isinstance(first, dict) else first}", NO_MACHINE_S)
        data = answer.get("data")
        return data if isinstance(data, dict) else {}

    def _ask(self, method: str, path: str, body: object = None, *, making: bool = False) -> dict[str, Any]:
        status, retry_s, data = self._exchange(method, path, body)
        if status >= 400:
            raise _refusal(status, data, retry_s, making=making)
        try:
            parsed = json.loads(data) if data else {}
        except ValueError as exc:
            raise LauncherUnavailable(f"RunPod's answer to {method} {path} is no JSON") from exc
        if not isinstance(parsed, dict):
            raise LauncherUnavailable(f"RunPod's answer to {method} {path} is not as documented")
        return parsed

    def _exchange(self, method: str, path: str, body: object) -> tuple[int, float, bytes]:
        """Status, the seconds that it asks us to wait, and the answer's body."""
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": "nightreel", "Connection": "close"}
        sent = None if body is None else json.dumps(body).encode()
        if sent is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            with Deadline(self.limit_s) as deadline:
                connection.connect()
                deadline.guard(connection.sock)
                connection.request(method, path, sent, headers)
                answer = connection.getresponse()
                data = answer.read(MAX_ANSWER_BYTES)
                deadline.check()
                if answer.length:  # told how much to read, http.client takes an answer that was cut off for its end
                    raise http.client.IncompleteRead(data, answer.length)
        except (OSError, http.client.HTTPException) as exc:
            raise LauncherUnavailable(f"RunPod ({self.endpoint}) did not answer: {exc or type(exc).__name__}") from exc
        finally:
            connection.close()
        return answer.status, _seconds(answer.getheader("Retry-After")), data

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.endpoint)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.limit_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self.limit_s)


def _refusal(status: int, data: bytes, retry_s: float, *, making: bool) -> Exception:
    """What a status means, by the table of RunPod's documentation of POST /v2/pods."""
    words = _words(data) or f"status {status}"
    match status:
        case 401:
            return NotAllowed(f"RunPod does not know this key ({words}): set NIGHTREEL_RUNPOD_API_KEY")
        case 402:
            return NotAllowed(f"RunPod's account has too little money ({words}): add credit in its console")
        case 403 if not making:
            return NotAllowed(f"this key may not do that ({words}): give it more rights in RunPod's console")
        case 404 if not making:
            return NoSuchPod(f"RunPod has no such pod ({words})")
        case 409:
            return Unfit(f"RunPod refused ({words})")
        case 422:
            return NotAllowed(f"RunPod does not accept the request: {words}")
        case 429:
            return QuotaExceeded(f"RunPod was asked too often ({words})", retry_s or 60.0)
        case _ if status < 500:
            return NoMachine(f"RunPod says: {words}", NO_MACHINE_S)
    return LauncherUnavailable(f"RunPod failed ({words})")


def _words(data: bytes) -> str:
    """Of an error as RFC 9457 has them."""
    try:
        problem = json.loads(data)
        return "; ".join(
            [str(problem.get("detail") or problem.get("title") or ""), *map(str, problem.get("errors", ()))]
        )
    except (ValueError, AttributeError, TypeError):
        return ""


def _pod(found: object) -> Pod:
    try:
        return Pod.model_validate(found)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LauncherUnavailable(f"RunPod's answer is not as documented: {where}: {first['msg']}") from exc


def _path(id: str) -> str:
    return f"/v2/pods/{quote(id, safe='')}"


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdigit() else 0.0
