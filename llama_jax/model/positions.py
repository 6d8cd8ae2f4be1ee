"""Position encodings: one class per kind, with one method for every place in the model where a kind may act."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.ops.bias import Bias
from llama_jax.ops.rotary import rope_tables, rotate


@dataclass(frozen=True)
class PositionEncoding:
    """Base class of position encodings, which adds no position information (NoPE): only the causal mask tells order.

    Subclasses override the methods they need. `tables` is computed once per forward pass and given to every block.
    """

    def tables(self, positions_BT: Array, *, head_dim: int) -> Any:
        """Compute what the other methods need from the positions, int32 (B or 1, T); by default the positions themselves."""
        return positions_BT

    def on_embedding(self, x_BTD: Array, tables: Any) -> Array:
        """Encode positions in the embedded tokens (B, T, D), before the first block; by default returns them unchanged."""
        return x_BTD

    def on_queries_and_keys(self, q_BTNH: Array, k_BTKH: Array, *, tables: Any) -> tuple[Array, Array]:
        """Encode positions in queries and keys before their product; keys are cached as returned. By default unchanged."""
        return q_BTNH, k_BTKH

    def on_scores(self, tables: Any, *, num_heads: int) -> Bias:
        """Describe the bias that is added to the attention scores, which backends compute block by block; by default none."""
        return Bias()


@dataclass(frozen=True)
class Rotary(PositionEncoding):
    """Rotary position embedding: queries and keys are rotated by angles proportional to their position (Su et al. 2021)."""

    theta: float = 10_000.0
    """Base of the frequencies theta^(-2i/H)."""
    scaling: RopeScaling = field(default_factory=RopeScaling)
    """How the frequencies are scaled for long contexts."""

    def tables(self, positions_BT: Array, *, head_dim: int) -> tuple[Array, Array]:
        """Compute the cosine and sine of every angle, float32 (B or 1, T, H / 2) each."""
        return rope_tables(positions_BT, head_dim=head_dim, theta=self.theta, **asdict(self.scaling))

    def on_queries_and_keys(self, q_BTNH: Array, k_BTKH: Array, *, tables: Any) -> tuple[Array, Array]:
        """Rotate queries and keys by the angles of `tables`."""
        return rotate(q_BTNH, tables), rotate(k_BTKH, tables)


POSITIONS: dict[str, Callable[[ModelConfig], PositionEncoding]] = {
    "rope": lambda config: Rotary(config.rope_theta, config.rope_scaling),
}
"""Value of `model.position` -> a function that makes the position encoding of a model."""


def position_encoding(config: ModelConfig) -> PositionEncoding:
    """Make the position encoding that a model's config names."""
    return POSITIONS[config.position](config)


@lru_cache
def described_by_position(config: ModelConfig) -> frozenset[str]:
    """The fields of `Bias` that a model's position encoding uses, which an attention backend has to support."""
    position = position_encoding(config)
    positions_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    bias = jax.eval_shape(lambda positions_BT: position.on_scores(
        position.tables(positions_BT, head_dim=config.head_size), num_heads=config.num_heads), positions_BT)
    return bias.used
