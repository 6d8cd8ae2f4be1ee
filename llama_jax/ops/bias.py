"""The bias added to attention scores, as a description that backends compute block by block, never for all T x T pairs."""

import dataclasses
from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.spec import Description


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bias(Description):
    """Bias that is added to the scaled attention scores; a field that is None adds nothing.

    No gradient flows into these fields.
    """

    LABEL: ClassVar[str] = "bias"

    slopes_N: Array | None = field(default=None, metadata={"words": "scores lowered in proportion to distance"})
    """float32 per query head: slope * (position of the query - position of the key) is subtracted (ALiBi, Press et al. 2022)."""
    positions_BT: Array | None = field(default=None, metadata={"words": "distances by given positions"})
    """int32 (B or 1, S) positions that distances are measured by; None: the index in the row."""

    def block(self, q_index: Array, k_index: Array) -> Array | None:
        """The bias of one block of scores, float32 (B or 1, N, T, S), for queries and keys at these indices of the row.

        The indices are (T,) and (S,). Returns None where nothing is added.
        """
        if self.slopes_N is None:
            return None
        q_positions, k_positions = q_index[None], k_index[None]
        if self.positions_BT is not None:
            q_positions, k_positions = (jnp.take(self.positions_BT, index, axis=1) for index in (q_index, k_index))
        distance_BTS = (q_positions[:, :, None] - k_positions[:, None, :]).astype(jnp.float32)
        return -self.slopes_N[None, :, None, None] * distance_BTS[:, None]

    def padded(self, count: int) -> "Bias":
        """The bias of the same rows with `count` tokens of padding appended."""
        if self.positions_BT is None or count == 0:
            return self
        return dataclasses.replace(self, positions_BT=jnp.pad(self.positions_BT, ((0, 0), (0, count))))


NO_BIAS = Bias()
