"""Position encodings: one class per kind, with one method for every place in the model where a kind may act."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.errors import ConfigError
from llama_jax.model.initializers import embedding_table
from llama_jax.ops.bias import Bias, alibi_slopes
from llama_jax.ops.rotary import rope3d_tables, rope_tables, rotate
from llama_jax.ops.sinusoidal import sinusoids


class PositionParameter(NamedTuple):
    """A learned parameter of a position encoding."""

    initializer: Callable[..., Any]
    shape: tuple[int, ...]

    def declare(self, module: nn.Module, name: str, *, dtype: Any = jnp.float32) -> Array:
        """The parameter, as a parameter of a flax module."""
        return module.param(name, self.initializer, self.shape, dtype)


@dataclass(frozen=True)
class PositionEncoding:
    """Base class of position encodings, which adds no position information (NoPE): only the causal mask tells order.

    Subclasses override the methods they need. `tables` is computed once per forward pass and given to every block.
    """

    def embedding_parameters(self, dim: int) -> dict[str, PositionParameter]:
        """Parameters of the model for `on_embedding`, by name; by default none."""
        return {}

    def attention_parameters(self, head_dim: int) -> dict[str, PositionParameter]:
        """Parameters of every attention layer for `in_attention`, by name; by default none."""
        return {}

    def tables(self, positions_BT: Array, *, head_dim: int) -> Any:
        """Compute what the other methods need from the positions, int32 (B or 1, T); by default the positions themselves."""
        return positions_BT

    def on_embedding(self, x_BTD: Array, tables: Any, **parameters: Array) -> Array:
        """Encode positions in the embedded tokens (B, T, D), before the first block; by default returns them unchanged."""
        return x_BTD

    def on_queries_and_keys(self, q_BTNH: Array, k_BTKH: Array, *, tables: Any) -> tuple[Array, Array]:
        """Encode positions in queries and keys before their product; keys are cached as returned. By default unchanged."""
        return q_BTNH, k_BTKH

    def in_attention(self, tables: Any, *, num_heads: int, **parameters: Array) -> Bias:
        """Describe what attention adds to scores, keys and values, which backends compute block by block; by default nothing."""
        return Bias()

    def attention_flops(self, num_heads: int, *, head_dim: int) -> float:
        """FLOPs per token of one layer's forward pass beyond attention's own products; by default none."""
        return 0.0


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


@dataclass(frozen=True)
class Rotary3D(Rotary):
    """3D-RPE: rotary embedding within chunks of a row, and one more rotation per chunk (Ma et al. 2024)."""

    chunk: int = 3000
    """Tokens per chunk."""

    def tables(self, positions_BT: Array, *, head_dim: int) -> tuple[Array, Array]:
        """Compute the cosine and sine of every angle, float32 (B or 1, T, H / 2) each."""
        return rope3d_tables(positions_BT, head_dim=head_dim, theta=self.theta, chunk=self.chunk, **asdict(self.scaling))


@dataclass(frozen=True)
class Sinusoidal(PositionEncoding):
    """Sines and cosines of the position are added to embeddings that are scaled by sqrt(D) (Vaswani et al. 2017, 3.4, 3.5)."""

    def on_embedding(self, x_BTD: Array, tables: Any, **parameters: Array) -> Array:
        """Scale the embeddings and add the sinusoids of the positions."""
        D = x_BTD.shape[-1]
        return (x_BTD.astype(jnp.float32) * D**0.5 + sinusoids(tables, D)).astype(x_BTD.dtype)


@dataclass(frozen=True)
class Learned(PositionEncoding):
    """A learned vector per position is added to the embedding (GPT-2)."""

    max_length: int
    """Number of positions. A position beyond raises ConfigError; inside a compiled program such a row is NaN."""

    def embedding_parameters(self, dim: int) -> dict[str, PositionParameter]:
        """The table of vectors, (max_length, D)."""
        return {"position_embedding": PositionParameter(embedding_table("positions", "embed"), (self.max_length, dim))}

    def on_embedding(self, x_BTD: Array, tables: Any, **parameters: Array) -> Array:
        """Add the vectors of the positions."""
        known = not isinstance(tables, jax.core.Tracer) and tables.size > 0
        with jax.ensure_compile_time_eval():  # also of constants in a function that is being compiled
            last = int(tables.max()) if known else 0
        if last >= self.max_length:
            raise ConfigError(f"position {last} lies beyond the {self.max_length} learned positions of this model "
                              "(model.max_length); cut the text, or train a model with more.")
        vectors = parameters["position_embedding"].at[tables].get(mode="fill", fill_value=jnp.nan)
        return x_BTD + vectors.astype(x_BTD.dtype)


@dataclass(frozen=True)
class RelativeVectors(PositionEncoding):
    """Learned vectors are added to keys and values by the distance between tokens, shared by all heads (Shaw et al. 2018)."""

    clip: int = 16
    """Distance k from which on all distances share one vector; a causal model has k + 1 of them, for distances 0 .. k."""

    def attention_parameters(self, head_dim: int) -> dict[str, PositionParameter]:
        """The vectors on keys and on values, (k + 1, H) each."""
        table = PositionParameter(embedding_table("distances", "head_dim"), (self.clip + 1, head_dim))
        return {"relative_keys": table, "relative_values": table}

    def in_attention(self, tables: Any, *, num_heads: int, **parameters: Array) -> Bias:
        """The vectors, and the positions by which distances are measured."""
        return Bias(relative_keys_RH=parameters["relative_keys"], relative_values_RH=parameters["relative_values"],
                    positions_BT=tables)

    def attention_flops(self, num_heads: int, *, head_dim: int) -> float:
        """Every query times all vectors on keys, and every query's sums of weights times those on values."""
        return 2 * 2.0 * num_heads * head_dim * (self.clip + 1)


