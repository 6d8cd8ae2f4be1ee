"""The reference backend: attention as the papers write it, with the T x T weights in memory."""

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.masks import Mask

KNOWS = frozenset({"segment_ids_BT", "ends_BT"})
"""Fields of a mask that `Mask.block` draws."""

MASKED = -1e30
"""Score of what may not be seen; finite, so that a row of them has no NaN in its gradient."""


def attend_reference(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, first: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(H)) v over what the mask lets through, (B, T, N, H); softmax in float32.

    The mask describes S tokens. The queries are those from `first` on, where it is given, else all (T = S).
    Query head n reads kv head n // (N / K) (Ainslie et al. 2023); nothing is repeated in memory.
    """
    mask.only(KNOWS, "attention by reference")
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32) * H**-0.5
    S = k_BSKH.shape[1]
    visible_BTS = mask.materialize(S) if first is None else mask.materialize(S, first, T)
    visible = visible_BTS[:, None, None]
    weights = jax.nn.softmax(jnp.where(visible, scores, MASKED), axis=-1)
    weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)  # a query that sees nothing would weigh all alike
    out = jnp.einsum("BKGTS,BSKH->BTKGH", weights.astype(v_BSKH.dtype), v_BSKH, preferred_element_type=jnp.float32)
    return out.astype(q_BTNH.dtype).reshape(B, T, N, H)
