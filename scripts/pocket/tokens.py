"""The two tokenizers: every word of the captions is one token, anything else is spelt letter by letter."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5TokenizerFast

from .captions import vocabulary

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
    """Tokens by number, the special ones last (CLIP looks for its summary at the highest number), and merges.

    Byte pair encoding (Sennrich et al. 2016), until every word is one token. The tokenizers library has a trainer for
    it, too, but decides between equally frequent pairs differently each time.
    """
    spelt = [[*word[:-1], word[-1] + _WORD_END] for word in vocabulary()]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelt for pair in pairwise(word)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelt = [_merged(word, best) for word in spelt]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + _WORD_END for letter in alphabet), *(one + other for one, other in merges)]
    return tuple(dict.fromkeys([*tokens, _BEGIN, _END])), tuple(merges)


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    """Each occurrence of the pair made one token, from left to right."""
    merged: list[str] = []
    for token in word:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged
