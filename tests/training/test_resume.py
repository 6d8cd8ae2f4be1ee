"""A run whose rows change between two sessions: what its steps read, and what its ledger says."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_jax.config import Config
from llama_jax.config.file import load_config
from llama_jax.data.manifest import MANIFEST_FILE, START_DTYPE, Manifest, Shard
from llama_jax.errors import DataError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.training import loop

ROOT = Path(__file__).parents[2]


def write_folder(folder: Path, first: int, count: int, tokenizer) -> Path:
    """A prepared folder of documents of ten ids, of which no two in a row come twice."""
    rng, ids, seen = np.random.default_rng(first), [first], set()
    while len(ids) < count:
        following = int(rng.integers(3, 512))
        if (ids[-1], following) not in seen:
            seen.add((ids[-1], following))
            ids.append(following)
    documents = [ids[n : n + 10] for n in range(0, count, 10)]
    tokens = np.array([token for document in documents for token in (1, *document, 2)], "<u2")
    folder.mkdir()
    tokens.tofile(folder / "shard_00000.bin")
    (np.arange(len(documents)) * 12).astype(START_DTYPE).tofile(folder / "shard_00000.starts")
    shard = Shard("shard_00000.bin", len(tokens), len(documents), 4 * len(tokens), "shard_00000.starts")
    manifest = Manifest(tokenizer.sha256, 512, "<u2", 1, 2, {}, (shard,))
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    tokenizer.save(folder)
    return folder


@pytest.fixture
def docs(tmp_path, tokenizer) -> Path:
    return write_folder(tmp_path / "docs", 3, 45_000, tokenizer)


@pytest.fixture
def b(tmp_path, tokenizer) -> Path:
    return write_folder(tmp_path / "b", 4, 9_000, tokenizer)


@pytest.fixture
def config(docs) -> Config:
    """20 steps of 16 rows of 64 tokens."""
    c = load_config(ROOT / "configs/tiny.py")
    return replace(
        c,
        model=replace(c.model, num_layers=1, dim=16, num_heads=2, num_kv_heads=2, ffn_dim=16, vocab_size=512),
        optimizer=replace(c.optimizer, warmup_steps=1),
        data=replace(c.data, sources=(str(docs),), sequence_length=64, heldout_fraction=0.0),
        training=replace(c.training, num_steps=20, batch_size=16, log_every=5, heldout_every=0, sample_tokens=0),
        checkpoint=replace(c.checkpoint, every=10, keep=9),
    )


@pytest.fixture
def trained(monkeypatch, tmp_path) -> Callable[[Config], Counter]:
    """fit in RUN; gives how often each prediction with weight was trained on, as (token before, token)."""
    def train(config: Config, run: str = "run") -> Counter:
        seen, load = Counter(), loop.load_batches

        def watched(*args, **kwargs):
            for batch in load(*args, **kwargs):
                weighted = np.asarray(batch.weights) == 1
                seen.update(zip(np.asarray(batch.tokens)[weighted].tolist(), np.asarray(batch.targets)[weighted].tolist(),
                                strict=True))
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(loop, "load_batches", watched)
            loop.fit(config, tmp_path / run)
        return seen

    return train


def lines(run: Path) -> dict[int, dict]:
    return {line["step"]: line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}


def texts_read(seen: Counter) -> set[int]:
    """How often predictions inside of a document, which are unlike each other, were read."""
    return {count for (before, token), count in seen.items() if before > 2 and token > 2}


def changed(config: Config, num_steps: int, **values) -> Config:
    """`config` to `num_steps`, with fields of `data` and `training`."""
    data = {name: values.pop(name) for name in ("sources", "sequence_length") if name in values}
    return replace(config, data=replace(config.data, **data), training=replace(config.training, num_steps=num_steps, **values))


@pytest.mark.slow
def test_batch_size_length_mixture_and_seed_one_after_the_other(config, trained, docs, b, tmp_path):
    seen = trained(config)
    seen += trained(changed(config, 40, batch_size=8))
    written = lines(tmp_path / "run")
    assert [written[step]["tokens"] for step in (20, 30, 40)] == [20_480, 25_600, 30_720]
    read = written[40]["sources"]["docs"]
    assert (read["tokens"], read["epochs"]) == (30_720, pytest.approx(480 / 844, abs=1e-4))
    assert (read["planned"], read["realised"], read["repeated"]) == (1.0, 1.0, 0) and {*written[40]["sources"]} == {"docs"}
    assert 30_720 / 12 * 0.99 < read["documents"] < 30_720 / 12 * 1.01
    assert texts_read(seen) == {1}

    trained(changed(config, 50, batch_size=16, accumulation_steps=2, sequence_length=32, seed=5))
    assert lines(tmp_path / "run")[50]["tokens"] == 30_720 + 10 * 16 * 32
    mixed = (f"{b}=1", f"{docs}=1")
    trained(changed(config, 60, sources=mixed))
    ledger = lines(tmp_path / "run")[60]
    assert {name: read["tokens"] for name, read in ledger["sources"].items()} == {"b": 5_120, "docs": 30_720 + 5_120 + 5_120}
    assert ledger["tokens"] == sum(read["tokens"] for read in ledger["sources"].values())


@pytest.mark.parametrize("values, tokens", [
    ({"sequence_length": 128}, (20_480 + 5 * 2048, 20_480 + 10 * 2048)),
    pytest.param({"sequence_length": 24}, (20_480 + 5 * 384, 20_480 + 10 * 384), marks=pytest.mark.slow),
    pytest.param({"seed": 3, "accumulation_steps": 2}, (20_480 + 5 * 1024, 20_480 + 10 * 1024), marks=pytest.mark.slow),
])
def test_no_row_twice_and_none_left_out(config, trained, values, tokens, tmp_path):
    seen = trained(config) + trained(changed(config, 30, **values))
    assert texts_read(seen) == {1}
    assert [lines(tmp_path / "run")[step]["tokens"] for step in (25, 30)] == list(tokens)
    shutil.rmtree(tmp_path / "run/checkpoints/30")  # the newest is lost: the one before says what was read then
    assert trained(changed(config, 30, **values)) + trained(config, "other") == seen


def test_half_and_half_after_one_source(config, trained, docs, b, tmp_path):
    trained(config)
    trained(changed(config, 30, sources=(f"{docs}=0.5", f"{b}=0.5")))
    read = lines(tmp_path / "run")[30]
    assert {name: source["tokens"] for name, source in read["sources"].items()} == {"docs": 25_600, "b": 5_120}


def remove_items(checkpoint: Path, *items: str) -> None:
    """Make it the checkpoint of an earlier version, which had no such items."""
    file = checkpoint / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    for item in items:
        shutil.rmtree(checkpoint / item)
        del metadata["item_handlers"][item]
    file.write_text(json.dumps(metadata))


def test_a_checkpoint_of_an_earlier_version_goes_on(config, trained, tmp_path):
    """It does not say what was read; its config does. With the same rows and with others."""
    first = trained(config)
    for step in (10, 20):
        remove_items(tmp_path / f"run/checkpoints/{step}", "progress", "sums")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    assert Checkpoints(tmp_path / "run/checkpoints").progress(20) == {}
    assert texts_read(first + trained(changed(config, 40, batch_size=8))) == {1}
    assert lines(tmp_path / "run")[40]["tokens"] == 30_720
    whole, rest = trained(changed(config, 30), "whole"), trained(changed(config, 30), "again")
    assert first + rest == whole


def test_the_sources_of_an_earlier_version_must_be_there(config, trained, docs, b, tmp_path):
    trained(config)
    remove_items(tmp_path / "run/checkpoints/20", "progress", "sums")
    shutil.move(docs, tmp_path / "gone")
    with pytest.raises(DataError, match=r"step 20, of an earlier version, does not say what was read.*docs"):
        trained(changed(config, 30, sources=(str(b),)))


def test_other_text_in_a_sources_place_is_refused(config, trained, docs, tokenizer, tmp_path):
    trained(config)
    shutil.rmtree(docs)
    write_folder(docs, 7, 45_000, tokenizer)
    with pytest.raises(DataError, match="docs holds other tokens than those this run has read"):
        trained(changed(config, 30))
    assert Checkpoints(tmp_path / "run/checkpoints").latest() == 20


def test_a_record_of_another_kind_is_named(config, trained, tmp_path):
    trained(config)
    remove_items(tmp_path / "run/checkpoints/20", "sums")
    (tmp_path / "run/checkpoints/20/progress/metadata").write_text('{"position": {"legs": []}}')
    with pytest.raises(DataError, match=r"checkpoints/20 says what was read in another way .*remove it to go on"):
        trained(changed(config, 30))
