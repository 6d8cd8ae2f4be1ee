"""Weights from one format into another, exactly or with fewer kv heads, and whether the result is the same model."""

from llama_jax.convert.convert import convert_weights
from llama_jax.convert.pooled import PooledSource
from llama_jax.convert.verify import LogitDifference, compare_logits, logits_of_source

__all__ = ["LogitDifference", "PooledSource", "compare_logits", "convert_weights", "logits_of_source"]
