"""One Transformer block: attention and feed-forward layer, each after a norm and added to the residual stream."""

from typing import Any

import jax
from flax import linen as nn
from jax import Array

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.attention import Attention, KeysValues, LayerCache
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import make_norm
from llama_jax.model.positions import position_encoding
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.parallel.rules import constrain

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "linear": jax.checkpoint_policies.save_only_these_names("linear"),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=["linear"], offload_src="device", offload_dst="pinned_host"
    ),
}
"""Value of `compute.remat` -> rematerialisation policy of a block: keep only its input for the backward pass (full), or also the
outputs of its linear layers (section 2.4), on the device (linear) or in the host's memory (offload)."""


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + feedforward(norm(x)) (section 2.2)."""

    config: ModelConfig
    compute: ComputeConfig = ComputeConfig()

    def __call__(self, x_BTD: Array, tables: Any, mask: Mask = CAUSAL) -> Array:
        """The residual stream (B, T, D) after this block; `tables` are what the position encoding's `tables` returned."""
        return self.with_keys_values(x_BTD, tables, mask=mask)[0]

    @nn.compact
    def with_keys_values(
        self, x_BTD: Array, tables: Any, *, mask: Mask = CAUSAL, cache: LayerCache | None = None
    ) -> tuple[Array, KeysValues]:
        """The residual stream (B, T, D) after this block, with keys and values as `Attention.with_keys_values` returns them."""
        c = self.config
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_size, position_encoding(c), self.compute.attention,
                              residual_layers=c.num_layers, name="attention")
        feedforward = FeedForward(c.ffn_dim, c.feedforward, residual_layers=c.num_layers, name="feedforward")
        h_BTD = make_norm(c, name="attention_norm")(x_BTD)
        out_BTD, keys_values = attention.with_keys_values(h_BTD, tables, mask=mask, cache=cache)
        x_BTD += out_BTD
        h_BTD = make_norm(c, name="feedforward_norm")(x_BTD)
        x_BTD += feedforward(h_BTD)
        return constrain(x_BTD, "batch", "stream", "features"), keys_values
