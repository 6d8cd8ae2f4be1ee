"""Tokenizers in two formats, made from the same merges."""

import pytest

from llama_jax.tokenizer.bpe import Tiktoken, TokenizerJson


@pytest.fixture(scope="session")
def llama3(ranks) -> Tiktoken:
    return Tiktoken(ranks)


@pytest.fixture(scope="session")
def from_json(byte_level) -> TokenizerJson:
    return TokenizerJson(byte_level.to_str().encode())
