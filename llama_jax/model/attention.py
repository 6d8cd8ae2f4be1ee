"""Self-attention: multi-head, grouped-query and multi-query from one grouped product."""


import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from llama_jax.config import ModelConfig
from llama_jax.model.initializers import matrix
from llama_jax.ops.decode import attend_cached, write
from llama_jax.ops.linear import linear
from llama_jax.ops.masks import Mask
from llama_jax.ops.rotary import rotate
from llama_jax.parallel.attention import attend_over_mesh
from llama_jax.parallel.rules import constrain

KeysValues = tuple[Array, Array]
"""Rotated keys and values: (B, T, K, H) each of tokens, (B, K, S, H) each in a cache."""


class Attention(nn.Module):
    """(B, T, D) -> (B, T, D) under a mask, with rotary positions on queries and keys (section 2.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_BTD: Array, rope: tuple[Array, Array], mask: Mask, cached: tuple[Array, Array, Array] | None = None
    ) -> tuple[Array, KeysValues]:
        """The output, and the tokens' keys and values.

        `cached` is a layer of a cache, (k_BKSH, v_BKSH, lengths_B): the tokens follow what it holds, the mask is causality
        alone, and the keys and values returned are the cache's with the tokens' among them.
        """
        c = self.config
        D, N, K, H = c.dim, c.num_heads, c.num_kv_heads, c.head_size
        wq_DNH = self.param("wq", matrix("embed", "heads", "head_dim"), (D, N, H), jnp.float32)
        wk_DKH = self.param("wk", matrix("embed", "kv_heads", "head_dim"), (D, K, H), jnp.float32)
        wv_DKH = self.param("wv", matrix("embed", "kv_heads", "head_dim"), (D, K, H), jnp.float32)
        out_init = matrix("heads", "head_dim", "embed", residual_layers=c.num_layers)
        wo_NHD = self.param("wo", out_init, (N, H, D), jnp.float32)

        x_BTD = constrain(x_BTD, "batch", "seq", "features")
        q_BTNH, k_BTKH, v_BTKH = (
            checkpoint_name(constrain(linear(x_BTD, w), "batch", "seq", heads, "head_dim"), "linear")
            for w, heads in ((wq_DNH, "heads"), (wk_DKH, "kv_heads"), (wv_DKH, "kv_heads"))
        )
        # named once more, so that what is exchanged below are whole heads in the compute dtype, not the halves being rotated
        q_BTNH = constrain(rotate(q_BTNH, rope), "batch", "seq", "heads", "head_dim")
        k_BTKH = constrain(rotate(k_BTKH, rope), "batch", "seq", "kv_heads", "head_dim")
        impl = "chunked" if self.is_initializing() else c.attention  # parameters do not depend on what computes with them
        if cached is None:
            with jax.named_scope("attend"):
                out_BTNH = attend_over_mesh(q_BTNH, k_BTKH, v_BTKH, mask, impl)
            kv = k_BTKH, v_BTKH
        else:
            mask.only(frozenset(), "attention over a cache")
            k_BKSH, v_BKSH, lengths_B = cached
            kv = write(k_BKSH, k_BTKH, lengths_B), write(v_BKSH, v_BTKH, lengths_B)
            out_BTNH = attend_cached(q_BTNH, *kv, lengths_B)
        out_BTD = constrain(linear(out_BTNH, wo_NHD, contract=2), "batch", "stream", "features")
        return checkpoint_name(out_BTD, "linear"), kv
