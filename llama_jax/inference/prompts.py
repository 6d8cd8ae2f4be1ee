"""Prompts to token ids: what may stand as a prompt, its checks, and a batch of prompts as padded arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.files.encoding import is_unicode
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import require_tokenizer

TextOrIds = str | Sequence[int]
"""A prompt as callers give it: a text, or token ids."""

SHORTEST_BUCKET = 16
"""Smallest padded length: shorter prompts would save nothing and cost a compilation."""


class PromptTooLong(ConfigError):
    """A prompt fills the model's context, so that no token can follow it."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids, and the random numbers that its samples are drawn with."""

    ids: Sequence[int]
    prompt_index: int = 0
    """In [0, 2^64): prompts of different indices draw independent random numbers, whatever batch they are in."""
    first_sample: int = 0
    """Index of the first of its samples; samples of different indices draw independent random numbers."""


def encode_prompt(tokenizer: Tokenizer | None, prompt: TextOrIds, *, config: ModelConfig) -> list[int]:
    """Token ids of a prompt: those of a text after BOS (where the tokenizer sets one), or checked ids as they are.

    Raises:
        PromptTooLong: The prompt fills the model's context.
        ConfigError: The prompt is empty, not Unicode, or holds an id that the model does not have.
        NoTokenizer: The prompt is a text and there is no tokenizer.
    """
    if isinstance(prompt, str):
        tokenizer = require_tokenizer(tokenizer, "a prompt that is text")
        if not prompt:
            raise ConfigError("the prompt is empty; give at least one character.")
        if not is_unicode(prompt):
            raise ConfigError("the prompt is not valid Unicode text (a byte of it was not UTF-8).")
        ids = [*tokenizer.begin, *tokenizer.encode(prompt)]
        if max(ids) >= config.vocab_size:
            raise ConfigError(f"the tokenizer gives the id {max(ids)} and the model has ids below {config.vocab_size}; use the "
                              "tokenizer that the model was trained with.")
    else:
        ids = _whole_numbers(prompt)
        if not ids or min(ids) < 0 or max(ids) >= config.vocab_size:
            raise ConfigError(f"a prompt of ids needs at least one, each in [0, {config.vocab_size}).")
    if len(ids) >= config.max_length:
        raise PromptTooLong(f"the prompt has {len(ids)} tokens and the model's context holds {config.max_length}, of which "
                            "one must be left for the answer; shorten the prompt.")
    return ids


def _whole_numbers(prompt: Sequence[int]) -> list[int]:
    """The ids of a prompt as Python integers; raises ConfigError for anything that is not a sequence of integers."""
    try:
        if isinstance(prompt, bytes) or any(isinstance(token, bool) for token in prompt):
            raise TypeError
        return [index(token) for token in prompt]
    except TypeError:
        raise ConfigError(f"a prompt is a text or whole numbers that are ids, got {prompt!r:.100}.") from None


def as_prompt_list(prompts: TextOrIds | Sequence[TextOrIds]) -> list[TextOrIds]:
    """A list of prompts: the given ones, or the only one where a single text or the ids of a single prompt are given.

    Raises ConfigError for what is neither.
    """
    try:
        prompts = [prompts] if isinstance(prompts, str | bytes) else list(prompts)
    except TypeError:
        raise ConfigError(f"prompts are a text, ids, or a list of either, got {prompts!r:.100}.") from None
    is_one_of_ids = bool(prompts) and all(not isinstance(item, str) and np.ndim(item) == 0 for item in prompts)
    return [prompts] if is_one_of_ids else prompts


def bucket_length(length: int, *, limit: int) -> int:
    """The least power of two, from `SHORTEST_BUCKET` on, that is no smaller than `length`, and at most `limit`.

    Padding to few lengths means few shapes, and so few compilations.
    """
    return min(limit, max(SHORTEST_BUCKET, 1 << (length - 1).bit_length()))


def pad_prompts(prompts: Sequence[Sequence[int]], *, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 tokens (B, T) of prompts padded at their end to a bucket of at most `limit` tokens, and their lengths (B,)."""
    counts_B = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens_BT = np.zeros((len(prompts), bucket_length(int(counts_B.max()), limit=limit)), np.int32)
    for row, prompt in zip(tokens_BT, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens_BT, counts_B
