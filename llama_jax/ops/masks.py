"""What a query may see, as a description; materialised only where a backend needs it."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Causal attention, optionally within segments of equal id."""

    segment_ids_BT: Array | None = None
    """int32 document of each token, or None where a row is one document."""

    def materialize(self, length: int) -> Array:
        """bool (B or 1, T, S) of what may be seen, for T = S = length."""
        index = jnp.arange(length)
        return self.block(index, index, self.segment_ids_BT, self.segment_ids_BT)

    @staticmethod
    def block(q_index: Array, k_index: Array, q_segments: Array | None, k_segments: Array | None) -> Array:
        """The same for one block of the scores: indices (T,) and (S,), segments (B, T) and (B, S) or None."""
        visible = (q_index[:, None] >= k_index[None, :])[None]
        if q_segments is not None:
            visible &= q_segments[:, :, None] == k_segments[:, None, :]
        return visible
