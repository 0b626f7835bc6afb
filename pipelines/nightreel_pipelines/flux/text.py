"""Prompts -> what the transformer reads of them. Imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from diffusers import FluxPipeline

from ..base import Tick
from ..errors import Unrenderable
from ..models import ModelSpec
from .memory import enough_memory

_CACHED_PROMPTS = 256  # a job has at most 120 shots of two prompts; 2 MiB each for FLUX.1 in bf16
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Embedding:
    """One prompt as the text encoders see it, on the model's device and in its precision."""

    tokens: torch.Tensor
    """By T5: (1, sequence, width)."""
    pooled: torch.Tensor
    """By CLIP: (1, width)."""


Texts = Mapping[tuple[str, ...], tuple[Embedding, ...]]
"""By the prompts that a recipe mixes: `prompts_of`."""


class TextEncoder:
    """Reads prompts, each distinct one once, and remembers the latest."""

    def __init__(self, pipe: FluxPipeline, spec: ModelSpec) -> None:
        self._pipe = pipe
        self._spec = spec
        self._embedding = lru_cache(_CACHED_PROMPTS)(self._encode)

    def encode(self, groups: Iterable[Sequence[str]], tick: Tick) -> dict[tuple[str, ...], tuple[Embedding, ...]]:
        """Read the prompts; those of one group are padded to one length, so that they can be mixed.

        `tick` is called after each prompt. Raises Unrenderable, before reading any, for one too long.
        """
        sequences = {tuple(group): max(map(self._sequence, group)) for group in groups}
        readings = dict.fromkeys((prompt, sequence) for group, sequence in sequences.items() for prompt in group)
        found: dict[tuple[str, int], Embedding] = {}
        for prompt, sequence in readings:
            with enough_memory(f"a prompt of {sequence} tokens", "shorten it, or use a larger machine"):
                found[prompt, sequence] = self._embedding(prompt, sequence)
            tick()
        return {group: tuple(found[prompt, sequence] for prompt in group) for group, sequence in sequences.items()}

    def count_tokens(self, prompt: str) -> int:
        """How many T5 tokens a prompt has, with the one that ends it."""
        # verbose=False: it would warn of prompts beyond the tokenizer's own idea of a longest one; the spec decides.
        return len(self._pipe.tokenizer_2(prompt, truncation=False, verbose=False).input_ids)

    def _sequence(self, prompt: str) -> int:
        """The shortest length to pad to that holds the prompt: padding costs time, and few lengths compile once."""
        tokens = self.count_tokens(prompt)
        if tokens > self._spec.longest_prompt:
            start = prompt if len(prompt) <= _SHOWN_CHARACTERS else f"{prompt[:_SHOWN_CHARACTERS]}..."
            raise Unrenderable(
                f"prompt of {tokens} tokens; {self._spec.name} reads at most {self._spec.longest_prompt}: "
                f"shorten {start!r}, or the style around it"
            )
        return next(length for length in self._spec.lengths if length >= tokens)

    def _encode(self, prompt: str, sequence: int) -> Embedding:
        # One by one: in a batch the last bits of an embedding depend on its neighbours, and a picture must not change
        # with the other prompts of its job (or with how many of them are cached).
        with torch.inference_mode():
            tokens, pooled, _ = self._pipe.encode_prompt(prompt, max_sequence_length=sequence)
        return Embedding(tokens, pooled)
