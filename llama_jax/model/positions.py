"""How a token's position enters the model: one class per kind, with one method for every place where a kind may act."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.ops.bias import Bias
from llama_jax.ops.rotary import rope_tables, rotate


@dataclass(frozen=True)
class PositionEncoding:
    """A kind that does nothing: attention then tells positions apart by causality alone. Others override what they need.

    `tables` is computed once per forward pass and given to every block.
    """

    def tables(self, positions_BT: Array, *, head_dim: int) -> Any:
        """Whatever the other methods need of the positions, int32 (B or 1, T)."""
        return positions_BT

    def on_embedding(self, x_BTD: Array, tables: Any) -> Array:
        """The embedded tokens, before the first block."""
        return x_BTD

    def on_queries_and_keys(self, q_BTNH: Array, k_BTKH: Array, *, tables: Any) -> tuple[Array, Array]:
        """Queries and keys, before their products; keys are cached as they come out of here."""
        return q_BTNH, k_BTKH

    def on_scores(self, tables: Any, *, num_heads: int) -> Bias:
        """What is added to the attention scores, as a description that backends compute block by block."""
        return Bias()


@dataclass(frozen=True)
class Rotary(PositionEncoding):
    """Rotary position embedding: queries and keys are rotated by angles proportional to their position (Su et al. 2021)."""

    theta: float = 10_000.0
    scaling: RopeScaling = field(default_factory=RopeScaling)

    def tables(self, positions_BT: Array, *, head_dim: int) -> tuple[Array, Array]:
        """cos and sin of every angle, float32 (B or 1, T, H / 2) each."""
        return rope_tables(positions_BT, head_dim=head_dim, theta=self.theta, **asdict(self.scaling))

    def on_queries_and_keys(self, q_BTNH: Array, k_BTKH: Array, *, tables: Any) -> tuple[Array, Array]:
        """Both rotated."""
        return rotate(q_BTNH, tables), rotate(k_BTKH, tables)


POSITIONS: dict[str, Callable[[ModelConfig], PositionEncoding]] = {
    "rope": lambda config: Rotary(config.rope_theta, config.rope_scaling),
}
"""Kinds by the names that `model.position` takes."""


def position_encoding(config: ModelConfig) -> PositionEncoding:
    """The position encoding of a model."""
    return POSITIONS[config.position](config)


def described_by_position(config: ModelConfig) -> frozenset[str]:
    """The fields of `Bias` that a model's position encoding uses: a backend must know them."""
    position = position_encoding(config)
    positions_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    bias = jax.eval_shape(lambda positions_BT: position.on_scores(
        position.tables(positions_BT, head_dim=config.head_size), num_heads=config.num_heads), positions_BT)
    return bias.used
