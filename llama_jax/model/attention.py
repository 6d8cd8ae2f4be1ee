"""The self-attention layer: multi-head, grouped-query or multi-query, depending on its number of kv heads."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from llama_jax.errors import ConfigError
from llama_jax.model.initializers import matrix
from llama_jax.model.positions import PositionEncoding, Rotary
from llama_jax.ops.decode import attend_over_cache, write_to_cache
from llama_jax.ops.linear import linear
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.ops.varying import explicit_sharding, merged_sharding
from llama_jax.parallel.attention import attend_over_mesh
from llama_jax.parallel.rules import constrain

NOTHING_KNOWN = frozenset()
"""Fields of `Mask` that attention over a cache supports: none, since it is purely causal."""


class KeysValues(NamedTuple):
    """Keys and values of one layer; keys are held after the position encoding has been applied to them."""

    k: Array
    """Keys, (B, T, K, H) of new tokens or (B, K, S, H) in a cache."""
    v: Array
    """Values, shaped like the keys."""


@struct.dataclass
class LayerCache:
    """The key-value cache of one layer."""

    k_BKSH: Array
    """Keys in S slots per row, after the position encoding."""
    v_BKSH: Array
    """Values in S slots per row."""
    lengths_B: Array
    """int32 number of tokens that each row holds; the slots from there on are free."""


class Attention(nn.Module):
    """Causal self-attention, (..., T, D) -> (..., T, D), with rotary positions on queries and keys (section 2.2).

    Every leading axis counts rows: attention never crosses them.
    """

    num_heads: int
    """Query heads N."""
    num_kv_heads: int = 0
    """Key and value heads K; 0: as many as query heads."""
    head_dim: int = 0
    """Width H of a head; 0: D / num_heads."""
    position: PositionEncoding = Rotary()
    """How positions enter: rotary embedding by default."""
    backend: str = "auto"
    """Attention implementation: a name of `ops.attention.BACKENDS`, or auto."""
    residual_layers: int = 0
    """Number of blocks L of the model, by which the initial output projection is scaled (`model.initializers`); 0: unscaled."""

    def __call__(self, x: Array, tables: Any = None, mask: Mask = CAUSAL) -> Array:
        """Apply the layer to x (..., T, D): every token attends to itself and the tokens before it.

        `tables` are what `position.tables` gives for these tokens; None: positions 0 to T - 1. `mask` describes rows (B, T).
        """
        if x.ndim < 2:
            raise ConfigError(f"attention wants tokens (..., T, D), got {x.shape}.")
        if x.ndim == 3:
            return self.with_keys_values(x, tables, mask=mask)[0]
        x_BTD = jnp.reshape(x, (-1, *x.shape[-2:]), out_sharding=merged_sharding(x, kept=2))
        out_BTD, _ = self.with_keys_values(x_BTD, tables, mask=mask)
        return jnp.reshape(out_BTD, x.shape, out_sharding=explicit_sharding(x))

    @nn.compact
    def with_keys_values(
        self, x_BTD: Array, tables: Any = None, *, mask: Mask = CAUSAL, cache: LayerCache | None = None
    ) -> tuple[Array, KeysValues]:
        """Apply the layer, and return its output (B, T, D) with the keys and values of these tokens (B, T, K, H).

        With a `cache` the tokens follow those that it holds; the keys and values returned are then the whole cache's
        (B, K, S, H), with the new ones written into it.
        """
        D, N = x_BTD.shape[-1], self.num_heads
        K, H = self.num_kv_heads or N, self.head_dim or D // N
        wq_DNH = self.param("wq", matrix("embed", "heads", "head_dim"), (D, N, H), jnp.float32)
        wk_DKH = self.param("wk", matrix("embed", "kv_heads", "head_dim"), (D, K, H), jnp.float32)
        wv_DKH = self.param("wv", matrix("embed", "kv_heads", "head_dim"), (D, K, H), jnp.float32)
        out_init = matrix("heads", "head_dim", "embed", inputs=2, residual_layers=self.residual_layers)
        wo_NHD = self.param("wo", out_init, (N, H, D), jnp.float32)

        x_BTD = constrain(x_BTD, "batch", "seq", "features")
        q_BTNH = _projected(x_BTD, wq_DNH, heads="heads")
        k_BTKH = _projected(x_BTD, wk_DKH, heads="kv_heads")
        v_BTKH = _projected(x_BTD, wv_DKH, heads="kv_heads")
        if tables is None:
            tables = self.position.tables(jnp.arange(x_BTD.shape[1])[None, :], head_dim=H)
        q_BTNH, k_BTKH = self.position.on_queries_and_keys(q_BTNH, k_BTKH, tables=tables)
        # constrained once more, so that whole heads in the compute dtype are exchanged below, not the halves being rotated
        q_BTNH = constrain(q_BTNH, "batch", "seq", "heads", "head_dim")
        k_BTKH = constrain(k_BTKH, "batch", "seq", "kv_heads", "head_dim")
        bias = self.position.on_scores(tables, num_heads=N)
        backend = "chunked" if self.is_initializing() else self.backend  # parameters do not depend on what computes with them
        if cache is None:
            with jax.named_scope("attend"):
                out_BTNH = attend_over_mesh(q_BTNH, k_BTKH, v_BTKH, mask, backend, bias=bias)
            keys_values = KeysValues(k_BTKH, v_BTKH)
        else:
            mask.only(NOTHING_KNOWN, "attention over a cache")
            keys_values = KeysValues(write_to_cache(cache.k_BKSH, k_BTKH, lengths_B=cache.lengths_B),
                                     write_to_cache(cache.v_BKSH, v_BTKH, lengths_B=cache.lengths_B))
            out_BTNH = attend_over_cache(q_BTNH, *keys_values, lengths_B=cache.lengths_B, bias=bias)
        out_BTD = constrain(linear(out_BTNH, wo_NHD, contract=2), "batch", "stream", "features")
        return checkpoint_name(out_BTD, "linear"), keys_values


def _projected(x_BTD: Array, w: Array, *, heads: str) -> Array:
    """Project the residual stream to queries, keys or values (B, T, heads, H)."""
    return checkpoint_name(constrain(linear(x_BTD, w), "batch", "seq", heads, "head_dim"), "linear")
