"""FluxSource: keyframes by any model of the FLUX family that diffusers' FluxPipeline loads from a folder.

torch is imported to describe the source, diffusers only to load it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import Description, Picture, Pictures, Tick
from ..errors import SourceUnavailable
from ..models import ModelSpec
from ..recipe import Recipe
from .revision import revision

if TYPE_CHECKING:
    from diffusers import FluxPipeline

    from .text import TextEncoder

NAME = "flux/1"  # part of every recipe: a change that changes pixels raises the number
_LIBRARIES = ("torch", "diffusers", "transformers")


class FluxSource:
    """Makes keyframes one at a time, so that on a CPU none depends on its neighbours: equal recipes, equal bits.

    Runs on the first CUDA device that is visible, else on the CPU (CUDA_VISIBLE_DEVICES= forces that).
    """

    def __init__(self, spec: ModelSpec, weights_root: Path | None) -> None:
        self._spec = spec
        self._weights_root = weights_root
        self._description: Description | None = None
        self._loaded: tuple[FluxPipeline, TextEncoder] | None = None

    def describe(self) -> Description:
        """Look at the folder and the device, once; loads no weights, but reads samples of them to name them."""
        if self._description is None:
            folder = self._folder()
            device = _device(self._spec)
            self._description = Description(NAME, _revision(folder), _precision(self._spec, device), device)
        return self._description

    def load(self) -> None:
        """Bring the whole model onto the device: 12 s on a CPU for pocket, nearly all of it imports."""
        description, folder = self.describe(), self._folder()
        try:
            from .loading import load_pipeline
            from .text import TextEncoder

            pipe = load_pipeline(folder, description.precision, description.device)
        except Exception as exc:  # four libraries read these files, and each has errors of its own
            raise SourceUnavailable(f"model {self._spec.name}: cannot load {folder}: {_mend(exc)}") from exc
        self._loaded = pipe, TextEncoder(pipe, self._spec)

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        """All prompts are read before the first picture is begun; Source tells the rest."""
        from ..beginning import beginning
        from .mixing import mixed, prompts_of
        from .paint import check_size, paint

        if self._loaded is None:
            raise RuntimeError("load() comes before keyframes()")
        pipe, encoder = self._loaded
        for recipe in recipes:
            check_size(pipe, recipe)
        texts = encoder.encode(map(prompts_of, recipes), tick)
        for recipe in recipes:
            text = mixed(texts[prompts_of(recipe)], recipe)
            yield recipe, paint(pipe, recipe, text, beginning(recipe, pictures), tick)

    def _folder(self) -> Path:
        """The weights' folder, with every part that its index names; from_pretrained makes empty ones of some."""
        if self._spec.options:
            raise SourceUnavailable(f"model {self._spec.name}: source flux has no options; remove them")
        folder = self._spec.folder(self._weights_root)
        missing = [part for part in _parts(self._spec, folder / "model_index.json") if not (folder / part).is_dir()]
        if missing:
            raise SourceUnavailable(
                f"model {self._spec.name}: {folder} has no {', '.join(missing)}; copy the whole model there again"
            )
        return folder


def _parts(spec: ModelSpec, index: Path) -> list[str]:
    """Names of the parts, from the index of a pipeline in diffusers' layout: {"vae": ["diffusers", "AutoencoderKL"]}."""
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        pipeline = entries["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise SourceUnavailable(
            f"model {spec.name}: {index} cannot be read ({_first_line(exc)}); put a model in diffusers' layout there"
        ) from exc
    if pipeline != "FluxPipeline":
        raise SourceUnavailable(
            f"model {spec.name}: {index.parent} holds a {pipeline}; source flux needs a FluxPipeline"
        )
    return [name for name, entry in entries.items() if isinstance(entry, list) and entry[0] is not None]


def _revision(folder: Path) -> str:
    try:
        return revision(folder)
    except OSError as exc:
        raise SourceUnavailable(f"cannot read the weights in {folder}: {exc}") from exc


def _device(spec: ModelSpec) -> str:
    missing = [library for library in _LIBRARIES if find_spec(library) is None]
    if missing:
        raise SourceUnavailable(
            f"model {spec.name} needs {', '.join(missing)}: pip install 'nightreel[cpu]' (or [gpu])"
        )
    # Read when torch is first imported. Its threads otherwise spin while they wait, and where the CPU is shared, as it is
    # with the encoder of the film before, a keyframe took twenty times as long (measured: 1.4 s instead of 0.07 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _precision(spec: ModelSpec, device: str) -> str:
    if spec.precision != "auto":
        return spec.precision
    return "bf16" if device == "cuda" else "fp32"


def _mend(exc: Exception) -> str:
    from .memory import is_out_of_memory

    if is_out_of_memory(exc):
        return "not enough memory; use a larger machine, or set the model's precision to bf16"
    if isinstance(exc, ImportError):
        return f"{_first_line(exc)}; pip install 'nightreel[cpu]'"
    return f"{_first_line(exc)}; copy the whole model there again"


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
