"""The feed-forward layer."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from llama_jax.model.initializers import matrix
from llama_jax.ops.feedforward import FEEDFORWARDS
from llama_jax.ops.linear import linear
from llama_jax.parallel.rules import constrain_last


class FeedForward(nn.Module):
    """Feed-forward layer, (..., D) -> (..., D): by default SwiGLU, (Swish(x W_gate) * x W_up) W_down (Shazeer 2020)."""

    width: int
    """Hidden width F."""
    kind: str = "swiglu"
    """One of `ops.feedforward.FEEDFORWARDS`."""
    residual_layers: int = 0
    """Number of blocks L of the model, by which the initial output projection is scaled (`model.initializers`); 0: unscaled."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        D, F = x.shape[-1], self.width
        kind = FEEDFORWARDS[self.kind]
        weights = [self.param(name, matrix("embed", "mlp"), (D, F), jnp.float32) for name in kind.projections]
        down_init = matrix("mlp", "embed", residual_layers=self.residual_layers)
        w_down_FD = self.param("w_down", down_init, (F, D), jnp.float32)
        x = constrain_last(x, "features")
        projected = [checkpoint_name(constrain_last(linear(x, w_DF), "mlp"), "linear") for w_DF in weights]
        out = constrain_last(linear(kind.combine(*projected), w_down_FD), "features", tokens="stream")
        return checkpoint_name(out, "linear")
