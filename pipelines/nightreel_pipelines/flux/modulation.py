"""A FLUX transformer without its modulation layers: their outputs are computed ahead. Imports torch.

A quarter of FLUX.1's weights are the linear layers of its adaptive norms. They read one vector alone, made of the timestep
and the prompt's pooled embedding, so their outputs (2 MB for each prompt and step) are the same all over the picture. The
layers stay in the host's memory and pass through the device one by one, once for all steps of a prompt. What they compute
there is what they would compute in their place, in the same shapes: pictures are equal to the last bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .placing import MODULATION

KEPT = 256  # vectors whose outputs are remembered: 0.5 GB of the device for FLUX.1


class Ahead(nn.Module):
    """Stands in for one modulation layer; gives what was put into it."""

    output: torch.Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("output", torch.empty(0), persistent=False)
        self.layer = [layer]  # in a list: no part of the module, so it is not moved with it

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.output


class Modulation:
    """Holds a transformer's modulation layers, and sets their outputs before each of its steps.

    `device`: where the transformer computes. The layers stay where they are.
    """

    def __init__(self, transformer: nn.Module, device: str) -> None:
        self._transformer = transformer
        self._device = device
        self._places = [_put_ahead(transformer, path) for path in _paths(transformer)]
        self._outputs: OrderedDict[bytes, list[torch.Tensor]] = OrderedDict()
        self.passes = 0
        """How often the layers went through the device."""
        transformer.register_forward_pre_hook(self._before_step, with_kwargs=True)

    @property
    def layers(self) -> Iterator[nn.Linear]:
        return (place.layer[0] for place in self._places)

    def compute(self, timesteps: Sequence[torch.Tensor], pooled: Sequence[torch.Tensor], guidance: float) -> None:
        """Compute ahead for each timestep (as the transformer gets it: (1,), from 0 to 1) and pooled embedding (1, width)."""
        config: Any = self._transformer.config
        scale = torch.full([1], guidance, device=self._device) if config.guidance_embeds else None
        with torch.inference_mode():
            self._ensure([self._vector(step.to(one.dtype), one, scale) for one in pooled for step in timesteps])

    def _before_step(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"].to(kwargs["hidden_states"].dtype)
        vector = self._vector(timestep, kwargs["pooled_projections"], kwargs["guidance"])
        (key,) = self._ensure([vector])
        for place, output in zip(self._places, self._outputs[key], strict=True):
            place.output = output

    def _vector(self, timestep: torch.Tensor, pooled: torch.Tensor, guidance: torch.Tensor | None) -> torch.Tensor:
        """What the layers read, (batch, width), as FluxTransformer2DModel.forward makes it."""
        embed: Any = self._transformer.time_text_embed
        if guidance is None:
            vector: torch.Tensor = embed(timestep * 1000, pooled)
        else:
            vector = embed(timestep * 1000, guidance.to(timestep.dtype) * 1000, pooled)
        return nn.functional.silu(vector)

    def _ensure(self, vectors: Sequence[torch.Tensor]) -> list[bytes]:
        """The keys of these vectors' outputs, which are there now."""
        keys = [_key(vector) for vector in vectors]
        missing = {key: vector for key, vector in zip(keys, vectors, strict=True) if key not in self._outputs}
        if missing:
            self.passes += 1
            for key in missing:
                self._outputs[key] = []
            for layer in self.layers:
                weight = layer.weight.to(self._device)
                bias = None if layer.bias is None else layer.bias.to(self._device)
                for key, vector in missing.items():
                    self._outputs[key].append(nn.functional.linear(vector, weight, bias))
        for key in keys:
            self._outputs.move_to_end(key)
        while len(self._outputs) > max(KEPT, len(keys)):
            self._outputs.popitem(last=False)
        return keys


def _paths(transformer: nn.Module) -> list[str]:
    return [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and MODULATION.fullmatch(f"{name}.weight")
    ]


def _put_ahead(transformer: nn.Module, path: str) -> Ahead:
    parent, _, name = path.rpartition(".")
    owner = transformer.get_submodule(parent)
    ahead = Ahead(owner.get_submodule(name))  # type: ignore[arg-type]  # get_submodule tells no kind
    setattr(owner, name, ahead)
    return ahead


def _key(vector: torch.Tensor) -> bytes:
    made: bytes = vector.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    return made
