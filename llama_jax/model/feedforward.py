"""Feed-forward: SwiGLU (Shazeer 2020)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import matrix
from llama_jax.ops.linear import linear
from llama_jax.parallel.rules import constrain


class FeedForward(nn.Module):
    """(Swish(x W_gate) * x W_up) W_down, (B, T, D) -> (B, T, D)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        c = self.config
        w_gate_DF = self.param("w_gate", matrix("embed", "mlp"), (c.dim, c.ffn_dim), jnp.float32)
        w_up_DF = self.param("w_up", matrix("embed", "mlp"), (c.dim, c.ffn_dim), jnp.float32)
        down_init = matrix("mlp", "embed", residual_layers=c.num_layers)
        w_down_FD = self.param("w_down", down_init, (c.ffn_dim, c.dim), jnp.float32)
        x_BTD = constrain(x_BTD, "batch", "seq", "features")
        gate_BTF, up_BTF = (
            checkpoint_name(constrain(linear(x_BTD, w), "batch", "seq", "mlp"), "linear") for w in (w_gate_DF, w_up_DF)
        )
        out_BTD = constrain(linear(jax.nn.silu(gate_BTF) * up_BTF, w_down_FD), "batch", "stream", "features")
        return checkpoint_name(out_BTD, "linear")
