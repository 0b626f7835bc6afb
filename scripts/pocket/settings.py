"""What a training is told, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

FIRST_SIZES = ((96, 96),)
SIZES = ((128, 128), (160, 96), (96, 160), (144, 112), (112, 144))
"""(width, height) in pixels: pocket's native sizes."""
SIZE_SHARES = (3, 3, 2, 1, 1)
"""Of the pictures and of the steps, by SIZES."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Equal settings on one thread of one machine give equal weights, byte for byte."""

    seed: int = 0
    vae_steps: int = 2400
    decoder_steps: int = 6000
    """After that, of the VAE's decoder alone: cheaper, and where a picture's sharpness comes from."""
    vae_batch: int = 16
    flow_steps: int = 10_000
    flow_batch: int = 64
    first_share: float = 0.3
    """Of the flow's steps, made at 96x96 alone: fewer tokens, so more pictures a second."""
    pictures: int = 12_000
    """Drawn for the flow at 96x96, and as many again at all other sizes together."""
    vae_pictures: int = 2000
    checkpoint_every: int = 250
    """Steps: what a kill can cost."""
    tiny: bool = False
    """A model and pictures as small as they can be: shows that everything works, and learns nothing."""

    @classmethod
    def for_tests(cls, seed: int = 0) -> Settings:
        return cls(seed, 4, 2, 2, 6, 2, 0.5, 5, 4, 2, tiny=True)

    @property
    def all_vae_steps(self) -> int:
        return self.vae_steps + self.decoder_steps

    @property
    def first_steps(self) -> int:
        return int(self.flow_steps * self.first_share)

    @property
    def first_sizes(self) -> tuple[tuple[int, int], ...]:
        return ((32, 32),) if self.tiny else FIRST_SIZES

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return ((48, 32), (32, 48)) if self.tiny else SIZES

    def claim(self, folder: Path) -> None:
        """Make the folder this training's own. Raises SystemExit when one with other settings was begun there."""
        folder.mkdir(parents=True, exist_ok=True)
        path, text = folder / "settings.json", json.dumps(asdict(self), indent=2) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{folder} holds a training with other settings ({path}): choose another folder")
        path.write_text(text, encoding="utf-8")

    def seed_for(self, *names: object) -> int:
        """A seed below 2**63 for one purpose, such as ("flow", step): nothing has to be remembered over a restart."""
        digest = hashlib.sha256("/".join(str(name) for name in (self.seed, *names)).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def generator(self, *names: object) -> torch.Generator:
        """Chance for one purpose, on the CPU whatever the training runs on."""
        return torch.Generator("cpu").manual_seed(self.seed_for(*names))
