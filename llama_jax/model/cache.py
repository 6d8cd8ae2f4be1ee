"""The key-value cache of decoding."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.model.attention import KeysValues
from llama_jax.parallel.rules import constrain


@struct.dataclass
class Cache:
    """Keys (rotated) and values of the tokens each row has seen, in the model's own number of kv heads.

    Layers lie apart and heads before slots: a decoding step then reads them where they lie, and copies nothing.
    """

    k_LBKSH: tuple[Array, ...]
    v_LBKSH: tuple[Array, ...]
    lengths_B: Array
    """int32 tokens a row holds; slots from there on are free, whatever lies in them."""

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, slots: int) -> "Cache":
        """`slots` free slots for each of `batch` rows, in the compute dtype."""
        nothing = jnp.zeros((batch, 0, config.num_kv_heads, config.head_size), config.dtype)
        return cls.holding([(nothing, nothing)] * config.num_layers, jnp.zeros(batch, jnp.int32), slots)

    @classmethod
    def holding(cls, new: Sequence[KeysValues], counts_B: Array, slots: int) -> "Cache":
        """`slots` slots a row, split over the mesh like activations; row b holds the first counts_B[b] of T tokens.

        `new` is k_BTKH and v_BTKH of every layer.
        """
        def place(x_BTKH: Array) -> Array:
            x_BKSH = jnp.pad(x_BTKH.swapaxes(1, 2), ((0, 0), (0, 0), (0, slots - x_BTKH.shape[1]), (0, 0)))
            return constrain(x_BKSH, "batch", "kv_heads", "seq", "head_dim")

        k_LBKSH, v_LBKSH = (tuple(map(place, arrays)) for arrays in zip(*new, strict=True))
        return cls(k_LBKSH, v_LBKSH, counts_B)

    def layer(self, n: int) -> tuple[Array, Array, Array]:
        """(k_BKSH, v_BKSH, lengths_B) of layer n."""
        return self.k_LBKSH[n], self.v_LBKSH[n], self.lengths_B
