"""Attention masks as a description of which keys a query may see; a boolean array is made only where a backend needs one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.spec import Description


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask(Description):
    """Description of an attention mask: causal, optionally restricted to a token's document or its branch of a prefix tree."""

    LABEL: ClassVar[str] = "mask"

    segment_ids_BT: Array | None = dataclasses.field(default=None, metadata={"words": "documents that do not see each other"})
    """int32 document id of each token; tokens attend only to tokens with the same id. None: each row is one document."""
    ends_BT: Array | None = dataclasses.field(default=None, metadata={"words": "tree masks"})
    """int32 index in the row at which each token's subtree ends, for a prefix tree laid out depth first: tokens from that index
    on do not see the token. None: no tree."""

    def materialize(self, length: int, *, first: Array | int = 0, count: int | None = None) -> Array:
        """Make the boolean mask (B or 1, T, S) of S = `length` keys and `count` queries from index `first` (default: all)."""
        index = jnp.arange(length)
        if count is None:
            return self.block(index, index, q=self, k=self)
        return self.block(first + jnp.arange(count), index, q=self.tile(first, count), k=self)

    def tile(self, start: Array | int, size: int) -> "Mask":
        """The mask description of the `size` tokens from index `start` of each row on."""
        return jax.tree.map(lambda ids_BT: lax.dynamic_slice_in_dim(ids_BT, start, size, axis=1), self)

    @staticmethod
    def block(q_index: Array, k_index: Array, *, q: "Mask", k: "Mask") -> Array:
        """Make the boolean mask (B or 1, T, S) of one block of scores.

        Args:
            q_index: Indices of the queries in their row, (T,).
            k_index: Indices of the keys in their row, (S,).
            q: The mask description of the queries' tokens.
            k: The mask description of the keys' tokens.
        """
        visible = (q_index[:, None] >= k_index[None, :])[None]
        if q.segment_ids_BT is not None:
            visible &= q.segment_ids_BT[:, :, None] == k.segment_ids_BT[:, None, :]
        if k.ends_BT is not None:
            visible &= q_index[None, :, None] < k.ends_BT[:, None, :]
        return visible


CAUSAL = Mask()
"""The plain causal mask: every token attends to itself and all tokens before it in its row."""
