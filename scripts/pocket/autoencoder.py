"""The first training: the VAE, on crops of drawn pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import checkpoints
from .drawing import draw
from .layout import draw_layout
from .parts import make_vae
from .scene import draw_scene
from .settings import Settings

RATE, LAST_RATE, WARM_STEPS = 2e-3, 2e-5, 50
KL_WEIGHT = 1e-5  # of a latent's divergence from the normal distribution, summed over its 16 channels
EDGE_WEIGHT = 0.5
WHOLE_SHARE = 0.4
"""Of the steps, the last: on a quarter as many whole pictures instead of crops. The VAE normalises over all of a picture, so
with crops alone colours drift in large ones (measured: 29.6 dB on whole pictures after 2100 steps with crops)."""


class VaeTraining:
    """Trains to the last step, from wherever the checkpoint in the folder stands."""

    def __init__(self, settings: Settings, folder: Path, device: str) -> None:
        self._settings, self._device = settings, device
        self._path = folder / "vae.pt"
        self.vae = make_vae(settings.tiny, settings.seed_for("vae")).to(device)
        self._optimizer = torch.optim.AdamW(self.vae.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
        self.step = 0
        self._load()

    def run(self) -> Iterator[float]:
        """The loss after each step."""
        if self.step == self._settings.vae_steps:
            return
        pictures = _pictures(self._settings)
        self.vae.train()
        while self.step < self._settings.vae_steps:
            loss = self._step(pictures)
            self.step += 1
            if self.step % self._settings.checkpoint_every == 0 or self.step == self._settings.vae_steps:
                self._save()
            yield loss

    def _step(self, pictures: torch.Tensor) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(self.step, self._settings.vae_steps)
        chance = self._settings.generator("vae", self.step)
        whole = self.step >= (1 - WHOLE_SHARE) * self._settings.vae_steps
        pixels = _cut(pictures, self._settings.vae_batch, whole, chance).to(self._device)
        seen = self.vae.encode(pixels).latent_dist
        noise = torch.randn(seen.mean.shape, generator=chance).to(self._device)
        loss = _loss(self.vae.decode(seen.mean + seen.std * noise).sample, pixels) + KL_WEIGHT * _divergence(seen)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def _save(self) -> None:
        state = {"step": self.step, "vae": self.vae.state_dict(), "optimizer": self._optimizer.state_dict()}
        checkpoints.save(self._path, state)

    def _load(self) -> None:
        state = checkpoints.load(self._path)
        if state is not None:
            self.step = state["step"]
            self.vae.load_state_dict(state["vae"])
            self._optimizer.load_state_dict(state["optimizer"])


def peak_signal_to_noise(vae: Any, settings: Settings, count: int = 32) -> float:
    """Decibels, over new pictures of the first native size, without sampling."""
    width, height = settings.sizes[0]
    pixels = _to_range(_draw_some("vae test", count, width, height, settings))
    with torch.inference_mode():
        made = vae.decode(vae.encode(pixels.to(vae.device)).latent_dist.mode()).sample.clamp(-1, 1).cpu()
    return 10 * math.log10(4 / F.mse_loss(made, pixels).item())


def _pictures(settings: Settings) -> torch.Tensor:
    width, height = settings.sizes[0]
    return _draw_some("vae picture", settings.vae_pictures, width, height, settings)


def _draw_some(name: str, count: int, width: int, height: int, settings: Settings) -> torch.Tensor:
    """uint8 (count, 3, height, width)."""
    drawn = []
    for number in range(count):
        seed = settings.seed_for(name, number)
        scene = draw_scene(random.Random(seed))
        layout, _ = draw_layout(scene, (width, height), np.random.default_rng(seed))
        drawn.append(draw(scene, layout, width, height))
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def _cut(pictures: torch.Tensor, count: int, whole: bool, chance: torch.Generator) -> torch.Tensor:
    """Some pictures' squares of half the height, or a quarter as many whole ones: float32 (some, 3, H, W) from -1 to 1."""
    if whole:
        chosen = torch.randint(len(pictures), (max(1, count // 4),), generator=chance)
        return _to_range(pictures[chosen]).to(memory_format=torch.channels_last)
    side = pictures.shape[2] // 2
    chosen = torch.randint(len(pictures), (count,), generator=chance)
    top, left = (
        int(torch.randint(0, (length - side) // 8 + 1, (1,), generator=chance)) * 8 for length in pictures.shape[2:]
    )
    cut = pictures[chosen, :, top : top + side, left : left + side]
    return _to_range(cut).to(memory_format=torch.channels_last)


def _to_range(levels: torch.Tensor) -> torch.Tensor:
    return levels.float() / 127.5 - 1


def _loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute and squared differences, and those of neighbouring pixels, which keep edges sharp."""
    difference = made - wanted
    across, down = difference.diff(dim=3).abs().mean(), difference.diff(dim=2).abs().mean()
    return difference.abs().mean() + 2 * difference.square().mean() + EDGE_WEIGHT * (across + down)


def _divergence(seen: Any) -> torch.Tensor:
    """Mean over latents of the Kullback-Leibler divergence from the normal distribution (Kingma & Welling 2014)."""
    divergence: torch.Tensor = 0.5 * (seen.mean.square() + seen.var - 1 - seen.logvar).sum(1).mean()
    return divergence


def _rate(step: int, steps: int) -> float:
    """Rises for 50 steps, then falls along a cosine."""
    return RATE * min(1.0, (step + 1) / WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps)) + LAST_RATE
