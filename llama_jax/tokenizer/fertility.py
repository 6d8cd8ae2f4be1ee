"""How finely a tokenizer cuts text: bytes per token, tokens per word (its fertility), byte tokens, unknown tokens, digits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from llama_jax.errors import DataError
from llama_jax.tokenizer.base import Tokenizer

_DIGIT = re.compile("[0-9]")


@dataclass(frozen=True)
class TokenCounts:
    """What a tokenizer made of some text; the counts of two texts can be added."""

    documents: int = 0
    bytes: int = 0
    """Of UTF-8."""
    words: int = 0
    """What `str.split` separates."""
    tokens: int = 0
    byte_tokens: int = 0
    """Tokens that stand for bytes, because no piece has their characters."""
    ascii_byte_tokens: int = 0
    """Those of ASCII characters: in LLaMA's vocabulary, the line end among them."""
    unknown_tokens: int = 0
    digits: int = 0
    """Digits 0 to 9."""
    merged_digits: int = 0
    """Digits that share their token with another digit."""

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def bytes_per_token(self) -> float:
        """More means a shorter sequence for the same text."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Also called fertility."""
        return self.tokens / max(self.words, 1)

    @property
    def byte_fallback_share(self) -> float:
        """Share of the tokens that stand for bytes."""
        return self.byte_tokens / max(self.tokens, 1)

    @property
    def non_ascii_byte_share(self) -> float:
        """Share of the tokens that stand for bytes of characters outside ASCII, each of which takes two to four of them."""
        return (self.byte_tokens - self.ascii_byte_tokens) / max(self.tokens, 1)

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that say that there is no piece for a text."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def merged_digit_share(self) -> float:
        """Share of the digits that share their token with another; 0 where numbers are split into digits (paper, section 2.1)."""
        return self.merged_digits / max(self.digits, 1)

    def ratios(self) -> dict[str, float]:
        """All ratios by name."""
        names = ("bytes_per_token", "tokens_per_word", "byte_fallback_share", "non_ascii_byte_share", "unknown_share",
                 "merged_digit_share")
        return {name: getattr(self, name) for name in names}


def count_tokens(tokenizer: Tokenizer, texts: Mapping[str, Iterable[str]]) -> dict[str, TokenCounts]:
    """Encode texts and count, by name of their source.

    Raises:
        DataError: a source gives no token at all.
    """
    ids_of_vocabulary = range(tokenizer.vocab_size)
    is_byte = np.array([tokenizer.is_byte(i) for i in ids_of_vocabulary])
    is_ascii = np.array([is_byte[i] and (tokenizer.content(i) or b"\xff")[0] < 128 for i in ids_of_vocabulary])
    digits = np.array([len(_DIGIT.findall(tokenizer.piece(i))) for i in ids_of_vocabulary]) * (~is_byte | is_ascii)
    counts = {}
    for name, documents in texts.items():
        total = TokenCounts()
        for text in documents:
            ids = tokenizer.encode_array(text)
            held = digits[ids]
            unknown = 0 if tokenizer.unknown_id is None else int((ids == tokenizer.unknown_id).sum())
            total += TokenCounts(1, len(text.encode()), len(text.split()), len(ids), int(is_byte[ids].sum()),
                                 int(is_ascii[ids].sum()), unknown, int(held.sum()), int(held[held > 1].sum()))
        if not total.tokens:
            raise DataError(f"{name or 'the inputs'} hold no text to report on.")
        counts[name] = total
    return counts


def pieces_with_several_digits(tokenizer: Tokenizer) -> list[str]:
    """The pieces of a vocabulary that hold two digits or more; none where numbers are split into digits."""
    control = {tokenizer.bos_id, tokenizer.unknown_id, *tokenizer.eos_ids}
    pieces = (tokenizer.piece(i) for i in range(tokenizer.vocab_size)
              if i not in control and not tokenizer.is_byte(i) and tokenizer.content(i) is not None)
    return [piece for piece in pieces if len(_DIGIT.findall(piece)) > 1]


def measure_fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Totals of bytes, words and tokens of `texts`, and their ratios by name. Raises DataError where there is no token at all."""
    counts = count_tokens(tokenizer, {"": texts})[""]
    return {"vocab_size": tokenizer.vocab_size, "bytes": counts.bytes, "words": counts.words, "tokens": counts.tokens,
            **counts.ratios()}
