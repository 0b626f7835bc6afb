"""Workflows: files of ComfyUI in API format, with the places that a keyframe's recipe fills.

A node says by its title what it takes: `nightreel:prompt`, or several at once, `nightreel:seed,steps`. Titles are what a
person can change in ComfyUI's window for every node; numbers there take no placeholders.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SourceUnavailable
from ..recipe import Recipe

Nodes = dict[str, dict[str, Any]]
"""By id, as ComfyUI's API takes them: class_type, inputs, and _meta.title."""

# The inputs that a slot fills, of those which the node has; the first group that it has wholly.
SLOTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "prompt": (("clip_l", "t5xxl"), ("text",), ("prompt",), ("string",), ("value",)),
    "seed": (("seed",), ("noise_seed",), ("value",)),
    "size": (("width", "height"),),
    "steps": (("steps",), ("value",)),
    "image": (("image",),),
    "strength": (("denoise",), ("strength",), ("value",)),
    "output": ((),),
}
NEEDED = ("prompt", "seed", "size", "steps")
OVER_PICTURE = ("image", "strength")
PICTURE_NODES = ("SaveImage", "PreviewImage")
_MARK = re.compile(r"nightreel:\s*(\w+(?:\s*,\s*\w+)*)", re.IGNORECASE)
_HOW = "double-click its title in ComfyUI, and export the workflow again (Workflow, Export (API))"


@dataclass(frozen=True, slots=True)
class Workflow:
    """One file, checked."""

    name: str
    """Of the file."""
    nodes: Nodes
    slots: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]
    """For each slot the nodes that it fills, with their inputs."""
    output: str
    """Id of the node that gives the picture."""

    @property
    def over_picture(self) -> bool:
        """Does it draw over a given picture?"""
        return "image" in self.slots

    @property
    def canonical(self) -> str:
        """All that decides pixels, and nothing that a recipe fills: equal texts give equal pictures. Titles do not count."""
        nodes = {
            key: {"class_type": node["class_type"], "inputs": dict(node["inputs"])} for key, node in self.nodes.items()
        }
        for slot, places in self.slots.items():
            for key, names in places:
                nodes[key]["inputs"].update(dict.fromkeys(names, f"nightreel:{slot}"))
        nodes[self.output]["inputs"].pop("filename_prefix", None)
        return json.dumps(nodes, sort_keys=True)

    def filled(self, recipe: Recipe, image: str, prefix: str) -> Nodes:
        """What is sent for a recipe. `image`: the server's name of the picture to draw over; `prefix` of the output's file.

        ComfyUI's KSampler runs as many steps as it is told, over the last `denoise` of the noise.
        """
        values: dict[str, tuple[object, ...]] = {
            "prompt": (recipe.prompt, recipe.prompt),
            "seed": (recipe.seed,),
            "size": (recipe.width, recipe.height),
            "steps": (max(1, recipe.evaluations),),
            "image": (image,),
            "strength": (recipe.start.strength if recipe.start else 1.0,),
        }
        nodes = copy.deepcopy(self.nodes)
        for slot, places in self.slots.items():
            for key, names in places:
                nodes[key]["inputs"].update(zip(names, values.get(slot, ()), strict=False))
        if "filename_prefix" in nodes[self.output]["inputs"]:  # a new one, or ComfyUI would name a file of long ago
            nodes[self.output]["inputs"]["filename_prefix"] = prefix
        return nodes


def parse(name: str, text: str) -> Workflow:
    """Read a workflow. Raises SourceUnavailable, which names the file, the node and the mend."""
    nodes = _nodes(name, text)
    slots: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for key, node in nodes.items():
        for slot in _marks(name, key, node):
            slots.setdefault(slot, []).append((key, _inputs(name, key, node, slot)))
    _check_slots(name, nodes, slots)
    output = _output(name, nodes, [key for key, _ in slots.pop("output", [])])
    return Workflow(name, nodes, {slot: tuple(places) for slot, places in slots.items()}, output)


def revision(*workflows: Workflow) -> str:
    """Stands in recipes: a changed workflow makes new keyframes. The files of models that it names are part of it."""
    return hashlib.sha256("\n".join(each.canonical for each in workflows).encode()).hexdigest()[:32]


def title(key: str, node: Mapping[str, Any]) -> str:
    """How a person finds a node in ComfyUI's window."""
    return f"node {key} ({node.get('class_type', '?')})"


def _nodes(name: str, text: str) -> Nodes:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise SourceUnavailable(
            f"workflow {name} is no JSON ({exc}): export it again (Workflow, Export (API))"
        ) from exc
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        raise SourceUnavailable(
            f"workflow {name} is in the format of ComfyUI's window: export it in API format (Workflow, Export (API))"
        )
    if not isinstance(found, dict) or not found:
        raise SourceUnavailable(f"workflow {name} holds no nodes: export it in API format (Workflow, Export (API))")
    for key, node in found.items():
        whole = (
            isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
        )
        if not whole:
            raise SourceUnavailable(
                f"workflow {name}: node {key} lacks class_type or inputs: export it in API format (Workflow, Export (API))"
            )
    return found


def _marks(name: str, key: str, node: Mapping[str, Any]) -> list[str]:
    said = _MARK.search(str((node.get("_meta") or {}).get("title", "")))
    slots = [part.strip().lower() for part in said[1].split(",")] if said else []
    for slot in slots:
        if slot not in SLOTS:
            raise SourceUnavailable(
                f"workflow {name}: {title(key, node)} is titled nightreel:{slot}; there are {', '.join(SLOTS)}"
            )
    return slots


def _inputs(name: str, key: str, node: Mapping[str, Any], slot: str) -> tuple[str, ...]:
    """The node's inputs for a slot; one that is linked to another node cannot be filled."""
    if (names := _fitting(node, slot)) is None:
        wanted = " or ".join(" and ".join(group) for group in SLOTS[slot])
        raise SourceUnavailable(
            f"workflow {name}: {title(key, node)} is titled nightreel:{slot}, but has no input {wanted} of its own: title"
            " the node that holds the value"
        )
    return names


def _fitting(node: Mapping[str, Any], slot: str) -> tuple[str, ...] | None:
    own = {name for name, value in node["inputs"].items() if not isinstance(value, list)}
    return next((group for group in SLOTS[slot] if own.issuperset(group)), None)


def _check_slots(name: str, nodes: Nodes, slots: Mapping[str, object]) -> None:
    needed = NEEDED + (OVER_PICTURE if slots.keys() & set(OVER_PICTURE) else ())
    for slot in needed:
        if slot not in slots:
            likely = [title(key, node) for key, node in nodes.items() if _fitting(node, slot) is not None]
            hint = f"; {' and '.join(likely[:3])} could be it" if likely else ""
            raise SourceUnavailable(f"workflow {name}: no node is titled nightreel:{slot}: {_HOW}{hint}")


def _output(name: str, nodes: Nodes, marked: list[str]) -> str:
    found = marked or [key for key, node in nodes.items() if node["class_type"] in PICTURE_NODES]
    if not found:
        raise SourceUnavailable(
            f"workflow {name}: no node gives a picture: end it in SaveImage, or title your own node nightreel:output"
        )
    if len(found) > 1:
        several = ", ".join(title(key, nodes[key]) for key in found)
        raise SourceUnavailable(f"workflow {name}: {several} give pictures: title the one to take nightreel:output")
    return found[0]
