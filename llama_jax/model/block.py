"""One Transformer block: attention and feed-forward layer, each added to the residual stream, with norms before or after."""

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
    """Residual block: x + attention(norm(x)), then x + feedforward(norm(x)) (section 2.2).

    With `norm_position` post: norm(x + attention(x)), then norm(x + feedforward(x)), as in the Transformer of 2017.
    """

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
        c, post = self.config, self.config.norm_position == "post"
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_size, position_encoding(c), self.compute.attention, c.use_bias,
                              residual_layers=c.num_layers, name="attention")
        feedforward = FeedForward(c.ffn_dim, c.feedforward, c.use_bias, residual_layers=c.num_layers, name="feedforward")
        attention_norm, feedforward_norm = make_norm(c, name="attention_norm"), make_norm(c, name="feedforward_norm")
        self.sow("intermediates", "resid_pre", x_BTD)
        h_BTD = x_BTD if post else attention_norm(x_BTD)
        out_BTD, keys_values = attention.with_keys_values(h_BTD, tables, mask=mask, cache=cache)
        self.sow("intermediates", "attn_out", out_BTD)
        x_BTD = attention_norm(x_BTD + out_BTD) if post else x_BTD + out_BTD
        self.sow("intermediates", "resid_mid", x_BTD)
        out_BTD = feedforward(x_BTD if post else feedforward_norm(x_BTD))
        self.sow("intermediates", "ffn_out", out_BTD)
        x_BTD = feedforward_norm(x_BTD + out_BTD) if post else x_BTD + out_BTD
        x_BTD = constrain(x_BTD, "batch", "stream", "features")
        self.sow("intermediates", "resid_post", x_BTD)
        return x_BTD, keys_values
