"""The second training: text encoders and transformer, by flow matching (Lipman et al. 2023, Liu et al. 2023).

Between latents x and noise n lie x_t = (1 - t) x + t n; the transformer learns the velocity n - x from x_t, t and a
caption. Noise is not drawn independently of the picture: it says where the thing stands and how the ground lies (layout.py).
So the first of four steps sees which of all pictures of a caption will be drawn. With independent noise it sees only their
mean, a faint thing at every place that it might have, and boats come in twos. The noise stays normally distributed, because places are drawn
evenly and what is said there normally. (Couplings that are made for straight paths and few steps: Liu et al. 2023,
"Flow straight and fast"; Pooladian et al. 2023, "Multisample flow matching".)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import checkpoints
from .dataset import Batch, Dataset
from .layout import GROUND_SAID, SAID
from .parts import Painter
from .precision import mixed
from .settings import Settings

RATE, LAST_RATE, WARM_STEPS = 1.5e-3, 2e-5, 100
AVERAGE, AVERAGE_WARM = 0.998, 20
"""Of the parameters' moving average, which is what is written in the end; short at first."""
GRID = (1.0, 0.75, 0.5, 0.25)
GRID_SHARES = (0.35, 0.18, 0.14, 0.13)
"""Of the noise levels that a picture of four steps visits; what remains is spread by a logistic-normal distribution."""
SPREAD = 1.2


class FlowTraining:
    """Trains to the last step, from wherever the checkpoint in the folder stands."""

    def __init__(self, painter: Painter, settings: Settings, folder: Path, device: str) -> None:
        self._painter, self._settings, self._device = painter, settings, device
        self._path = folder / "flow.pt"
        for module in painter.modules:
            module.to(device).train()
        self._parameters = painter.parameters
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer = torch.optim.AdamW(self._parameters, RATE, betas=(0.9, 0.98), weight_decay=0.01)
        self.step = 0
        self._load()

    def run(self, datasets: list[Dataset], shares: list[float], until: int) -> Iterator[float]:
        """The loss after each step, up to step `until`; each step takes pictures of one dataset."""
        while self.step < until:
            chance = self._settings.generator("flow", self.step)
            chosen = int(torch.multinomial(torch.tensor(shares), 1, generator=chance))
            loss = self._step(datasets[chosen].batch(self._settings.flow_batch, chance, self._device), chance)
            self.step += 1
            if self.step % self._settings.checkpoint_every == 0 or self.step == self._settings.flow_steps:
                self._save()
            yield loss

    def use_average(self) -> None:
        """Put the moving average into the painter, to be written; training cannot go on after that."""
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._average, strict=True):
                parameter.copy_(average)

    def _step(self, batch: Batch, chance: torch.Generator) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(self.step, self._settings.flow_steps)
        noise = couple(torch.randn(batch.latents.shape, generator=chance).to(self._device), batch)
        level = noise_levels(len(noise), chance).to(self._device)
        share = level.view(-1, 1, 1)
        # CPUs' fused attention is the slowest part of it in 16 bits, and so few tokens fit into memory without it
        with mixed(self._device), sdpa_kernel(SDPBackend.MATH):
            velocity = _velocity(self._painter, batch, (1 - share) * batch.latents + share * noise, level).float()
        loss = (batch.weights * (velocity - (noise - batch.latents)).square()).mean()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._follow()
        return float(loss.detach())

    def _follow(self) -> None:
        """Move the average a little towards the parameters."""
        kept = min(AVERAGE, (self.step + 1) / (self.step + AVERAGE_WARM))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self._parameters], 1 - kept)

    def _save(self) -> None:
        modules = [module.state_dict() for module in self._painter.modules]
        state: dict[str, Any] = {"step": self.step, "modules": modules, "average": self._average}
        checkpoints.save(self._path, state | {"optimizer": self._optimizer.state_dict()})

    def _load(self) -> None:
        state = checkpoints.load(self._path)
        if state is None:
            return
        self.step = state["step"]
        for module, values in zip(self._painter.modules, state["modules"], strict=True):
            module.load_state_dict(values)
        self._average = [average.to(self._device) for average in state["average"]]
        self._optimizer.load_state_dict(state["optimizer"])


def couple(noise: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Noise (batch, tokens, 64) that says the layouts of the batch.

    The greatest of the first numbers where the thing might stand changes places with the one where it stands.
    """
    rows, place = torch.arange(len(noise), device=noise.device), batch.place
    greatest = noise[..., 0].masked_fill(~batch.possible, -math.inf).argmax(1)
    coupled = noise.clone()
    coupled[rows, greatest, 0] = noise[rows, place, 0]
    coupled[rows, place, 0] = noise[rows, greatest, 0]
    coupled[rows, place, 1 : 1 + SAID] = batch.said
    coupled[:, 0, 1 + SAID : 1 + SAID + GROUND_SAID] = batch.ground  # other numbers: the place may be the first token
    return coupled


def noise_levels(count: int, chance: torch.Generator) -> torch.Tensor:
    """float32 (count,), from 0, which is a picture, to 1, which is noise."""
    shares = torch.tensor((*GRID_SHARES, 1 - sum(GRID_SHARES)))
    place = torch.multinomial(shares, count, replacement=True, generator=chance)
    elsewhere = torch.sigmoid(SPREAD * torch.randn(count, generator=chance))
    return torch.where(place < len(GRID), torch.tensor((*GRID, 0.0))[place], elsewhere)


def _velocity(painter: Painter, batch: Batch, mixed: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    velocity: torch.Tensor = painter.transformer(
        hidden_states=mixed,
        timestep=level,
        guidance=None,
        pooled_projections=painter.clip(batch.clip).pooler_output,
        encoder_hidden_states=painter.t5(batch.t5)[0],
        txt_ids=torch.zeros(batch.t5.shape[1], 3, device=mixed.device),
        img_ids=batch.places,
        return_dict=False,
    )[0]
    return velocity


def _rate(step: int, steps: int) -> float:
    """Rises for 100 steps, then falls as the root of what is left."""
    return RATE * min(1.0, (step + 1) / WARM_STEPS) * math.sqrt(1 - step / steps) + LAST_RATE
