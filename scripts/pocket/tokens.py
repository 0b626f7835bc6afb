"""The two tokenizers: every word of the captions is one token, anything else is spelt letter by letter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5TokenizerFast

from .captions import vocabulary

T5_LENGTHS = (16, 24, 32)
"""Tokens that training pads captions to, as `sequence` in models.toml does for prompts."""
_T5_LONGEST = 1024
_WORD_SCORE, _LETTER_SCORE = -5.0, -20.0  # logarithms of probabilities: a word is always likelier than its letters
_BEGIN, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_LETTERS = [chr(code) for code in range(33, 127)]


def t5_tokenizer() -> Any:
    """T5's kind, Unigram. It minds case, so each word is there in three: `sun`, `Sun`, `SUN`."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", _WORD_SCORE) for word in cased_words()]
    letters = [(letter, _LETTER_SCORE) for letter in ["▁", *_LETTERS]]
    return T5TokenizerFast(vocab=special + words + letters, extra_ids=0, model_max_length=_T5_LONGEST)


def cased_words() -> list[str]:
    """The vocabulary in lower case, then the other spellings of each word."""
    words = vocabulary()
    others = [spelling for word in words for spelling in (word.capitalize(), word.upper())]
    return list(dict.fromkeys([*words, *others]))


def clip_tokenizer(longest: int) -> Any:
    """CLIP's kind, byte pairs in lower case; `longest`: tokens that it cuts or pads a prompt to."""
    vocab, merges = _byte_pairs()
    numbers = {token: number for number, token in enumerate(vocab)}
    return CLIPTokenizer(vocab=numbers, merges=list(merges), model_max_length=longest)


@cache
def _byte_pairs() -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tokens by number, the special ones last (CLIP looks for its summary at the highest number), and merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=alphabet, end_of_word_suffix=_WORD_END, show_progress=False
    )
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = vocabulary()
    tokenizer.train_from_iterator(words * 2, trainer)  # a pair must be seen twice to be merged
    vocab, merges = _read(tokenizer)
    every = [*alphabet, *(letter + _WORD_END for letter in alphabet)]
    return tuple(dict.fromkeys([*every, *vocab, _BEGIN, _END])), merges


def _read(tokenizer: Any) -> tuple[Iterable[str], tuple[tuple[str, str], ...]]:
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return vocab, tuple((pair[0], pair[1]) for pair in model["merges"])
