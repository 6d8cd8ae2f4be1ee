"""Sampling: how the next token is drawn, as a caller's settings, as arrays of one value per row, and the draw itself."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from llama_jax.errors import ConfigError

EXCLUDED_LOGIT = -1e30
"""Logit of a token that is not drawn: finite, so that sums with noise stay ordinary numbers."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-30, 1e30
"""Bounds to which temperatures are clipped: divided by one beyond them, different logits would become equal or infinite."""


@dataclass(frozen=True)
class Sampling:
    """Settings for the continuations of a prompt.

    Temperature, top_k, top_p and min_p apply in this order, each to the probabilities that the ones before it left,
    renormalised, as in transformers and vLLM.
    """

    max_new_tokens: int = 256
    """Most tokens to generate; the end of the model's context may come first."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token (greedy decoding)."""
    top_k: int = 0
    """Keep the k likeliest tokens, and those as likely as the last of them; 0 keeps all. top_p then still applies."""
    top_p: float = 0.95
    """Keep the likeliest tokens until their probabilities sum to this (nucleus sampling, Holtzman et al. 2020); 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the likeliest one's."""
    num_samples: int = 1
    """Continuations of each prompt; they share one prefill."""
    seed: int = 0
    """With the index of the prompt and of the sample it fixes a continuation, whatever else is in the batch."""
    stop: tuple[str, ...] = ()
    """Stop strings: the text ends before the one that is complete first."""

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
class RowSampling:
    """Sampling settings of B rows as arrays, so that one compiled program serves all settings."""

    temperature_B: Array
    top_k_B: Array
    top_p_B: Array
    min_p_B: Array
    key_B: Array
    """Random key of each row."""

    @classmethod
    def stack(cls, rows: Sequence[tuple[Sampling, int, int]]) -> "RowSampling":
        """Settings of rows, each given as (settings, index of the prompt in [0, 2^64), index of the sample in [0, 2^32))."""
        def column(name: str, dtype) -> Array:
            with np.errstate(over="ignore"):  # a temperature may be infinite in float32, and is clipped later
                return jnp.asarray(np.array([getattr(sampling, name) for sampling, _, _ in rows], dtype))

        prompt_indices = np.array([prompt_index for _, prompt_index, _ in rows], np.uint64)
        high_words, low_words = prompt_indices >> np.uint64(32), prompt_indices & np.uint64(2**32 - 1)
        sample_indices = np.array([sample_index for _, _, sample_index in rows])
        keys = _fold_keys(column("seed", np.uint32), high_words.astype(np.uint32), low_words.astype(np.uint32),
                          sample_indices.astype(np.uint32))
        return cls(column("temperature", np.float32), column("top_k", np.int32), column("top_p", np.float32),
                   column("min_p", np.float32), keys)


@jax.jit
@jax.vmap
def _fold_keys(seed: Array, *words: Array) -> Array:
    """Random key of a row: uint32 words that name its prompt and sample, folded into the seed one after the other."""
    key = jax.random.key(seed)
    for word in words:
        key = jax.random.fold_in(key, word)
    return key


