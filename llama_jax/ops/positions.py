"""Where a token stands: rotary tables and the rotation of queries and keys."""

import jax.numpy as jnp
from jax import Array


def rope_tables(positions_BT: Array, *, head_dim: int, theta: float) -> tuple[Array, Array]:
    """cos and sin of position * theta^(-2i/H), each float32 (B, T, H/2) (Su et al. 2021, section 3.4.2)."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies[None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTNH: Array, tables: tuple[Array, Array]) -> Array:
    """Turn the pairs (x[i], x[i + H/2]) of every head by the tables' angles; computed in float32, returned as x's dtype.

    Halves, not neighbours, form the pairs: the layout of the Hugging Face checkpoints. Conversion permutes Meta's.
    """
    cos, sin = (table[:, :, None, :] for table in tables)
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
