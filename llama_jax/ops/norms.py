"""Root-mean-square normalisation as a function."""

import jax
import jax.numpy as jnp
from jax import Array


def rms_norm(x: Array, scale_D: Array, *, eps: float) -> Array:
    """RMSNorm: scale * x / sqrt(mean(x^2) + eps) over the last axis of x (..., D) (Zhang & Sennrich 2019).

    It is computed in float32 and returned in x's dtype; scale_D is (D,).
    """
    x_float = x.astype(jnp.float32)
    x_float = x_float * jax.lax.rsqrt(jnp.mean(jnp.square(x_float), axis=-1, keepdims=True) + eps)
    return (x_float * jnp.expand_dims(scale_D, tuple(range(x.ndim - 1)))).astype(x.dtype)
