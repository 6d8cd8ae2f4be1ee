"""Self-attention: multi-head, grouped-query and multi-query from one grouped product."""

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
from llama_jax.parallel.attention import attend_over_mesh
from llama_jax.parallel.rules import constrain

NOTHING_KNOWN = frozenset()
"""Attention over a cache is causal and nothing else: no field of a `Mask` may say more."""


class KeysValues(NamedTuple):
    """Keys, as they come out of the position encoding, and values."""

    k: Array
    """(B, T, K, H) of tokens, or (B, K, S, H) in a cache."""
    v: Array
    """Shaped like the keys."""


@struct.dataclass
class LayerCache:
    """One layer's part of a key-value cache."""

    k_BKSH: Array
    v_BKSH: Array
    lengths_B: Array
    """int32 tokens that each row holds; the slots from there on are free."""


class Attention(nn.Module):
    """Causal self-attention, (..., T, D) -> (..., T, D), with rotary positions on queries and keys (section 2.2).

    Every leading axis counts rows: attention never crosses them.
    """

    num_heads: int
    num_kv_heads: int = 0
    """Key and value heads K; 0: as many as query heads."""
    head_dim: int = 0
    """Width H of a head; 0: D / num_heads."""
    position: PositionEncoding = Rotary()
    backend: str = "auto"
    """A name of `ops.attention.BACKENDS`, or auto."""
    residual_layers: int = 0
    """Blocks L of the model whose residual stream this adds to (see `model.initializers`); 0: stands alone."""

    def __call__(self, x: Array, tables: Any = None, mask: Mask = CAUSAL) -> Array:
        """Attention of every token over the tokens before it and itself.

        `tables` are those of the position encoding for these tokens; None: positions 0 to T - 1. `mask` describes rows (B, T).
        """
        if x.ndim < 2:
            raise ConfigError(f"attention wants tokens (..., T, D), got {x.shape}.")
        out_BTD, _ = self.with_keys_values(x.reshape(-1, *x.shape[-2:]) if x.ndim != 3 else x, tables, mask=mask)
        return out_BTD.reshape(x.shape)

    @nn.compact
    def with_keys_values(
        self, x_BTD: Array, tables: Any = None, *, mask: Mask = CAUSAL, cache: LayerCache | None = None
    ) -> tuple[Array, KeysValues]:
        """The output (B, T, D), and the keys and values of these tokens.

        With a `cache` the tokens follow those it holds, and what is returned are the cache's keys and values with the new ones
        among them.
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
    """Queries, keys or values (B, T, heads, H)."""
    return checkpoint_name(constrain(linear(x_BTD, w), "batch", "seq", heads, "head_dim"), "linear")
