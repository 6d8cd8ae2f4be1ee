"""Which keys a query may see, as a description; a boolean array is made of it only where a backend needs one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.spec import Description


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask(Description):
    """Causal attention, optionally within documents and along the branches of prefix trees."""

    LABEL: ClassVar[str] = "mask"

    segment_ids_BT: Array | None = dataclasses.field(default=None, metadata={"words": "documents that do not see each other"})
    """int32 document of each token, any numbers: tokens with equal ones see each other. None where a row is one document."""
    ends_BT: Array | None = dataclasses.field(default=None, metadata={"words": "tree masks"})
    """int32 index of the row at which each token's subtree ends, for prefix trees laid out depth first: tokens from there on
    do not see it. None where nothing branches."""

    def materialize(self, length: int, *, first: Array | int = 0, count: int | None = None) -> Array:
        """bool (B or 1, T, S) of what may be seen, for S = length and the `count` queries from `first` (default: all)."""
        index = jnp.arange(length)
        if count is None:
            return self.block(index, index, q=self, k=self)
        return self.block(first + jnp.arange(count), index, q=self.tile(first, count), k=self)

    def tile(self, start: Array | int, size: int) -> "Mask":
        """The description of tokens start .. start + size - 1."""
        return jax.tree.map(lambda ids_BT: lax.dynamic_slice_in_dim(ids_BT, start, size, axis=1), self)

    @staticmethod
    def block(q_index: Array, k_index: Array, *, q: "Mask", k: "Mask") -> Array:
        """bool (B or 1, T, S) for one block of the scores: indices (T,) and (S,) in the row, and the masks of these tokens."""
        visible = (q_index[:, None] >= k_index[None, :])[None]
        if q.segment_ids_BT is not None:
            visible &= q.segment_ids_BT[:, :, None] == k.segment_ids_BT[:, None, :]
        if k.ends_BT is not None:
            visible &= q_index[None, :, None] < k.ends_BT[:, None, :]
        return visible


CAUSAL = Mask()
"""Every token sees the tokens of its row up to itself."""
