"""How the next token is drawn: what a caller asks for, and the same as arrays, a row each."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from llama_jax.errors import ConfigError

MASKED = -1e30
COLDEST, HOTTEST = 1e-30, 1e30
"""Temperatures beyond these, by which logits cannot be divided and stay different numbers, are taken for these."""


@dataclass(frozen=True)
class Sampling:
    """How one prompt is continued.

    Temperature, top_k, top_p and min_p apply in this order, each to the probabilities that the ones before it left,
    renormalised, as in transformers and vLLM.
    """

    max_new_tokens: int = 256
    """Tokens at most; the model's context may end the text before."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens, and those as likely as the last of them; 0: all. top_p then still applies."""
    top_p: float = 0.95
    """Keep the likeliest tokens until their probabilities sum to this (Holtzman et al. 2020); 1: all."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the likeliest one's."""
    num_samples: int = 1
    """Continuations of each prompt, from one prefill."""
    seed: int = 0
    """Fixes a continuation together with the prompt's place and the sample's number, whatever else is in the batch."""
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
    def of(cls, choices: Sequence[tuple[Sampling, int, int]]) -> "Draw":
        """Rows of (what is asked for, place of the prompt in [0, 2^64), number of the sample)."""
        def column(name: str, dtype) -> Array:
            with np.errstate(over="ignore"):  # a temperature may be infinite in float32; HOTTEST stands for it
                return jnp.asarray(np.array([getattr(choice, name) for choice, _, _ in choices], dtype))

        places = np.array([place for _, place, _ in choices], np.uint64)
        words = [places >> np.uint64(32), places & np.uint64(2**32 - 1), np.array([sample for *_, sample in choices])]
        keys = keys_of(column("seed", np.uint32), *(word.astype(np.uint32) for word in words))
        return cls(column("temperature", np.float32), column("top_k", np.int32), column("top_p", np.float32),
                   column("min_p", np.float32), keys)


@jax.jit
@jax.vmap
def keys_of(seed: Array, high: Array, low: Array, sample: Array) -> Array:
    """Key of a sample: the two halves of its prompt's place and its number folded into the seed, all uint32."""
    key = jax.random.key(seed)
    for number in (high, low, sample):
        key = jax.random.fold_in(key, number)
    return key


def filtered(logits_BV: Array, draw: Draw) -> Array:
    """Logits at the rows' temperatures, MASKED where top-k, top-p or min-p leaves a token out.

    They apply in this order, each to the renormalised probabilities that are left; tokens of equal probability stay or go
    together.
    """
    temperature_B = jnp.where(draw.temperature_B > 0, jnp.clip(draw.temperature_B, COLDEST, HOTTEST), 1.0)
    undivided_BV = logits_BV - logits_BV.max(-1, keepdims=True)
    logits_BV = undivided_BV / temperature_B[:, None]
    probability_BV = jax.nn.softmax(logits_BV, axis=-1)

    def top_k(kept_BV: Array) -> Array:
        cool_BV = jnp.exp(undivided_BV)  # ordered as the logits, also where a high temperature makes probabilities equal
        least_B1 = least_kept(cool_BV, lambda above_BV: above_BV.sum(-1) < draw.top_k_B)
        return kept_BV & ((cool_BV >= least_B1) | (draw.top_k_B == 0)[:, None])

    def top_p(kept_BV: Array) -> Array:
        left_BV = jnp.where(kept_BV, probability_BV, 0.0)
        wanted_B = draw.top_p_B * left_BV.sum(-1)  # a share of what is left, instead of renormalising it
        least_B1 = least_kept(left_BV, lambda above_BV: jnp.where(above_BV, left_BV, 0.0).sum(-1) < wanted_B)
        return kept_BV & ((probability_BV >= least_B1) | (draw.top_p_B == 1)[:, None])

    kept_BV = lax.cond((draw.top_k_B > 0).any(), top_k, lambda kept_BV: kept_BV, jnp.ones_like(probability_BV, bool))
    kept_BV = lax.cond((draw.top_p_B < 1).any(), top_p, lambda kept_BV: kept_BV, kept_BV)
    kept_BV &= probability_BV >= draw.min_p_B[:, None] * probability_BV.max(-1, keepdims=True)  # the likeliest is always left
    return jnp.where(kept_BV | (logits_BV == 0), jnp.maximum(logits_BV, MASKED), MASKED)


def least_kept(probability_BV: Array, goes_on: Callable[[Array], Array]) -> Array:
    """Least probability (B, 1) that stays: one stays where `goes_on` is true of all that are greater, bool (B, V) -> (B,).

    Sought by bisection of the bits of a float, which sorts nothing: positive floats are ordered as their bits are.
    """
    def halve(_, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B, high_B = between
        middle_B = low_B + (high_B - low_B) // 2
        stays_B = goes_on(probability_BV > lax.bitcast_convert_type(middle_B, jnp.float32)[:, None])
        return jnp.where(stays_B, low_B, middle_B), jnp.where(stays_B, middle_B, high_B)

    one_B = lax.bitcast_convert_type(jnp.ones_like(probability_BV[:, 0]), jnp.int32)  # below 2**30: 30 rounds decide
    _, least_B = lax.fori_loop(0, 30, halve, (jnp.zeros_like(one_B), one_B))
    return lax.bitcast_convert_type(least_B, jnp.float32)[:, None]


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


def without_padding(logits_BV: Array, pieces: int | None) -> Array:
    """Logits of which ids from `pieces` on, with which a vocabulary is filled up to a round size, are not drawn."""
    if pieces is None or pieces >= logits_BV.shape[1]:
        return logits_BV
    return jnp.where(jnp.arange(logits_BV.shape[1])[None, :] < pieces, logits_BV, -jnp.inf)
