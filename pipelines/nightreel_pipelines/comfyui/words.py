"""What ComfyUI says of trouble, in one line, as a person finds it in its window: node, class, message; and the mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 300  # characters of one message: ComfyUI lists whole folders of models
_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def refusal(said: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    """Why a workflow was refused, from the answer to POST /prompt: `error` and `node_errors` of execution.py."""
    told = said.get("node_errors")
    if isinstance(told, dict) and told:
        return "; ".join(_node_words(key, each, nodes) for key, each in sorted(told.items()) if isinstance(each, dict))
    error = said.get("error")
    if not isinstance(error, dict):
        return _short(str(error or "it refused the workflow without a word"))
    words = _short(": ".join(filter(None, (str(error.get("message", "")).rstrip("."), str(error.get("details", ""))))))
    if "does not exist" in words:
        return f"{words}: install that custom node on the server, and start it anew"
    return words


def failure(data: Mapping[str, Any]) -> str:
    """Why a node failed, from `execution_error`: node_id, node_type, exception_message, exception_type."""
    message = " ".join(str(data.get("exception_message", "")).split())
    return f"node {data.get('node_id')} ({data.get('node_type')}): {_short(message)} ({data.get('exception_type')})"


def interruption(data: Mapping[str, Any]) -> str:
    """From `execution_interrupted`."""
    return f"node {data.get('node_id')} ({data.get('node_type')}): somebody interrupted it"


def _node_words(key: str, told: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    kind = told.get("class_type") or (nodes.get(key) or {}).get("class_type")
    errors = [each for each in told.get("errors") or () if isinstance(each, dict)]
    return f"node {key} ({kind}): " + ", ".join(map(_error_words, errors))


def _error_words(error: Mapping[str, Any]) -> str:
    words = _short(f"{error.get('message')}: {error.get('details')}")
    info = error.get("extra_info")
    received = str(info.get("received_value", "")) if isinstance(info, dict) else ""
    if error.get("type") == "value_not_in_list" and received.lower().endswith(_FILES):
        return f"{words}; put {received} among the server's models, or export the workflow with a file that it has"
    return words


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
