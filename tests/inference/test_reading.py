"""Weights read for inference: the values of a whole float32 tree, one copy in memory, on each device its part."""

import gc
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import CheckpointConfig, Config, DataConfig, MeshConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import ConfigError
from llama_jax.evaluation.fingerprint import FingerprintWhileReading, model_fingerprint
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.loading import load
from llama_jax.formats.open import open_source
from llama_jax.formats.saving import save
from llama_jax.inference.params import decoding_params
from llama_jax.inference.reading import read_for_inference
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters, unflatten
from llama_jax.scoring.likelihood import token_loglikelihood
from tests.golden.small import FLOAT32
from tests.model.variants import CASES, OTHER

NAMES = [OTHER, "vanilla+prenorm", "llama"]
REQUESTS = [([1, 5, 7], [9, 4]), ([1, 5, 8, 2], [3]), ([1], [300, 61, 62])]
MESH = MeshConfig(data=1, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer) -> dict[str, Path]:
    """Models of three architectures, saved; the last also as a training run saves it, and in Hugging Face's format."""
    root, rng, made = tmp_path_factory.mktemp("weights"), np.random.default_rng(0), {}
    for name in NAMES:
        config = replace(CASES[name], vocab_size=tokenizer.vocab_size)
        tree = unflatten({path: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32)
                          for path, leaf in parameters(config).items()})
        made[name] = root / name
        save(made[name], Transformer(config, FLOAT32), tree, tokenizer)
    made["trained"] = root / "trained"
    checkpoints = Checkpoints(made["trained"] / "checkpoints", CheckpointConfig())
    run = Config(model=config, compute=FLOAT32, data=DataConfig(sequence_length=32))
    checkpoints.save(1, {"params": tree, "step": np.int32(1)}, config=run)
    checkpoints.close()
    tokenizer.save(made["trained"])
    made["hf"] = root / "hf"
    convert_weights(open_source(made["llama"]), made["hf"], "hf", dtype="bfloat16")
    return made


@pytest.mark.parametrize("name, dtype, mesh", [
    (OTHER, "int8", None), (OTHER, "stored", MESH), ("vanilla+prenorm", "stored", None), ("llama", "bfloat16", None),
    ("trained", "stored", None), ("trained", "int8", MESH), ("hf", "stored", MESH),
])
def test_the_same_as_from_the_whole_tree(folders, name, dtype, mesh):
    model, params, _ = load(folders[name], mesh)
    if dtype == "bfloat16":
        model = model.clone(compute=replace(model.compute, dtype="bfloat16"))
    wanted = decoding_params(model, params, int8=dtype == "int8")
    read_model, read, tokenizer = read_for_inference(open_source(folders[name]), mesh, dtype=dtype)
    assert read_model == model and tokenizer.vocab_size == model.config.vocab_size
    assert jax.tree.structure(read) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, read, wanted)
    assert [x.dtype for x in jax.tree.leaves(read)] == [x.dtype for x in jax.tree.leaves(wanted)]


@pytest.mark.parametrize("dtype", ["stored", "bfloat16", "int8"])
def test_each_device_holds_its_part_and_nothing_else_stays(folders, dtype):
    gc.collect()
    before = {id(array) for array in jax.live_arrays()}
    _, params, _ = read_for_inference(open_source(folders["llama"]), MESH, dtype=dtype)
    mine = jax.tree.leaves(params)
    gc.collect()
    assert {id(array) for array in jax.live_arrays()} - before <= {id(array) for array in mine}
    assert params.mesh.devices.size == 4
    on_first = sum(shard.data.nbytes for array in mine for shard in array.addressable_shards if shard.device.id == 0)
    assert on_first < 0.3 * sum(array.nbytes for array in mine), "all but norms and scales is divided"


def test_scores_and_fingerprint_are_those_of_the_tree(folders, tokenizer):
    for name in NAMES:
        model, params, _ = load(folders[name])
        seen = FingerprintWhileReading()
        read_model, read, _ = read_for_inference(open_source(folders[name]), observe=seen.add)
        got, wanted = (token_loglikelihood(model, tree, REQUESTS) for tree in (read, params))
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one.token_logprobs, other.token_logprobs, atol=1e-5)
        fingerprint = model_fingerprint(model, params, tokenizer=tokenizer)
        assert seen.fingerprint(read_model, tokenizer=tokenizer) == fingerprint
        assert seen.fingerprint(read_model, tokenizer=tokenizer, int8=True) != fingerprint


def test_fingerprint_on_a_mesh_and_of_another_format(folders, tokenizer):
    seen = {}
    for name, mesh in (("llama", None), ("llama", MESH), ("trained", None), ("hf", MESH)):
        weights = FingerprintWhileReading()
        model, *_ = read_for_inference(open_source(folders[name]), mesh, dtype="float32", observe=weights.add)
        seen[name, mesh] = weights.fingerprint(model, tokenizer=tokenizer)
    rounded = seen.pop(("hf", MESH))
    assert len(set(seen.values())) == 1 and rounded not in seen.values(), "only what was rounded to bfloat16 is another model"


def test_an_unknown_dtype_is_refused(folders):
    with pytest.raises(ConfigError, match="weights cannot be read as int4; did you mean int8"):
        read_for_inference(open_source(folders["llama"]), dtype="int4")
