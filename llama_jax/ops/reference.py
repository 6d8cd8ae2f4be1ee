"""The reference backend: attention as its formula reads, with all T x T weights in memory."""

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.masks import Mask

KNOWS = frozenset({"mask.segment_ids_BT", "mask.ends_BT", "bias.slopes_N", "bias.positions_BT"})
"""Fields of `Mask` and `Bias` that this backend supports: all that their `block` computes."""

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
    mask.only(KNOWS, "the reference backend")
    bias.only(KNOWS, "the reference backend")
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32) * H**-0.5
    index = jnp.arange(S)
    added_BNTS = bias.block(index if first is None else first + jnp.arange(T), index)
    if added_BNTS is not None:
        scores_BKGTS += added_BNTS.reshape(-1, K, N // K, T, S)
    visible_BTS = mask.materialize(S) if first is None else mask.materialize(S, first=first, count=T)
    visible = visible_BTS[:, None, None]
    weights = jax.nn.softmax(jnp.where(visible, scores_BKGTS, MASKED), axis=-1)
    weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)  # a query that sees nothing would weigh all keys alike
    out = jnp.einsum("BKGTS,BSKH->BTKGH", weights.astype(v_BSKH.dtype), v_BSKH, preferred_element_type=jnp.float32)
    return out.astype(q_BTNH.dtype).reshape(B, T, N, H)
