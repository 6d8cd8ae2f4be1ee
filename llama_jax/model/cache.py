"""The key-value cache that decoding reads and extends."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.model.attention import KeysValues, LayerCache
from llama_jax.parallel.rules import constrain


@struct.dataclass
class Cache:
    """Key-value cache of a whole model: keys and values of the tokens that each row has seen, per kv head.

    Each layer has an array of its own, and heads come before slots, so that a decode step reads them in place without a copy.
    """

    k_BKSH: tuple[Array, ...]
    """Keys of each layer, in the compute dtype, as they come out of the position encoding."""
    v_BKSH: tuple[Array, ...]
    """Values of each layer."""
    lengths_B: Array
    """int32 number of tokens that each row holds; the slots from there on are free, whatever values they have."""

    @classmethod
    def empty(cls, config: ModelConfig, *, dtype: str, rows: int, slots: int) -> "Cache":
        """Make an empty cache with `slots` slots for each of `rows` rows."""
        nothing = jnp.zeros((rows, 0, config.num_kv_heads, config.head_size), dtype)
        return cls.holding([KeysValues(nothing, nothing)] * config.num_layers, jnp.zeros(rows, jnp.int32), slots=slots)

    @classmethod
    def holding(cls, new: Sequence[KeysValues], counts_B: Array, *, slots: int) -> "Cache":
        """Make a cache with `slots` slots per row from the keys and values (B, T, K, H) of every layer.

        Row b holds the first counts_B[b] of the T tokens. The cache is sharded over the mesh like activations.
        """
        def place(x_BTKH: Array) -> Array:
            x_BKSH = jnp.pad(x_BTKH.swapaxes(1, 2), ((0, 0), (0, 0), (0, slots - x_BTKH.shape[1]), (0, 0)))
            return constrain(x_BKSH, "batch", "kv_heads", "seq", "head_dim")

        return cls(tuple(place(layer.k) for layer in new), tuple(place(layer.v) for layer in new), counts_B)

    def updated(self, layers: Sequence[KeysValues], lengths_B: Array) -> "Cache":
        """The cache after a forward pass that returned these keys and values (B, K, S, H), with new lengths."""
        return Cache(tuple(layer.k for layer in layers), tuple(layer.v for layer in layers), lengths_B)

    def layer(self, n: int) -> LayerCache:
        """The cache of layer `n`, from 0."""
        return LayerCache(self.k_BKSH[n], self.v_BKSH[n], self.lengths_B)
