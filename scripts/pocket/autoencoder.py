"""The first training: the VAE, on crops of drawn pictures, on whole ones, and then its decoder alone.

What the decoder cannot draw no flow can: thing, colour and scene were right in 64 % of true pictures that had gone through a
VAE without the last part, and in 94 % of those with it, at 128x128.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from . import checkpoints
from .drawing import draw
from .layout import draw_layout
from .parts import make_vae
from .precision import mixed
from .scene import draw_scene
from .settings import SIZE_SHARES, Settings

RATE, LAST_RATE, WARM_STEPS = 2e-3, 2e-5, 50
KL_WEIGHT = 1e-5  # of a latent's divergence from the normal distribution, summed over its 16 channels
EDGE_WEIGHT = 0.5
WHOLE_SHARE = 0.4
"""Of the steps, the last: on a quarter as many whole pictures instead of crops. The VAE normalises over all of a picture, so
with crops alone colours drift in large ones (measured: 29.6 dB on whole pictures after 2100 steps with crops)."""
ASTRAY = 0.1
"""Of the latents' standard deviation: noise up to that is put on what the decoder learns from, for a flow is never quite right."""
ENCODED_AT_ONCE = 16

Pair = tuple[torch.Tensor, torch.Tensor]
"""uint8 pictures (count, 3, height, width), and their latents (count, 16, height / 8, width / 8)."""
Learnt = TypeVar("Learnt")


class VaeTraining:
    """Trains to the last step, from wherever the checkpoint in the folder stands: all of it first, then the decoder alone."""

    def __init__(self, settings: Settings, folder: Path, device: str) -> None:
        self._settings, self._device = settings, device
        self._path = folder / "vae.pt"
        self.vae = make_vae(settings.tiny, settings.seed_for("vae")).to(device)
        self.step = 0
        self._optimizer = self._optimizer_of_the_step()
        self._load()

    def run(self) -> Iterator[float]:
        """The loss after each step."""
        yield from self._train(self._settings.vae_steps, self._pictures, self._step)
        yield from self._train(self._settings.all_vae_steps, self._pairs, self._decoder_step)

    def _train(self, until: int, gather: Callable[[], Learnt], train: Callable[[Learnt], float]) -> Iterator[float]:
        if self.step >= until:
            return
        what = gather()
        self.vae.train()
        while self.step < until:
            loss = train(what)
            self.step += 1
            if self.step == self._settings.vae_steps:
                self._optimizer = self._optimizer_of_the_step()
            if self.step % self._settings.checkpoint_every == 0 or self.step in (until, self._settings.vae_steps):
                self._save()
            yield loss

    def _optimizer_of_the_step(self) -> torch.optim.AdamW:
        part = self.vae if self.step < self._settings.vae_steps else self.vae.decoder
        return torch.optim.AdamW(part.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)

    def _pictures(self) -> torch.Tensor:
        size = self._settings.sizes[0]
        return _draw_some("vae picture", self._settings.vae_pictures, *size, self._settings)

    def _step(self, pictures: torch.Tensor) -> float:
        chance = self._settings.generator("vae", self.step)
        whole = self.step >= (1 - WHOLE_SHARE) * self._settings.vae_steps
        pixels = _cut(pictures, self._settings.vae_batch, whole, chance).to(self._device)
        seen = self.vae.encode(pixels).latent_dist
        noise = torch.randn(seen.mean.shape, generator=chance).to(self._device)
        loss = _loss(self.vae.decode(seen.mean + seen.std * noise).sample, pixels) + KL_WEIGHT * _divergence(seen)
        return self._learn(loss, self.step, self._settings.vae_steps)

    def _pairs(self) -> list[Pair]:
        """Whole pictures of every native size, as the encoder sees them from now on."""
        pairs = []
        for size, share in zip(self._settings.sizes, SIZE_SHARES, strict=False):
            count = max(1, self._settings.vae_pictures * share // sum(SIZE_SHARES))
            pictures = _draw_some("decoder picture", count, *size, self._settings)
            with torch.no_grad():
                parts = [_to_range(part).to(self._device) for part in torch.split(pictures, ENCODED_AT_ONCE)]
                latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in parts])
            pairs.append((pictures, latents))
        return pairs

    def _decoder_step(self, pairs: list[Pair]) -> float:
        chance = self._settings.generator("vae", self.step)
        shares = torch.tensor([float(share) for share in SIZE_SHARES[: len(pairs)]])
        pictures, latents = pairs[int(torch.multinomial(shares, 1, generator=chance))]
        chosen = torch.randint(len(pictures), (max(1, self._settings.vae_batch // 4),), generator=chance)
        wanted, given = _to_range(pictures[chosen]).to(self._device), latents[chosen]
        astray = torch.randn(given.shape, generator=chance) * torch.rand(len(given), 1, 1, 1, generator=chance)
        given = given + ASTRAY * latents.std() * astray.to(self._device)
        with mixed(self._device):
            made = self.vae.decode(given.to(memory_format=torch.channels_last)).sample
        done = self.step - self._settings.vae_steps
        return self._learn(_loss(made.float(), wanted), done, self._settings.decoder_steps)

    def _learn(self, loss: torch.Tensor, step: int, steps: int) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._optimizer.param_groups[0]["params"], 1.0)
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
            self._optimizer = self._optimizer_of_the_step()
            self._optimizer.load_state_dict(state["optimizer"])


def peak_signal_to_noise(vae: Any, settings: Settings, count: int = 32) -> float:
    """Decibels, over new pictures of the first native size, without sampling."""
    width, height = settings.sizes[0]
    pixels = _to_range(_draw_some("vae test", count, width, height, settings))
    with torch.inference_mode():
        made = vae.decode(vae.encode(pixels.to(vae.device)).latent_dist.mode()).sample.clamp(-1, 1).cpu()
    return 10 * math.log10(4 / F.mse_loss(made, pixels).item())


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
