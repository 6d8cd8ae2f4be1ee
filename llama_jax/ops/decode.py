"""Attention of a decode step: writing new keys and values into a layer's cache, and attending over everything it holds."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.bias import BIAS_FIELDS, NO_BIAS, Bias
from llama_jax.ops.reference import MASKED

KNOWS = BIAS_FIELDS
"""Fields of `Mask` and `Bias` that attention over a cache supports: every bias and no mask. It is purely causal: a row of the
cache is one text from its beginning, so that positions are indices."""


def write_to_cache(held_BKSH: Array, new_BTKH: Array, *, lengths_B: Array) -> Array:
    """Write each row's T new keys or values into its cache, in the slots from lengths_B[b] on; returns the cache (B, K, S, H).

    The caller makes sure that these slots exist; the update would else be shifted onto older ones.
    """
    B, K, _, H = held_BKSH.shape
    chex.assert_shape([new_BTKH, lengths_B], [(B, None, K, H), (B,)])
    new_BKTH = new_BTKH.swapaxes(1, 2).astype(held_BKSH.dtype)
    return lax.platform_dependent(held_BKSH, new_BKTH, lengths_B, cpu=_write_heads, default=_write_rows)


def _write_rows(*arrays: Array) -> Array:
    """Write the cache with one update per row."""
    return jax.vmap(partial(lax.dynamic_update_slice_in_dim, axis=1))(*arrays)


def _write_heads(held_BKSH: Array, new_BKTH: Array, *rest: Array) -> Array:
    """Write the cache with one update per head: XLA on CPU would update a whole row twice and copy the cache."""
    [lengths_B] = rest
    put = jax.vmap(jax.vmap(partial(lax.dynamic_update_slice_in_dim, axis=0)))
    return put(held_BKSH, new_BKTH, jnp.broadcast_to(lengths_B[:, None], held_BKSH.shape[:2]))


def attend_over_cache(
    q_BTNH: Array, k_BKSH: Array, v_BKSH: Array, *, lengths_B: Array, bias: Bias = NO_BIAS
) -> Array:
    """Compute causal attention of T new tokens over a cache that already holds them, (B, T, N, H) in q's dtype.

    Row b held lengths_B[b] tokens before the new ones; slots after the new tokens are masked. Softmax is in float32. Query head n
    reads kv head n // (N / K), without repeating keys or values in memory.
    """
    bias.only(KNOWS, "attention over a cache")
    B, T, N, H = q_BTNH.shape
    K, S = k_BKSH.shape[1:3]
    chex.assert_shape([k_BKSH, v_BKSH, lengths_B], [(B, K, S, H), (B, K, S, H), (B,)])
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    q_BKRH = q_BKGTH.reshape(B, K, -1, H)  # R: group by query
    last_BT = lengths_B[:, None] + jnp.arange(T)[None, :]
    distance_BTS = last_BT[:, :, None] - jnp.arange(S)[None, None, :]
    products_BKRS = jnp.einsum("BKSH,BKRH->BKRS", k_BKSH, q_BKRH, preferred_element_type=jnp.float32)
    scores_BKGTS = bias.scaled_scores(products_BKRS.reshape(B, K, -1, T, S), q_BKGTH, distance_BTS=distance_BTS)
    seen_BTS = jnp.arange(S)[None, None, :] <= last_BT[:, :, None]
    weights_BKGTS = jax.nn.softmax(jnp.where(seen_BTS[:, None, None], scores_BKGTS, MASKED), axis=-1)
    weights_BKRS = weights_BKGTS.reshape(B, K, -1, S).astype(v_BKSH.dtype)
    out_BKRH = jnp.einsum("BKRS,BKSH->BKRH", weights_BKRS, v_BKSH, preferred_element_type=jnp.float32)
    out_BKGTH = bias.with_relative_values(out_BKRH.reshape(B, K, -1, T, H), weights_BKGTS, distance_BTS=distance_BTS)
    return out_BKGTH.astype(q_BTNH.dtype).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
