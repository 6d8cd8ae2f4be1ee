"""Normalisation layers, and the one place that decides which a model has."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import ones
from llama_jax.ops.norms import rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square normalisation of the last axis, any number of leading ones: see `ops.norms.rms_norm`."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", ones("features"), (x.shape[-1],), jnp.float32)
        return rms_norm(x, scale_D, eps=self.eps)


NORMS: dict[str, Callable[..., nn.Module]] = {"rmsnorm": RMSNorm}
"""Layers by the names that `model.norm` takes; each is made as `layer(eps=..., name=...)`."""


def make_norm(config: ModelConfig, *, name: str | None = None) -> nn.Module:
    """The normalisation layer of a model."""
    return NORMS[config.norm](eps=config.norm_eps, name=name)
