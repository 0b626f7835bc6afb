"""FluxSource: keyframes by any model of the FLUX family that diffusers' FluxPipeline loads from a folder.

torch is imported to describe the source, diffusers only to load it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import Description, LoadingHeard, Picture, Pictures, Tick
from ..errors import SourceUnavailable
from ..models import ModelSpec
from ..recipe import Recipe
from .checkpoints import check_controls, sizes_gib
from .placing import Card, Placement, place
from .prepared import manifest_of
from .revision import revision

if TYPE_CHECKING:
    from .engine import Engine
    from .ladder import Allocating

NAME = "flux/1"  # part of every recipe: a change that changes pixels raises the number
_LIBRARIES = ("torch", "diffusers", "transformers")


class FluxSource:
    """Makes keyframes one at a time, so that on a CPU none depends on its neighbours: equal recipes, equal bits.

    Runs on the first CUDA device that is visible, else on the CPU (CUDA_VISIBLE_DEVICES= forces that).
    """

    def __init__(self, spec: ModelSpec, weights_root: Path | None, *, allocating: Allocating | None = None) -> None:
        """`allocating` hears of every tensor that is made while pictures are, by its number of elements, and may raise
        torch.OutOfMemoryError: a GPU with little memory on a machine that has none.
        """
        self._spec = spec
        self._weights_root = weights_root
        self._allocating = allocating
        self._described: tuple[Description, Placement] | None = None
        self._expected: tuple[Sequence[Recipe], LoadingHeard] = ((), lambda *_: None)
        self._engine: Engine | None = None

    def describe(self) -> Description:
        """Look at the folder and the device, once; loads no weights, but reads samples of them to name them."""
        return self._decided()[0]

    def expect(self, recipes: Sequence[Recipe], heard: LoadingHeard) -> None:
        """As in LargeSource: their prompts are read while the larger half of the model comes in."""
        self._expected = recipes, heard

    def load(self) -> None:
        """Bring the whole model onto the device: 12 s on a CPU for pocket, nearly all of it imports."""
        (_, placement), folder = self._decided(), self._folder()
        controls = self._spec.control_folders(self._weights_root)
        recipes, heard = self._expected
        try:
            from .engine import Engine

            self._engine = Engine(
                folder,
                self._spec,
                placement,
                controls=controls,
                expected=recipes,
                heard=heard,
                allocating=self._allocating,
            )
        except SourceUnavailable:
            raise
        except Exception as exc:  # four libraries read these files, and each has errors of its own
            raise SourceUnavailable(f"model {self._spec.name}: cannot load {folder}: {_mend(exc)}") from exc

    @property
    def placement(self) -> str:
        """As in LargeSource."""
        return self._engine.placement if self._engine else ""

    def keyframes(self, recipes: Sequence[Recipe], pictures: Pictures, tick: Tick) -> Iterator[tuple[Recipe, Picture]]:
        """All prompts are read before the first picture is begun; Source tells the rest."""
        if self._engine is None:
            raise RuntimeError("load() comes before keyframes()")
        yield from self._engine.keyframes(recipes, pictures, tick)

    def _decided(self) -> tuple[Description, Placement]:
        if self._described is None:
            folder, controls = self._folder(), self._spec.control_folders(self._weights_root)
            check_controls(self._spec, folder, controls)
            placement = self._placed(folder, controls)
            revisions = {kind: _revision(place) for kind, place in controls.items()}
            description = Description(NAME, _revision(folder), placement.precision, placement.device, revisions)
            self._described = description, placement
        return self._described

    def _placed(self, folder: Path, controls: Mapping[str, Path]) -> Placement:
        prepared = manifest_of(folder) is not None
        card = _card(self._spec)
        beside_gib = sizes_gib(self._spec, controls)
        try:
            return place(self._spec.precision, folder, card, prepared=prepared, beside_gib=beside_gib)
        except (LookupError, ValueError, OSError) as exc:
            raise SourceUnavailable(f"model {self._spec.name}: {_mend(exc)}") from exc

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


def _card(spec: ModelSpec) -> Card | None:
    """The first GPU that is visible, or None."""
    missing = [library for library in _LIBRARIES if find_spec(library) is None]
    if missing:
        raise SourceUnavailable(
            f"model {spec.name} needs {', '.join(missing)}: pip install 'nightreel[cpu]' (or [gpu])"
        )
    # Read when torch is first imported. Its threads otherwise spin while they wait, and where the CPU is shared, as it is
    # with the encoder of the film before, a keyframe took twenty times as long (measured: 1.4 s instead of 0.07 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .card import find_card

    return find_card(spec.gpu_memory_gib)


def _mend(exc: Exception) -> str:
    from .memory import is_out_of_memory

    if is_out_of_memory(exc):
        return "not enough memory; use a larger machine, or set the model's precision to bf16"
    if isinstance(exc, ImportError):
        return f"{_first_line(exc)}; pip install 'nightreel[cpu]'"
    return f"{_first_line(exc)}; copy the whole model there again"


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
