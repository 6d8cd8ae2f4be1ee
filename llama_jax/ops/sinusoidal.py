"""Sinusoidal absolute positions (Vaswani et al. 2017, 3.5)."""

import jax.numpy as jnp
from jax import Array

from llama_jax.errors import ConfigError


def sinusoids(positions_BT: Array, dim: int) -> Array:
    """Sines and cosines of position / 10000^(2i/D) in turn, float32 (..., D) for positions (...): sin, cos, sin, cos, ...

    Raises ConfigError for an odd D.
    """
    if dim <= 0 or dim % 2:
        raise ConfigError(f"sinusoids want an even width, a sine and a cosine for each frequency, got {dim}.")
    frequencies = 10_000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = jnp.multiply.outer(jnp.asarray(positions_BT, jnp.float32), frequencies)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*angles.shape[:-1], dim)
