"""Whatever way weights go through the formats, they come back byte for byte."""

import itertools
from typing import get_args, get_type_hints

import numpy as np
import pytest

from llama_jax.cli.options import ConvertOptions
from llama_jax.conversion.convert import convert_weights
from llama_jax.formats import hf
from llama_jax.formats.base import STORED_DTYPES, WeightSource
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from tests.formats.memory import SHAPES, MemorySource, config_of


def assert_same(one: WeightSource, other: WeightSource) -> None:
    assert one.config.tied_embeddings == other.config.tied_embeddings and one.dtype == other.dtype
    for tensor in tensors(one.config):
        a, b = one.read(tensor), other.read(tensor)
        assert (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes(), tensor


def test_every_target_of_convert_is_a_format_of_its_own(tmp_path, tokenizer):
    """The command and the function know the same formats, and what is written is recognised and read."""
    targets = get_args(get_type_hints(ConvertOptions)["to"])
    assert targets == get_args(get_type_hints(convert_weights)["to"])
    memory = MemorySource(config_of(2), tokenizer)
    formats = set()
    for to in targets:
        convert_weights(memory, tmp_path / to, to)
        opened = open_source(tmp_path / to)
        assert_same(memory, opened)
        formats.add(opened.format)
    assert len(formats) == len(targets)


EVERY = list(itertools.product(SHAPES, [False, True], ["float32", "bfloat16"], [1, 2, 8]))


@pytest.mark.parametrize("kind, tied, dtype, shards", EVERY)
def test_through_hf_and_meta(tmp_path, monkeypatch, tokenizer, kind, tied, dtype, shards):
    monkeypatch.setattr(hf, "SHARD_BYTES", 100_000)
    memory = MemorySource(config_of(SHAPES[kind], tied_embeddings=tied), tokenizer, dtype=STORED_DTYPES[dtype])
    before: WeightSource = memory
    for step, to in enumerate(("hf", "meta", "hf")):
        convert_weights(before, tmp_path / str(step), to, meta_shards=shards if to == "meta" else 1)
        before = open_source(tmp_path / str(step))
        assert_same(memory, before)
    assert len(list((tmp_path / "0").glob("*.safetensors"))) > 3
    assert len(list((tmp_path / "1").glob("*.pth"))) == shards


FEW = [
    ("mha", False, "bfloat16", 2), ("gqa", True, "float32", 8), ("mqa", False, "float32", 1), ("mqa", True, "bfloat16", 8),
]
"""Of EVERY: each kind of attention, dtype and number of shards once."""


@pytest.mark.parametrize("kind, tied, dtype, shards", [
    pytest.param(*case, marks=[] if case in FEW else [pytest.mark.slow]) for case in EVERY])
def test_orbax_hf_orbax_meta_orbax(tmp_path, tokenizer, kind, tied, dtype, shards):
    memory = MemorySource(config_of(SHAPES[kind], tied_embeddings=tied), tokenizer, dtype=STORED_DTYPES[dtype])
    before: WeightSource = memory
    for step, to in enumerate(("orbax", "hf", "orbax", "meta", "orbax")):
        convert_weights(before, tmp_path / str(step), to, meta_shards=shards if to == "meta" else 1)
        before = open_source(tmp_path / str(step))
        assert_same(memory, before)
        assert before.tokenizer().sha256 == tokenizer.sha256


def test_a_config_survives(tmp_path, tokenizer):
    """What no tensor shows comes along too: theta, eps, stretched frequencies, head width, context."""
    from llama_jax.config import RopeScaling

    for number, (dtype, fields) in enumerate([
        ("float32", {"rope_theta": 123.0, "head_dim": 10, "rope_scaling": RopeScaling("linear", 3.0)}),
        ("bfloat16", {"rope_scaling": RopeScaling("llama3", 32.0, 1.0, 4.0, 8192), "rope_theta": 5e5}),
        ("float32", {"rope_scaling": RopeScaling("llama3", 8.0, 0.5, 7.0, 64)}),
        ("float32", {"rope_scaling": RopeScaling("yarn", 8.0, original_length=64, beta_fast=20.0, beta_slow=2.0)}),
        ("float32", {"use_bias": True}),
    ]):
        memory = MemorySource(config_of(2, **fields), tokenizer, dtype=STORED_DTYPES[dtype])
        convert_weights(memory, tmp_path / f"{number}", "hf")
        found = open_source(tmp_path / f"{number}")
        assert found.config == memory.config and found.compute.dtype == dtype
    config = config_of(2, rope_scaling=RopeScaling("llama3", 32.0), rope_theta=5e5, max_length=131_072)
    convert_weights(MemorySource(config, tokenizer), tmp_path / "meta", "meta")
    assert open_source(tmp_path / "meta").config == config


def test_rounding_is_to_the_nearest(tmp_path, memory):
    convert_weights(memory, tmp_path / "hf", "hf", dtype="bfloat16")
    half = open_source(tmp_path / "hf")
    for tensor in tensors(memory.config):
        np.testing.assert_array_equal(half.read(tensor), memory.read(tensor).astype(STORED_DTYPES["bfloat16"]))
