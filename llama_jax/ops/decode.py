"""A layer's keys and values in a cache: writing new tokens, and attention over all that is held."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.reference import MASKED


def write(held_BKSH: Array, new_BTKH: Array, lengths_B: Array) -> Array:
    """With each row's T new tokens in its slots from lengths_B on; the caller sees to it that S has them."""
    new_BKTH = new_BTKH.swapaxes(1, 2).astype(held_BKSH.dtype)
    return lax.platform_dependent(held_BKSH, new_BKTH, lengths_B, cpu=write_heads, default=write_rows)


def write_rows(held_BKSH: Array, new_BKTH: Array, lengths_B: Array) -> Array:
    """One update a row."""
    return jax.vmap(partial(lax.dynamic_update_slice_in_dim, axis=1))(held_BKSH, new_BKTH, lengths_B)


def write_heads(held_BKSH: Array, new_BKTH: Array, lengths_B: Array) -> Array:
    """One update a head: XLA's CPU does that of a single row twice, once for each reader, and in copies of the cache."""
    put = jax.vmap(jax.vmap(partial(lax.dynamic_update_slice_in_dim, axis=0)))
    return put(held_BKSH, new_BKTH, jnp.broadcast_to(lengths_B[:, None], held_BKSH.shape[:2]))


def attend_cached(q_BTNH: Array, k_BKSH: Array, v_BKSH: Array, lengths_B: Array) -> Array:
    """(B, T, N, H) in q's dtype: causal attention of T new tokens over a cache they are written in; softmax in float32.

    Row b held lengths_B[b] tokens before; slots behind the new ones are not seen. Query head n reads kv head n // (N / K);
    nothing is repeated in memory.
    """
    B, T, N, H = q_BTNH.shape
    K, S = k_BKSH.shape[1:3]
    q_BKRH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)  # R: group by query
    last_BT = lengths_B[:, None] + jnp.arange(T)[None, :]
    seen_BTS = jnp.arange(S)[None, None, :] <= last_BT[:, :, None]
    scores_BKRS = jnp.einsum("BKSH,BKRH->BKRS", k_BKSH, q_BKRH, preferred_element_type=jnp.float32) * H**-0.5
    seen_BKRS = jnp.tile(seen_BTS, (1, N // K, 1))[:, None]
    weights_BKRS = jax.nn.softmax(jnp.where(seen_BKRS, scores_BKRS, MASKED), axis=-1).astype(v_BKSH.dtype)
    out_BKRH = jnp.einsum("BKRS,BKSH->BKRH", weights_BKRS, v_BKSH, preferred_element_type=jnp.float32)
    out_BTKGH = out_BKRH.astype(q_BTNH.dtype).reshape(B, K, N // K, T, H).transpose(0, 3, 1, 2, 4)
    return out_BTKGH.reshape(B, T, N, H)
