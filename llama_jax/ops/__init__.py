"""Pure functions of arrays: attention and its backends, rotary embedding, RMSNorm, feed-forward kinds and matrix products."""

from llama_jax.ops.attention import BACKENDS, attend, choose
from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.decode import attend_over_cache, write_to_cache
from llama_jax.ops.feedforward import FEEDFORWARDS, FeedForwardKind, swiglu
from llama_jax.ops.linear import Int8, linear, quantize
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.ops.norms import rms_norm
from llama_jax.ops.rotary import rope_tables, rotate
from llama_jax.ops.spec import AttentionSpec

__all__ = [
    "BACKENDS", "CAUSAL", "FEEDFORWARDS", "NO_BIAS", "AttentionSpec", "Bias", "FeedForwardKind", "Int8", "Mask", "attend",
    "attend_over_cache", "choose", "linear", "quantize", "rms_norm", "rope_tables", "rotate", "swiglu", "write_to_cache",
]
