"""The reference backend: attention as its formula reads, with all T x T weights in memory."""

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.bias import BIAS_FIELDS, NO_BIAS, Bias
from llama_jax.ops.masks import Mask

KNOWS = frozenset({"mask.segment_ids_BT", "mask.ends_BT", *BIAS_FIELDS})
"""Fields of `Mask` and `Bias` that this backend supports: all."""

MASKED = -1e30
"""Score of a masked key; finite, so that a query whose keys are all masked has no NaN in its gradient."""


def attend_reference(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, bias: Bias = NO_BIAS, first: Array | None = None
) -> Array:
    """Compute attention, softmax(q k^T / sqrt(H) + bias) v over the keys that the mask allows, (B, T, N, H) in q's dtype.

    Softmax is in float32. Mask and bias describe all S tokens of a row. `first` is the index of the first query where the queries
    are a slice of the row (T <= S); without it they are all its tokens (T = S). Query head n reads kv head n // (N / K) (Ainslie
    et al. 2023), without repeating keys or values in memory.
    """
    weights_BKGTS, distance_BTS = _weights(q_BTNH, k_BSKH, mask, bias=bias, first=first)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS.astype(v_BSKH.dtype), v_BSKH, preferred_element_type=jnp.float32)
    out_BTKGH = bias.with_relative_values(out_BTKGH.transpose(0, 2, 3, 1, 4), weights_BKGTS,
                                          distance_BTS=distance_BTS).transpose(0, 3, 1, 2, 4)
    return out_BTKGH.astype(q_BTNH.dtype).reshape(q_BTNH.shape)


def attention_weights(q_BTNH: Array, k_BTKH: Array, mask: Mask, *, bias: Bias = NO_BIAS) -> Array:
    """The weights that softmax gives to the keys, float32 (B, N, T, S = T), for looking at."""
    weights_BKGTS, _ = _weights(q_BTNH, k_BTKH, mask, bias=bias)
    B, K, G, T, S = weights_BKGTS.shape
    return weights_BKGTS.reshape(B, K * G, T, S)


def _weights(
    q_BTNH: Array, k_BSKH: Array, mask: Mask, *, bias: Bias, first: Array | None = None
) -> tuple[Array, Array]:
    """The weights, float32 (B, K, G, T, S), and the distances of queries and keys, int32 (B or 1, T, S)."""
    mask.only(KNOWS, "the reference backend")
    bias.only(KNOWS, "the reference backend")
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    products = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    index = jnp.arange(S)
    distance_BTS = bias.distance(index if first is None else first + jnp.arange(T), index)
    scores_BKGTS = bias.scaled_scores(products, q_BTKGH.transpose(0, 2, 3, 1, 4), distance_BTS=distance_BTS)
    visible_BTS = mask.materialize(S) if first is None else mask.materialize(S, first=first, count=T)
    visible = visible_BTS[:, None, None]
    weights = jax.nn.softmax(jnp.where(visible, scores_BKGTS, MASKED), axis=-1)
    # a query that sees nothing would weigh all keys alike
    return jnp.where(visible.any(-1, keepdims=True), weights, 0.0), distance_BTS
