"""How finely a tokenizer cuts text: bytes per token, tokens per word (its fertility), and the share of byte tokens."""

from collections.abc import Iterable

import numpy as np

from llama_jax.errors import DataError
from llama_jax.tokenizer.base import Tokenizer


def measure_fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Encode `texts` and count: totals of bytes, words and tokens, their ratios, and the share of tokens that stand for bytes.

    A word is what `str.split` separates. Raises DataError where the texts give no token at all.
    """
    num_tokens = num_bytes = num_words = num_byte_tokens = 0
    is_byte = np.array([tokenizer.is_byte(i) for i in range(tokenizer.vocab_size)])
    for text in texts:
        ids = tokenizer.encode_array(text)
        num_tokens += len(ids)
        num_bytes += len(text.encode())
        num_words += len(text.split())
        num_byte_tokens += int(is_byte[ids].sum())
    if not num_tokens:
        raise DataError("the inputs hold no text to report on.")
    return {
        "vocab_size": tokenizer.vocab_size,
        "bytes": num_bytes,
        "words": num_words,
        "tokens": num_tokens,
        "bytes_per_token": num_bytes / num_tokens,
        "tokens_per_word": num_tokens / max(num_words, 1),
        "byte_fallback_share": num_byte_tokens / num_tokens,
    }
