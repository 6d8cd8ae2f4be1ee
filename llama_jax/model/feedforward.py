"""The feed-forward layer."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from llama_jax.model.initializers import matrix, zeros
from llama_jax.ops.feedforward import feedforward_kind
from llama_jax.ops.linear import add_bias, linear
from llama_jax.parallel.rules import constrain_last


class FeedForward(nn.Module):
    """Feed-forward layer, (..., D) -> (..., D): by default SwiGLU, (Swish(x W_gate) * x W_up) W_down (Shazeer 2020)."""

    ffn_dim: int
    """Hidden width F."""
    kind: str = "swiglu"
    """One of `ops.feedforward.FEEDFORWARDS`."""
    use_bias: bool = False
    """Whether every product adds a learned bias."""
    residual_layers: int = 0
    """Number of blocks L of the model, by which the initial output projection is scaled (`model.initializers`); 0: unscaled."""
    dtype: DTypeLike | None = None
    """Dtype of the products and the output; None: the input's."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype in which the parameters are made."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        D, F = x.shape[-1], self.ffn_dim
        x = x.astype(self.dtype or x.dtype)
        kind = feedforward_kind(self.kind)
        weights = [self.param(name, matrix("embed", "mlp"), (D, F), self.param_dtype) for name in kind.projections]
        down_init = matrix("mlp", "embed", residual_layers=self.residual_layers)
        w_down_FD = self.param("w_down", down_init, (F, D), self.param_dtype)
        x = constrain_last(x, "features")
        projected = [constrain_last(linear(x, w_DF), "mlp") for w_DF in weights]
        if self.use_bias:
            biases = [self.param(name.replace("w_", "b_"), zeros("mlp"), (F,), self.param_dtype) for name in kind.projections]
            projected = [add_bias(y, b_F) for y, b_F in zip(projected, biases, strict=True)]
        projected = [checkpoint_name(y, "linear") for y in projected]
        hidden = kind.combine(*projected)
        self.sow("intermediates", "ffn_hidden", hidden)
        out = linear(hidden, w_down_FD)
        if self.use_bias:
            out = add_bias(out, self.param("b_down", zeros("features"), (D,), self.param_dtype))
        return checkpoint_name(constrain_last(out, "features", tokens="stream"), "linear")
