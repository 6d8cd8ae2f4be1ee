"""Fingerprints of models: every bit of every parameter counts, and neither mesh nor format does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from llama_jax.config import ComputeConfig, MeshConfig
from llama_jax.evaluation.answers import Answerer
from llama_jax.evaluation.fingerprint import model_fingerprint, parameter_checksums
from llama_jax.formats.hf import HFFolder
from llama_jax.formats.loading import load
from llama_jax.parallel.checksums import _checksum


def flat(params: dict) -> dict:
    return traverse_util.flatten_dict(params, sep=".")


def changed(params: dict, name: str, place: tuple[int, ...], value: float) -> dict:
    leaves = flat(params)
    return traverse_util.unflatten_dict(leaves | {name: leaves[name].at[place].set(value)}, sep=".")


def test_one_changed_number_anywhere_is_another_model(small_run):
    """Every parameter counts to its last bit."""
    a = small_run.answerer
    seen = {a.fingerprint}
    for name, leaf in flat(a.params).items():
        place = tuple(size - 1 for size in leaf.shape)
        nudged = np.nextafter(np.float32(leaf[place]), np.float32(9))
        other = replace(a, params=changed(a.params, name, place, nudged))
        seen.add(other.fingerprint)
    assert len(seen) == 1 + len(flat(a.params)) > 10
    assert replace(a).fingerprint == a.fingerprint


def test_signs_places_and_dtype_count(small_run):
    a = small_run.answerer
    wq = flat(a.params)["layers.attention.wq"]
    alike = [wq, -wq, wq[::-1], jnp.flip(wq, 1), wq.astype(jnp.bfloat16), wq.at[0, 0].set(wq[0, 1]).at[0, 1].set(wq[0, 0])]
    assert len({parameter_checksums({"w": one})[0] for one in alike}) == len(alike)


def test_config_and_tokenizer_count(small_run):
    a = small_run.answerer
    rules = replace(a.tokenizer.special_tokens, adds_bos=False)
    silent = type(a.tokenizer)(a.tokenizer.model, rules)
    others = [model_fingerprint(a.model.clone(config=replace(a.model.config, rope_theta=5e5)), a.params, tokenizer=a.tokenizer),
              model_fingerprint(a.model.clone(compute=ComputeConfig(dtype="bfloat16")), a.params, tokenizer=a.tokenizer),
              model_fingerprint(a.model, a.params, tokenizer=silent)]
    assert len({a.fingerprint, *others}) == 4


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=1, tensor=2),
                                  MeshConfig(data=1, fsdp=8)], ids=str)
def test_the_same_on_every_mesh(small_run, mesh):
    model, params, tokenizer = load(small_run.folder, mesh)
    assert Answerer(model, params, tokenizer).fingerprint == small_run.answerer.fingerprint


def test_the_same_weights_in_another_format_are_the_same_model(small_run, tmp_path):
    from llama_jax.__main__ import main

    assert main(["convert", "--source", str(small_run.folder), "--target", str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert HFFolder.is_one(tmp_path / "hf")
    there, here = load(tmp_path / "hf"), small_run.answerer
    assert parameter_checksums(there[1]) == parameter_checksums(here.params)


def test_frozen_embeddings_and_norms(small_run):
    """Two models with equal norms and embeddings, as after a fine-tuning that merged one adapter, are different models."""
    a = small_run.answerer
    wq = flat(a.params)["layers.attention.wq"]
    merged = traverse_util.unflatten_dict(flat(a.params) | {"layers.attention.wq": wq * 1.001}, sep=".")
    assert replace(a, params=merged).fingerprint != a.fingerprint


def test_jit_leaves_no_copy(small_run):
    """Checksums need a few numbers of memory beside the parameters, not another array."""
    array = jnp.ones((64, 256, 128))
    compiled = jax.jit(lambda x: _checksum(x, array.sharding)).lower(array).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4096
