"""Fewer kv heads: where the heads of a group agree, the pooled model is the model."""

import numpy as np

from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.pooled import PooledSource
from llama_jax.conversion.verify import compare_logits
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from tests.formats.memory import MemorySource, config_of


def test_pooling_equal_heads_changes_nothing(tokenizer):
    memory = MemorySource(config_of(8), tokenizer)
    for name in ("wk", "wv"):
        weights = memory.params["layers"]["attention"][name]
        weights[...] = weights[:, :, [0, 0, 0, 0, 4, 4, 4, 4]]
    assert compare_logits(memory, PooledSource(memory, 2)).largest < 1e-5
    assert compare_logits(memory, PooledSource(memory, 1)).largest > 1e-2


def test_biases_are_pooled_with_their_heads(tmp_path):
    """Of a model with biases, LayerNorm and relative vectors, which a run directory alone can hold."""
    memory = MemorySource(config_of(8, use_bias=True, norm="layernorm", position="shaw", feedforward="relu"))
    for name in ("wk", "wv", "bk", "bv"):
        heads = memory.params["layers"]["attention"][name]
        heads[...] = heads[..., [0, 0, 0, 0, 4, 4, 4, 4], :]
    assert compare_logits(memory, PooledSource(memory, 2)).largest < 1e-5
    memory.params["layers"]["attention"]["bv"][:, 1] += 4
    convert_weights(PooledSource(memory, 2), tmp_path / "two", "orbax")
    mean = open_source(tmp_path / "two").read(next(t for t in tensors(memory.config) if t.ours == "layers.attention.bv[1]"))
    np.testing.assert_allclose(mean[0], memory.params["layers"]["attention"]["bv"][1, :4].mean(0), rtol=1e-6)

