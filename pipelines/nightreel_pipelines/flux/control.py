"""Control checkpoints at work: before each step of the transformer they read what it is about to read, and a picture.

Their outputs are added to the transformer's own, as diffusers' FluxControlNetPipeline does it. Here a hook of the transformer
runs them instead, so that one pipeline makes all keyframes, and each in a batch has a picture, a scale and steps of its own.
Imports torch and diffusers.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import FluxControlNetModel, FluxPipeline

from ..base import Pictures
from ..camera import fit
from ..errors import SourceUnavailable
from ..recipe import Control, Recipe, steered
from .checkpoints import MODES
from .filling import fill
from .noise import encode, to_pixels

# FluxControlNetModel takes its position embedding from a place that diffusers itself gives up: no news for an operator.
warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)

KEPT = 16  # pictures that are remembered as the checkpoint reads them: 1 MiB each at a megapixel


def load_control(
    kind: str, folder: Path, dtype: torch.dtype, device: str, read: Callable[[int], None]
) -> FluxControlNetModel:
    """Load a checkpoint; `read` gets the bytes that came in. Raises SourceUnavailable with the folder and the mend."""
    try:
        with init_empty_weights(include_buffers=False):
            config = FluxControlNetModel.load_config(folder, local_files_only=True)
            net = FluxControlNetModel.from_config(config)
        fill(net, folder, dtype, device, matmul=False, read=read)
    except (LookupError, ValueError, TypeError, OSError) as exc:
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise SourceUnavailable(
            f"control.{kind}: cannot load {folder}: {reason}; copy the whole checkpoint there again, as safetensors"
        ) from exc
    return net.eval().requires_grad_(False)


class Controls:
    """The control checkpoints of a model, by type."""

    def __init__(self, pipe: FluxPipeline, nets: Mapping[str, FluxControlNetModel]) -> None:
        self._pipe, self._nets = pipe, nets
        self._kept: OrderedDict[tuple[str, str, int, int], torch.Tensor] = OrderedDict()

    @contextmanager
    def steering(self, recipes: Sequence[Recipe], pictures: Pictures) -> Iterator[None]:
        """While it is entered, the pipeline draws these recipes, which have controls of one type, or none."""
        controls = [recipe.control for recipe in recipes if recipe.control is not None]
        if not controls:
            yield
            return
        net = self._nets[controls[0].type]
        seen = torch.cat(
            [self._seen(net, recipe, control, pictures) for recipe, control in zip(recipes, controls, strict=True)]
        )
        hook = _Hook(net, recipes, controls, seen)
        handle = self._pipe.transformer.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _seen(self, net: FluxControlNetModel, recipe: Recipe, control: Control, pictures: Pictures) -> torch.Tensor:
        """The picture, fitted to the keyframe, as the checkpoint reads it: packed latents, or pixels for one that has eyes.

        The latents are the likeliest ones where FluxControlNetPipeline samples: a picture is the same for every seed.
        """
        key = (control.type, control.picture, recipe.width, recipe.height)
        if key not in self._kept:
            picture = fit(pictures(control.picture), recipe.width, recipe.height)
            if net.input_hint_block is None:
                latents = encode(self._pipe, picture)
                self._kept[key] = self._pipe._pack_latents(latents, *latents.shape)
            else:
                self._kept[key] = to_pixels(picture)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


class _Hook:
    """Runs before each step of the transformer, from the first."""

    def __init__(
        self, net: FluxControlNetModel, recipes: Sequence[Recipe], controls: Sequence[Control], seen: torch.Tensor
    ) -> None:
        self._net, self._seen, self._type = net, seen, controls[0].type
        self._guidance = torch.full([len(recipes)], recipes[0].guidance) if net.config.guidance_embeds else None
        count = recipes[0].evaluations
        steps = [steered(control.start, control.end, count) for control in controls]
        scales = [
            [control.scale if on[index] else 0.0 for control, on in zip(controls, steps, strict=True)]
            for index in range(count)
        ]
        self._scales = iter(scales)

    def __call__(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        scales = next(self._scales)
        if not any(scales):
            return None
        hidden = kwargs["hidden_states"]
        factors = torch.tensor(scales, device=hidden.device)[:, None, None]
        double, single = self._net(
            hidden_states=hidden,
            controlnet_cond=self._seen.to(hidden.device, hidden.dtype),
            controlnet_mode=self._mode(len(scales), hidden.device),
            guidance=None if self._guidance is None else self._guidance.to(hidden.device),
            return_dict=False,
            **{name: kwargs[name] for name in _PASSED_ON},
        )
        outputs = {
            "controlnet_block_samples": _scaled(double, factors),
            "controlnet_single_block_samples": _scaled(single, factors),
            "controlnet_blocks_repeat": self._net.input_hint_block is not None,
        }
        return args, kwargs | outputs

    def _mode(self, number: int, device: torch.device) -> torch.Tensor | None:
        """(number, 1), for checkpoints that read several types."""
        return torch.full([number, 1], MODES[self._type], device=device) if self._net.union else None


_PASSED_ON = ("encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids", "joint_attention_kwargs")


def _scaled(samples: Sequence[torch.Tensor] | None, factors: torch.Tensor) -> list[torch.Tensor] | None:
    """Each (keyframes, tokens, width) times its keyframe's factor (float32), rounded once, as a plain number would be."""
    return None if samples is None else [(sample * factors).to(sample.dtype) for sample in samples]
