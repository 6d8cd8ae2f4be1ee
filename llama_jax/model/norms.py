"""Normalisation: the one place that decides what stands before attention, feed-forward and the head."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class RMSNorm(nn.Module):
    """g * x / sqrt(mean(x^2) + eps) over the last axis, in float32, returned as x's dtype (Zhang & Sennrich 2019)."""

    eps: float

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("features",))
        scale_D = self.param("scale", init, (x_BTD.shape[-1],), jnp.float32)
        x = x_BTD.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return (x * scale_D[None, None, :]).astype(x_BTD.dtype)
