"""Weights from one format into another, exactly or with fewer kv heads, and whether the result is the same model."""

from llama_jax.conversion.convert import convert, convert_weights
from llama_jax.conversion.pooled import PooledSource
from llama_jax.conversion.verify import LogitDifference, compare_logits, logits_of_source, verify_logits

__all__ = ["LogitDifference", "PooledSource", "compare_logits", "convert", "convert_weights", "logits_of_source", "verify_logits"]
