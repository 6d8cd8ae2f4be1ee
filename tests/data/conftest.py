"""Prepared folders written token by token, so that tests of what reads them need no tokenizer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llama_jax.data.manifest import MANIFEST, Manifest, Shard

BOS, EOS = 1, 2


@pytest.fixture
def folder_of(tmp_path) -> Callable[..., Path]:
    """(name, documents as lists of ids, documents a shard) -> prepared folder, as `prepare` lays it out."""

    def make(name: str, documents: list[list[int]], a_shard: int = 1000) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        shards = []
        for number, start in enumerate(range(0, len(documents), a_shard)):
            part = documents[start : start + a_shard]
            tokens = np.array([token for ids in part for token in (BOS, *ids, EOS)], "<u2")
            tokens.tofile(folder / f"shard_{number:05d}.bin")
            shards.append(Shard(f"shard_{number:05d}.bin", len(tokens), len(part), 3 * len(tokens)))
        manifest = Manifest("some tokenizer", 100, "<u2", BOS, EOS, {}, tuple(shards))
        (folder / MANIFEST).write_text(manifest.to_json())
        return folder

    return make
