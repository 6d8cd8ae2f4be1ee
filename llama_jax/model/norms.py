"""Normalisation layers, and the choice of one by `model.norm`."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import ones
from llama_jax.ops.norms import rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, (..., D) -> (..., D), with a learned scale (Zhang & Sennrich 2019)."""

    eps: float = 1e-5
    """Epsilon added to the mean square."""
    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", ones("features"), (x.shape[-1],), jnp.float32)
        return rms_norm(x, scale_D, eps=self.eps)


NORMS: dict[str, Callable[..., nn.Module]] = {"rmsnorm": RMSNorm}
"""Value of `model.norm` -> the class of the layer, which is made as `layer(eps=..., name=...)`."""


def make_norm(config: ModelConfig, *, name: str | None = None) -> nn.Module:
    """Make the normalisation layer that a model's config names."""
    return NORMS[config.norm](eps=config.norm_eps, name=name)
