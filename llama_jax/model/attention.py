"""The self-attention layer: multi-head, grouped-query or multi-query, depending on its number of kv heads."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from llama_jax.errors import ConfigError
from llama_jax.model.initializers import matrix, zeros
from llama_jax.model.positions import PositionEncoding, Rotary
from llama_jax.ops.bias import Bias
from llama_jax.ops.decode import attend_over_cache, write_to_cache
from llama_jax.ops.derivatives import only_gradients
from llama_jax.ops.linear import add_bias, linear
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.ops.reference import attention_weights
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
    use_bias: bool = False
    """Whether every projection adds a learned bias."""
    residual_layers: int = 0
    """Number of blocks L of the model, by which the initial output projection is scaled (`model.initializers`); 0: unscaled."""
    dtype: DTypeLike | None = None
    """Dtype of queries, keys, values and the output; None: the input's. Scores and softmax are float32 in any case."""
    param_dtype: DTypeLike = jnp.float32
    """Dtype in which the parameters are made."""

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
        x_BTD = constrain(x_BTD.astype(self.dtype or x_BTD.dtype), "batch", "seq", "features")
        q_BTNH = self._projected(x_BTD, "q", heads="heads", shape=(N, H))
        k_BTKH = self._projected(x_BTD, "k", heads="kv_heads", shape=(K, H))
        v_BTKH = self._projected(x_BTD, "v", heads="kv_heads", shape=(K, H))
        out_init = matrix("heads", "head_dim", "embed", inputs=2, residual_layers=self.residual_layers)
        wo_NHD = self.param("wo", out_init, (N, H, D), self.param_dtype)
        relative = {name: parameter.declare(self, name, dtype=self.param_dtype)
                    for name, parameter in self.position.attention_parameters(H).items()}
        if tables is None:
            tables = self.position.tables(jnp.arange(x_BTD.shape[1])[None, :], head_dim=H)
        q_BTNH, k_BTKH = self.position.on_queries_and_keys(q_BTNH, k_BTKH, tables=tables)
        # constrained once more, so that whole heads in the compute dtype are exchanged below, not the halves being rotated
        q_BTNH = constrain(q_BTNH, "batch", "seq", "heads", "head_dim")
        k_BTKH = constrain(k_BTKH, "batch", "seq", "kv_heads", "head_dim")
        bias = self.position.in_attention(tables, num_heads=N, **relative)
        self._sow_for_capture(q_BTNH, k_BTKH, v_BTKH, mask=mask, bias=bias, cached=cache is not None)
        backend = self.backend
        if self.is_initializing():  # parameters do not depend on what computes with them
            backend = "chunked" if only_gradients() else "reference"
        if cache is None:
            with jax.named_scope("attend"):
                out_BTNH = attend_over_mesh(q_BTNH, k_BTKH, v_BTKH, mask, backend, bias=bias)
            keys_values = KeysValues(k_BTKH, v_BTKH)
        else:
            mask.only(NOTHING_KNOWN, "attention over a cache")
            keys_values = KeysValues(write_to_cache(cache.k_BKSH, k_BTKH, lengths_B=cache.lengths_B),
                                     write_to_cache(cache.v_BKSH, v_BTKH, lengths_B=cache.lengths_B))
            out_BTNH = attend_over_cache(q_BTNH, *keys_values, lengths_B=cache.lengths_B, bias=bias)
        out_BTD = linear(out_BTNH, wo_NHD, contract=2)
        if self.use_bias:
            out_BTD = add_bias(out_BTD, self.param("bo", zeros("features"), (D,), self.param_dtype))
        return checkpoint_name(constrain(out_BTD, "batch", "stream", "features"), "linear"), keys_values

    def _projected(self, x_BTD: Array, name: str, *, heads: str, shape: tuple[int, int]) -> Array:
        """Project the residual stream to queries, keys or values (B, T, heads, H)."""
        w = self.param(f"w{name}", matrix("embed", heads, "head_dim"), (x_BTD.shape[-1], *shape), self.param_dtype)
        projected = constrain(linear(x_BTD, w), "batch", "seq", heads, "head_dim")
        if self.use_bias:
            projected = add_bias(projected, self.param(f"b{name}", zeros(heads, "head_dim"), shape, self.param_dtype))
        return checkpoint_name(projected, "linear")

    def _sow_for_capture(self, q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, *, mask: Mask, bias: Bias, cached: bool):
        """Keep queries, keys and values where "intermediates" are collected, and the weights where "attn_weights" are.

        Over a cache there are no weights: these are the new tokens' keys alone.
        """
        self.sow("intermediates", "queries", q_BTNH)
        self.sow("intermediates", "keys", k_BTKH)
        self.sow("intermediates", "values", v_BTKH)
        if self.is_mutable_collection("attn_weights") and not self.is_initializing() and not cached:
            self.sow("attn_weights", "attn_weights", attention_weights(q_BTNH, k_BTKH, mask, bias=bias))
