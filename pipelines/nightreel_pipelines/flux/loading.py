"""A folder in diffusers' layout -> a FluxPipeline that is ready to paint. Imports torch and diffusers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # read once, when the hub's client is imported: weights are a folder, never a download
)

import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging

# Both libraries write advice to the worker's log: to install torchvision (which breaks CPU installs), that CLIP reads
# only the start of a long prompt (FLUX is made so). What matters of it, weights that are missing, is an error below.
for _logging in (diffusers_logging, transformers_logging):
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()

from accelerate import init_empty_weights
from diffusers import FluxControlNetModel, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from ..base import LoadingHeard
from .control import load_control
from .dtypes import COMPUTED_IN
from .filling import fill
from .hosting import Hosted
from .modulation import Modulation
from .placing import MODULATION, Placement
from .tensors import list_tensors

_PARTS = ("text_encoder", "text_encoder_2", "transformer", "vae")


class Loader:
    """Loads a model in the order of need: CLIP and the VAE at once, then T5, then the transformer.

    The last two are built without memory and filled in place, from several files at a time. `heard` gets what came in.
    Every method raises whatever the libraries raise, and LookupError when tensors are missing.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        heard: LoadingHeard = lambda *_: None,
        controls: Mapping[str, Path] | None = None,
    ) -> None:
        """`controls`: folders of control checkpoints, by type."""
        self._folder, self._placement, self._control_folders = folder, placement, controls or {}
        self._dtype = COMPUTED_IN[placement.computed_in]
        parts = (folder / "text_encoder_2", folder / "transformer", *self._control_folders.values())
        self._meter = _Meter(sum(map(_size_bytes, parts)), heard)
        self.controls: dict[str, FluxControlNetModel] = {}
        self.modulation: Modulation | None = None
        self.hosted: Hosted | None = None
        self.pipe = self._build()

    def load_text(self) -> None:
        """Fill T5: prompts can be read now."""
        device = "cpu" if self._placement.t5_on_host else self._placement.device
        self._fill(self.pipe.text_encoder_2, "text_encoder_2", device)
        if self._placement.t5_on_host:
            self.hosted = Hosted(self.pipe.text_encoder_2, self._placement.device)

    def load_pictures(self) -> None:
        """Fill the transformer and load what steers it: pictures can be made now."""
        transformer = self.pipe.transformer
        if self._placement.modulation_on_host:
            self._fill(transformer, "transformer", self._placement.device, host=MODULATION.fullmatch)
            self.modulation = Modulation(transformer, self._placement.device)
        else:
            self._fill(transformer, "transformer", self._placement.device)
        for kind, folder in self._control_folders.items():
            self.controls[kind] = load_control(kind, folder, self._dtype, self._placement.device, self._meter.add)

    @property
    def placed(self) -> str:
        """As `placed`, with the control checkpoints."""
        nets = (f"control.{kind}: {_held(net)}" for kind, net in self.controls.items())
        return "; ".join((placed(self.pipe), *nets))

    def _build(self) -> FluxPipeline:
        clip, report = CLIPTextModel.from_pretrained(
            self._folder / "text_encoder",
            dtype=self._dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        if report["missing_keys"]:  # transformers fills them with random numbers, and tells only who asks
            raise LookupError(f"text_encoder lacks {', '.join(sorted(report['missing_keys'])[:3])}")
        with init_empty_weights(include_buffers=False):
            t5 = T5EncoderModel(T5Config.from_pretrained(self._folder / "text_encoder_2", local_files_only=True))
            config = FluxTransformer2DModel.load_config(self._folder / "transformer", local_files_only=True)
            transformer = FluxTransformer2DModel.from_config(config)
        pipe = FluxPipeline.from_pretrained(
            self._folder,
            text_encoder=clip,
            text_encoder_2=t5,
            transformer=transformer,
            dtype=self._dtype,
            local_files_only=True,
            use_safetensors=True,
        )
        pipe.set_progress_bar_config(disable=True)
        for name in _PARTS:
            getattr(pipe, name).eval().requires_grad_(False)
        for part in (pipe.text_encoder, pipe.vae):
            part.to(self._placement.device)
        return pipe

    def _fill(self, model: nn.Module, part: str, device: str, **options: Any) -> None:
        matmul = self._placement.matmul
        fill(model, self._folder / part, self._dtype, device, matmul=matmul, read=self._meter.add, **options)


def load_pipeline(folder: Path, placement: Placement) -> FluxPipeline:
    """Load all parts. Raises as Loader does."""
    loader = Loader(folder, placement)
    loader.load_text()
    loader.load_pictures()
    return loader.pipe


def placed(pipe: FluxPipeline) -> str:
    """Where the parts lie, in which numbers, in GiB: "transformer: 11.1 fp8 on cuda, 0.1 bf16 on cuda; vae: ..."."""
    return "; ".join(f"{name}: {_held(getattr(pipe, name))}" for name in _PARTS)


def _held(model: nn.Module) -> str:
    held: dict[tuple[str, str], int] = {}
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        tensors += [
            tensor
            for layer in getattr(module, "layer", ())
            if isinstance(layer, nn.Linear)
            for tensor in layer.parameters()
        ]
    for tensor in tensors:
        key = (_NUMBERS.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")), tensor.device.type)
        held[key] = held.get(key, 0) + tensor.nbytes
    most = sorted(held.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{size / 2**30:.2f} GiB {numbers} on {device}" for (numbers, device), size in most if size >= 2**10
    )


_NUMBERS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float8_e4m3fn: "fp8"}


class _Meter:
    """Counts bytes for whoever watches."""

    def __init__(self, all_bytes: int, heard: LoadingHeard) -> None:
        self._all, self._done = all_bytes, 0
        self._heard = heard
        self._began = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        self._heard(self._done, self._all, self._done / max(1e-6, time.monotonic() - self._began))


def _size_bytes(part: Path) -> int:
    return sum(tensor.size_bytes for tensor in list_tensors(part).values())
