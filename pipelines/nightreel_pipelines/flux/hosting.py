"""A text encoder whose weights wait in the host's memory: each layer's come to the device while it works. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Hosted:
    """Moves a model to the host; `back` moves it to the device again. Its inputs stay on the device.

    Used when the device is too small for text encoder and transformer at once: it costs one pass of the weights over the
    bus for each prompt.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        self._model, self._device = model, device
        model.to("cpu")
        self._hooks = []
        for module in model.modules():
            if any(
                True
                for tensors in (module._parameters, module._buffers)
                for each in tensors.values()
                if each is not None
            ):
                visit = _Visit(device)
                self._hooks += [
                    module.register_forward_pre_hook(visit.come),
                    module.register_forward_hook(visit.leave, always_call=True),
                ]

    def back(self) -> None:
        """Keep the model on the device again. Raises torch.OutOfMemoryError."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._model.to(self._device)


class _Visit:
    """One module's own tensors, for one call on the device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._at_home: dict[str, torch.Tensor] = {}

    def come(self, module: nn.Module, _: Any) -> None:
        tensors = {**module._parameters, **module._buffers}
        self._at_home = {name: tensor.data for name, tensor in tensors.items() if tensor is not None}
        for name, tensor in self._at_home.items():
            _set(module, name, tensor.to(self._device))

    def leave(self, module: nn.Module, _: Any, __: Any) -> None:
        for name, tensor in self._at_home.items():
            _set(module, name, tensor)
        self._at_home = {}


def _set(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    if name in module._buffers:
        module._buffers[name] = tensor
        return
    parameter = module._parameters[name]
    assert parameter is not None
    parameter.data = tensor
