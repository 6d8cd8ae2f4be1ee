"""What attention adds by the distance of two tokens, as a description that backends compute block by block."""

import dataclasses
import math
from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.relative import relative_output, relative_scores
from llama_jax.ops.spec import Description


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bias(Description):
    """What attention adds to its scores, keys and values by distance, position of the query - position of the key.

    A field that is None adds nothing. Gradients flow into the relative vectors, and into no other field.
    """

    LABEL: ClassVar[str] = "bias"

    slopes_N: Array | None = field(default=None, metadata={"words": "scores lowered in proportion to distance"})
    """float32 per query head: slope * distance is subtracted from the scaled score (ALiBi, Press et al. 2022)."""
    relative_keys_RH: Array | None = field(default=None, metadata={"words": "vectors added to keys by distance"})
    """Vector added to a key for each distance 0 .. R - 1, the last for all beyond, shared by all heads (Shaw et al. 2018)."""
    relative_values_RH: Array | None = field(default=None, metadata={"words": "vectors added to values by distance"})
    """The same for values."""
    positions_BT: Array | None = field(default=None, metadata={"words": "distances by given positions"})
    """int32 (B or 1, S) positions that distances are measured by; None: the index in the row."""

    def distance(self, q_index: Array, k_index: Array) -> Array:
        """int32 distances (B or 1, T, S) of queries (T,) and keys (S,) at these indices of the row."""
        q_positions, k_positions = q_index[None], k_index[None]
        if self.positions_BT is not None:
            q_positions, k_positions = (jnp.take(self.positions_BT, index, axis=1) for index in (q_index, k_index))
        return q_positions[:, :, None] - k_positions[:, None, :]

    def scaled_scores(self, products_BKGTS: Array, q_BKGTH: Array, *, distance_BTS: Array) -> Array:
        """Attention scores from the products of queries and keys, float32 (B, K, G, T, S): scaled by H^-1/2, with what is added.

        `distance_BTS` are the distances of these queries and keys, (B or 1, T, S).
        """
        distances = distance_BTS[:, None, None]
        if self.relative_keys_RH is not None:
            products_BKGTS += relative_scores(q_BKGTH, self.relative_keys_RH, distance_TS=distances)
        scores_BKGTS = products_BKGTS * q_BKGTH.shape[-1] ** -0.5
        if self.slopes_N is not None:
            slopes = jax.lax.stop_gradient(self.slopes_N).reshape(1, *q_BKGTH.shape[1:3], 1, 1)  # alike in all backends
            scores_BKGTS -= slopes * distances.astype(jnp.float32)
        return scores_BKGTS

    def with_relative_values(self, out_BKGTH: Array, weights_BKGTS: Array, *, distance_BTS: Array) -> Array:
        """Attention's output (weights times values, float32) with what the relative vectors on values add to it."""
        if self.relative_values_RH is None:
            return out_BKGTH
        return out_BKGTH + relative_output(
            weights_BKGTS, self.relative_values_RH, distance_TS=distance_BTS[:, None, None])

    def padded(self, count: int) -> "Bias":
        """The bias of the same rows with `count` tokens of padding appended."""
        if self.positions_BT is None or count == 0:
            return self
        return dataclasses.replace(self, positions_BT=jnp.pad(self.positions_BT, ((0, 0), (0, count))))


BIAS_FIELDS = frozenset({"bias.slopes_N", "bias.relative_keys_RH", "bias.relative_values_RH", "bias.positions_BT"})
"""Fields that the methods of `Bias` compute, and with them every backend that calls these; written out, so that a field which is
added without being computed is refused."""

NO_BIAS = Bias()
"""Nothing is added to scores, keys or values."""


def alibi_slopes(num_heads: int) -> Array:
    """The slopes of ALiBi (Press et al. 2022), float32 (N,): 2^(-8 h / N) for heads h = 1 .. N, where N is a power of two.

    For any other N, as in the paper's code: those of the next lower power of two P, then every second one of 2P.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    exponents = [-8 * h / power for h in range(1, power + 1)] + [-4 * h / power for h in range(1, 2 * power, 2)]
    return 2.0 ** jnp.array(exponents[:num_heads], jnp.float32)
