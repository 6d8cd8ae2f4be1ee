"""Tokenizers: text to token ids and back, in the formats of SentencePiece, tiktoken and Hugging Face's tokenizers."""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer
    from llama_jax.tokenizer.bpe import Tiktoken, TokenizerJson
    from llama_jax.tokenizer.fertility import TokenCounts, count_tokens, measure_fertility
    from llama_jax.tokenizer.load import NoTokenizer, holds_tokenizer, load_tokenizer
    from llama_jax.tokenizer.sentencepiece import SentencePiece
    from llama_jax.tokenizer.special_tokens import SpecialTokens, read_special_tokens
    from llama_jax.tokenizer.training import train_sentencepiece

_MODULES = {
    "IncrementalDecoder": "base",
    "NoTokenizer": "load",
    "SentencePiece": "sentencepiece",
    "SpecialTokens": "special_tokens",
    "Tiktoken": "bpe",
    "TokenCounts": "fertility",
    "Tokenizer": "base",
    "TokenizerJson": "bpe",
    "count_tokens": "fertility",
    "holds_tokenizer": "load",
    "load_tokenizer": "load",
    "measure_fertility": "fertility",
    "read_special_tokens": "special_tokens",
    "train_sentencepiece": "training",
}
"""The module of every public name. It is imported when the name is first used, so that a process loads only the tokenizer
library that it needs."""

__all__ = [
    "IncrementalDecoder",
    "NoTokenizer",
    "SentencePiece",
    "SpecialTokens",
    "Tiktoken",
    "TokenCounts",
    "Tokenizer",
    "TokenizerJson",
    "count_tokens",
    "holds_tokenizer",
    "load_tokenizer",
    "measure_fertility",
    "read_special_tokens",
    "train_sentencepiece",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
