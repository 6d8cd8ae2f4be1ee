"""Folders in the three formats, made once."""

from pathlib import Path

import pytest

from llama_jax.conversion.convert import convert_weights
from tests.formats.memory import MemorySource, config_of


@pytest.fixture(scope="session")
def memory(tokenizer) -> MemorySource:
    return MemorySource(config_of(), tokenizer)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, memory) -> dict[str, Path]:
    """The same random weights as orbax, hf and meta; never written to."""
    root = tmp_path_factory.mktemp("folders")
    for to in ("orbax", "hf", "meta"):
        convert_weights(memory, root / to, to, meta_shards=2 if to == "meta" else 1)
    return {to: root / to for to in ("orbax", "hf", "meta")}
