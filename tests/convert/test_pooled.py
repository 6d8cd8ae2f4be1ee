"""Fewer kv heads: where the heads of a group agree, the pooled model is the model."""

from llama_jax.convert.pooled import PooledSource
from llama_jax.convert.verify import compare_logits
from tests.formats.memory import MemorySource, config_of


def test_pooling_equal_heads_changes_nothing(tokenizer):
    memory = MemorySource(config_of(8), tokenizer)
    for name in ("wk", "wv"):
        weights = memory.params["layers"]["attention"][name]
        weights[...] = weights[:, :, [0, 0, 0, 0, 4, 4, 4, 4]]
    assert compare_logits(memory, PooledSource(memory, 2)).largest < 1e-5
    assert compare_logits(memory, PooledSource(memory, 1)).largest > 1e-2
