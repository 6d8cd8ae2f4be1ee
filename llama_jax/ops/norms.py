"""Normalisation over the last axis as functions; computed in float32, returned in the input's dtype unless another is given."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


def rms_norm(x: Array, scale_D: Array, *, eps: float, dtype: DTypeLike | None = None) -> Array:
    """RMSNorm: scale * x / sqrt(mean(x^2) + eps) of x (..., D) (Zhang & Sennrich 2019); scale_D is (D,)."""
    x_float = x.astype(jnp.float32)
    x_float = x_float * jax.lax.rsqrt(jnp.mean(jnp.square(x_float), axis=-1, keepdims=True) + eps)
    return (x_float * _over_rows(scale_D, x)).astype(dtype or x.dtype)


def layer_norm(x: Array, scale_D: Array, bias_D: Array, *, eps: float, dtype: DTypeLike | None = None) -> Array:
    """LayerNorm: scale * (x - mean(x)) / sqrt(var(x) + eps) + bias of x (..., D) (Ba et al. 2016); scale_D and bias_D are (D,).

    The variance is the population's: the mean of the squared deviations.
    """
    x_float = x.astype(jnp.float32)
    x_float = x_float - jnp.mean(x_float, axis=-1, keepdims=True)
    x_float = x_float * jax.lax.rsqrt(jnp.mean(jnp.square(x_float), axis=-1, keepdims=True) + eps)
    return (x_float * _over_rows(scale_D, x) + _over_rows(bias_D, x)).astype(dtype or x.dtype)


def _over_rows(vector_D: Array, x: Array) -> Array:
    """A float32 vector with the leading axes that x has, of size 1."""
    return jnp.expand_dims(vector_D.astype(jnp.float32), tuple(range(x.ndim - 1)))
