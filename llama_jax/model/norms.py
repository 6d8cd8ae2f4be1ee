"""Normalisation layers, and the choice of one by `model.norm`."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import ones, zeros
from llama_jax.ops.norms import layer_norm, rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, (..., D) -> (..., D), with a learned scale (Zhang & Sennrich 2019)."""

    eps: float = 1e-5
    """Epsilon added to the mean square."""
    dtype: DTypeLike | None = None
    """Dtype of the output; None: the input's. It is computed in float32 in any case."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype in which the parameters are made."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", ones("features"), (x.shape[-1],), self.param_dtype)
        return rms_norm(x, scale_D, eps=self.eps, dtype=self.dtype)


class LayerNorm(nn.Module):
    """Normalisation to mean 0 and variance 1 over the last axis, (..., D) -> (..., D), with learned scale and bias (Ba et al.
    2016)."""

    eps: float = 1e-5
    """Epsilon added to the variance."""
    dtype: DTypeLike | None = None
    """Dtype of the output; None: the input's. It is computed in float32 in any case."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype in which the parameters are made."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", ones("features"), (x.shape[-1],), self.param_dtype)
        bias_D = self.param("bias", zeros("features"), (x.shape[-1],), self.param_dtype)
        return layer_norm(x, scale_D, bias_D, eps=self.eps, dtype=self.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}
"""Value of `model.norm` -> the class of the layer, which is made as `layer(eps=..., name=...)`."""


def make_norm(config: ModelConfig, *, name: str | None = None) -> nn.Module:
    """Make the normalisation layer that a model's config names."""
    return NORMS[config.norm](eps=config.norm_eps, name=name)
