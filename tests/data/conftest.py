"""Prepared folders written token by token, so that tests of what reads them need no tokenizer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llama_jax.data.manifest import MANIFEST_FILE, START_DTYPE, Manifest, Shard

BOS, EOS = 1, 2


@pytest.fixture
def folder_of(tmp_path) -> Callable[..., Path]:
    """(name, documents as lists of ids, documents per shard) -> prepared folder, as `prepare_data` writes it.

    Without `starts` it is as in earlier versions, which did not write where documents begin.
    """

    def make(name: str, documents: list[list[int]], a_shard: int = 1000, *, bos: int = BOS, eos: int = EOS,
             starts: bool = False) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        shards = []
        for number, start in enumerate(range(0, len(documents), a_shard)):
            part = documents[start : start + a_shard]
            tokens = np.array([token for ids in part for token in (bos, *ids, eos)], "<u2")
            tokens.tofile(folder / f"shard_{number:05d}.bin")
            file = f"shard_{number:05d}.starts" if starts else ""
            if starts:
                np.cumsum([0] + [len(ids) + 2 for ids in part[:-1]]).astype(START_DTYPE).tofile(folder / file)
            shards.append(Shard(f"shard_{number:05d}.bin", len(tokens), len(part), 3 * len(tokens), file))
        manifest = Manifest("some tokenizer", 100, "<u2", bos, eos, {}, tuple(shards))
        (folder / MANIFEST_FILE).write_text(manifest.to_json())
        return folder

    return make