def filter_logits(logits_BV: Array, sampling: RowSampling) -> Array:
    """Logits (B, V) at the rows' temperatures, `EXCLUDED_LOGIT` where top-k, top-p or min-p leaves a token out.

    The filters apply in this order, each to the renormalised probabilities that are left; tokens of equal probability stay or
    go together.
    """
    temperature_B = jnp.where(sampling.temperature_B > 0, jnp.clip(sampling.temperature_B, MIN_TEMPERATURE, MAX_TEMPERATURE), 1.0)
    undivided_BV = logits_BV - logits_BV.max(-1, keepdims=True)
    logits_BV = undivided_BV / temperature_B[:, None]
    probability_BV = jax.nn.softmax(logits_BV, axis=-1)

    def top_k(kept_BV: Array) -> Array:
        # at temperature 1 the order is that of the logits, also where a high temperature makes probabilities equal
        cool_BV = jnp.exp(undivided_BV)
        least_B1 = _smallest_kept(cool_BV, lambda above_BV: above_BV.sum(-1) < sampling.top_k_B)
        return kept_BV & ((cool_BV >= least_B1) | (sampling.top_k_B == 0)[:, None])

    def top_p(kept_BV: Array) -> Array:
        left_BV = jnp.where(kept_BV, probability_BV, 0.0)
        wanted_B = sampling.top_p_B * left_BV.sum(-1)  # a share of what is left, which needs no renormalising
        least_B1 = _smallest_kept(left_BV, lambda above_BV: jnp.where(above_BV, left_BV, 0.0).sum(-1) < wanted_B)
        return kept_BV & ((probability_BV >= least_B1) | (sampling.top_p_B == 1)[:, None])

    # where no row asks for a filter, its work is skipped at run time
    kept_BV = lax.cond((sampling.top_k_B > 0).any(), top_k, lambda kept_BV: kept_BV, jnp.ones_like(probability_BV, bool))
    kept_BV = lax.cond((sampling.top_p_B < 1).any(), top_p, lambda kept_BV: kept_BV, kept_BV)
    kept_BV &= probability_BV >= sampling.min_p_B[:, None] * probability_BV.max(-1, keepdims=True)  # the likeliest is always left
    return jnp.where(kept_BV | (logits_BV == 0), jnp.maximum(logits_BV, EXCLUDED_LOGIT), EXCLUDED_LOGIT)


def _smallest_kept(probability_BV: Array, goes_on: Callable[[Array], Array]) -> Array:
    """Smallest probability (B, 1) that a filter keeps, found by bisection over the bits of a float instead of by sorting.

    Positive floats are ordered as their bits are. `goes_on`, bool (B, V) -> (B,), says of the set of all tokens above a
    probability whether tokens of this probability are kept too.
    """
    def halve(_, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B, high_B = between
        middle_B = low_B + (high_B - low_B) // 2
        stays_B = goes_on(probability_BV > lax.bitcast_convert_type(middle_B, jnp.float32)[:, None])
        return jnp.where(stays_B, low_B, middle_B), jnp.where(stays_B, middle_B, high_B)

    one_B = lax.bitcast_convert_type(jnp.ones_like(probability_BV[:, 0]), jnp.int32)  # below 2**30: 30 rounds decide
    _, least_B = lax.fori_loop(0, 30, halve, (jnp.zeros_like(one_B), one_B))
    return lax.bitcast_convert_type(least_B, jnp.float32)[:, None]


def _argmax(logits_BV: Array) -> Array:
    """Index (B,) of the largest logit, the first of equal ones; XLA's own argmax takes ten times as long on a CPU."""
    ids = jnp.arange(logits_BV.shape[1])[None, :]
    return jnp.min(jnp.where(logits_BV == logits_BV.max(-1, keepdims=True), ids, logits_BV.shape[1] - 1), axis=-1)


def sample_tokens(logits_BV: Array, sampling: RowSampling, *, step_B: Array) -> Array:
    """int32 (B,) next tokens; row b's is a function of its logits, its settings and step_B[b] alone.

    Gumbel noise added to the logits makes the largest one a draw from their softmax (the Gumbel-max trick).
    """
    greedy_B = _argmax(logits_BV)

    def draw() -> Array:
        keys = jax.vmap(jax.random.fold_in)(sampling.key_B, step_B)
        noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BV.shape[1:]))(keys)
        drawn_B = _argmax(filter_logits(logits_BV, sampling) + noise_BV)
        return jnp.where(sampling.temperature_B > 0, drawn_B, greedy_B)

    return lax.cond((sampling.temperature_B > 0).any(), draw, lambda: greedy_B).astype(jnp.int32)


def exclude_padding(logits_BV: Array, pieces: int | None) -> Array:
    """Logits (B, V) under which ids from `pieces` on are never drawn: the padding of a vocabulary to a round size."""
    if pieces is None or pieces >= logits_BV.shape[1]:
        return logits_BV
    return jnp.where(jnp.arange(logits_BV.shape[1])[None, :] < pieces, logits_BV, -jnp.inf)
