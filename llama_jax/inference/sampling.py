"""How the next token is drawn: what a caller asks for, and the same as arrays, a row each."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from llama_jax.errors import ConfigError

MASKED = -1e30


@dataclass(frozen=True)
class Sampling:
    """How one prompt is continued."""

    max_new_tokens: int = 256
    """Tokens at most; the model's context may end the text before."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw among the k likeliest tokens; 0: among all."""
    top_p: float = 0.95
    """Keep a token while the probability of all likelier ones is at most this (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the likeliest one's."""
    num_samples: int = 1
    """Continuations of each prompt, from one prefill."""
    seed: int = 0
    """With the sample's number it fixes a continuation, whatever else is in the batch."""
    stop: tuple[str, ...] = ()
    """The text ends before the one of these that is complete first."""

    def __post_init__(self):
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ConfigError(message)

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            numeric = field.type in ("int", int, "float", float)
            require(not numeric or (isinstance(value, int | float) and not isinstance(value, bool)),
                    f"{field.name} should be a number, got {value!r}.")
            require(field.type not in ("int", int) or isinstance(value, int),
                    f"{field.name} should be a whole number, got {value!r}.")
        require(self.max_new_tokens >= 0, f"max_new_tokens must be at least 0, got {self.max_new_tokens}.")
        require(0 <= self.temperature < float("inf"), f"temperature must be at least 0, got {self.temperature}.")
        require(0 <= self.top_k < 2**31, f"top_k must be at least 0, got {self.top_k}.")
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1], got {self.top_p}.")
        require(0 <= self.min_p <= 1, f"min_p must lie in [0, 1], got {self.min_p}.")
        require(self.num_samples > 0, f"num_samples must be positive, got {self.num_samples}.")
        require(0 <= self.seed < 2**32, f"seed must lie in [0, 2^32), got {self.seed}.")
        require(isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop),
                f"stop should be non-empty strings, got {self.stop!r}.")


@struct.dataclass
class Draw:
    """Sampling of B rows as arrays, so that one compiled program serves every choice."""

    temperature_B: Array
    top_k_B: Array
    top_p_B: Array
    min_p_B: Array
    key_B: Array
    """Keys, one a row."""

    @classmethod
    def of(cls, choices: list[tuple[Sampling, int]]) -> "Draw":
        """Rows of (what is asked for, number of the sample)."""
        def column(name: str, dtype) -> Array:
            return jnp.asarray(np.array([getattr(choice, name) for choice, _ in choices], dtype))

        numbers = np.array([number for _, number in choices], np.uint32)
        return cls(column("temperature", np.float32), column("top_k", np.int32), column("top_p", np.float32),
                   column("min_p", np.float32), keys_of(column("seed", np.uint32), numbers))


@jax.jit
@jax.vmap
def keys_of(seed: Array, number: Array) -> Array:
    """Keys of samples: their numbers folded into their seeds."""
    return jax.random.fold_in(jax.random.key(seed), number)


def filtered(logits_BV: Array, draw: Draw) -> Array:
    """Logits at the rows' temperatures, MASKED where top-k, top-p or min-p leaves a token out.

    Each of the three looks at the distribution at its temperature; tokens of equal probability stay or go together.
    """
    logits_BV = logits_BV / jnp.where(draw.temperature_B > 0, draw.temperature_B, 1.0)[:, None]
    wanted = (draw.top_k_B > 0) | (draw.top_p_B < 1)

    def threshold(logits_BV: Array) -> Array:
        """The least probability that stays, (B, 1): sought by halving, which sorts nothing."""
        probability_BV = jax.nn.softmax(logits_BV, axis=-1)
        k_B = jnp.where(draw.top_k_B > 0, draw.top_k_B, logits_BV.shape[1])
        p_B = jnp.where(draw.top_p_B < 1, draw.top_p_B, jnp.inf)

        def halve(_, between: tuple[Array, Array]) -> tuple[Array, Array]:
            low_B, high_B = between
            middle_B = low_B + (high_B - low_B) // 2
            above_BV = probability_BV > lax.bitcast_convert_type(middle_B, jnp.float32)[:, None]
            stays_B = (above_BV.sum(-1) < k_B) & (jnp.where(above_BV, probability_BV, 0.0).sum(-1) <= p_B)
            return jnp.where(stays_B, low_B, middle_B), jnp.where(stays_B, middle_B, high_B)

        one_B = lax.bitcast_convert_type(jnp.ones_like(p_B), jnp.int32)  # below 2**30; bits of positive floats order as they do
        _, least_B = lax.fori_loop(0, 30, halve, (jnp.zeros_like(one_B), one_B))
        return lax.bitcast_convert_type(least_B, jnp.float32)[:, None]

    B = logits_BV.shape[0]
    least = lax.cond(wanted.any(), threshold, lambda _: jnp.zeros((B, 1), jnp.float32), logits_BV)
    top = logits_BV.max(-1, keepdims=True)
    probability = jax.nn.softmax(logits_BV, axis=-1)
    keep = (probability >= jnp.where(wanted[:, None], least, 0.0)) & (
        probability >= draw.min_p_B[:, None] * probability.max(-1, keepdims=True)
    )
    return jnp.where(keep | (logits_BV == top), logits_BV, MASKED)


def likeliest(logits_BV: Array) -> Array:
    """The first of the largest; XLA's own argmax takes ten times as long on a CPU."""
    numbers = jnp.arange(logits_BV.shape[1])[None, :]
    return jnp.min(jnp.where(logits_BV == logits_BV.max(-1, keepdims=True), numbers, logits_BV.shape[1] - 1), axis=-1)


def sample(logits_BV: Array, draw: Draw, step_B: Array) -> Array:
    """int32 (B,) next tokens; row b's is a function of its logits, its key and step_B[b] alone."""
    greedy_B = likeliest(logits_BV)

    def drawn() -> Array:
        keys = jax.vmap(jax.random.fold_in)(draw.key_B, step_B)
        noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BV.shape[1:]))(keys)
        sampled_B = likeliest(filtered(logits_BV, draw) + noise_BV)
        return jnp.where(draw.temperature_B > 0, sampled_B, greedy_B)

    return lax.cond((draw.temperature_B > 0).any(), drawn, lambda: greedy_B).astype(jnp.int32)
