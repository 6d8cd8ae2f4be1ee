"""Pure functions of arrays: attention and its backends, position encodings, norms, feed-forward kinds and matrix products."""

from llama_jax.ops.attention import BACKENDS, attend, choose
from llama_jax.ops.bias import NO_BIAS, Bias, alibi_slopes
from llama_jax.ops.decode import attend_over_cache, write_to_cache
from llama_jax.ops.derivatives import every_derivative
from llama_jax.ops.feedforward import FEEDFORWARDS, FeedForwardKind, equal_width, swiglu
from llama_jax.ops.linear import Int8, linear, quantize
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.ops.norms import layer_norm, rms_norm
from llama_jax.ops.reference import attention_weights
from llama_jax.ops.rotary import rope3d_tables, rope_tables, rotate
from llama_jax.ops.sinusoidal import sinusoids
from llama_jax.ops.spec import AttentionSpec

__all__ = [
    "BACKENDS", "CAUSAL", "FEEDFORWARDS", "NO_BIAS", "AttentionSpec", "Bias", "FeedForwardKind", "Int8", "Mask", "alibi_slopes",
    "attend", "attend_over_cache", "attention_weights", "choose", "equal_width", "every_derivative", "layer_norm", "linear",
    "quantize", "rms_norm", "rope3d_tables", "rope_tables", "rotate", "sinusoids", "swiglu", "write_to_cache",
]