@dataclass(frozen=True)
class LinearBias(PositionEncoding):
    """ALiBi: scores are lowered in proportion to the distance between tokens, each head at its own rate (Press et al. 2022)."""

    def in_attention(self, tables: Any, *, num_heads: int, **parameters: Array) -> Bias:
        """The heads' slopes, and the positions by which distances are measured."""
        return Bias(slopes_N=alibi_slopes(num_heads), positions_BT=tables)


POSITIONS: dict[str, Callable[[ModelConfig], PositionEncoding]] = {
    "rope": lambda config: Rotary(config.rope_theta, config.rope_scaling),
    "rope3d": lambda config: Rotary3D(config.rope_theta, config.rope_scaling, config.rope_chunk),
    "sinusoidal": lambda config: Sinusoidal(),
    "learned": lambda config: Learned(config.max_length),
    "shaw": lambda config: RelativeVectors(config.relative_clip),
    "alibi": lambda config: LinearBias(),
    "none": lambda config: PositionEncoding(),
}
"""Value of `model.position` -> a function that makes the position encoding of a model."""


def position_encoding(config: ModelConfig) -> PositionEncoding:
    """Make the position encoding that a model's config names."""
    return POSITIONS[config.position](config)


@lru_cache
def described_by_position(config: ModelConfig) -> frozenset[str]:
    """The fields of `Bias` that a model's position encoding uses, which an attention backend has to support."""
    position, H = position_encoding(config), config.head_size
    parameters = {name: jax.ShapeDtypeStruct(parameter.shape, jnp.float32)
                  for name, parameter in position.attention_parameters(H).items()}

    def bias(positions_BT: Array, parameters: dict[str, Array]) -> Bias:
        tables = position.tables(positions_BT, head_dim=H)
        return position.in_attention(tables, num_heads=config.num_heads, **parameters)

    return jax.eval_shape(bias, jax.ShapeDtypeStruct((1, 1), jnp.int32), parameters).used
