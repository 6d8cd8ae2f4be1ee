"""The one door of attention: `attend` picks a backend, or says why the one asked for cannot serve."""

from collections.abc import Callable

from jax import Array

from llama_jax.errors import ConfigError
from llama_jax.ops.chunked import attend_chunked
from llama_jax.ops.masks import Mask
from llama_jax.ops.xla import attend_reference

BACKENDS: dict[str, Callable[[Array, Array, Array, Mask], Array]] = {
    "reference": attend_reference,
    "chunked": attend_chunked,
}

LONGEST_REFERENCE = 1024
"""Rows up to this length are faster with their T x T weights in memory (measured by benchmarks/attention_cpu.py)."""


def choose(impl: str, length: int) -> tuple[str, str]:
    """The backend that `impl` means for rows of `length` tokens, and why."""
    if impl in BACKENDS:
        return impl, "asked for"
    if impl != "auto":
        raise ConfigError(f"unknown attention backend {impl!r}; known: auto, {', '.join(BACKENDS)}.")
    if length <= LONGEST_REFERENCE:
        return "reference", f"rows of {length} tokens are short enough to keep their weights in memory"
    return "chunked", f"rows of {length} tokens: tiles need no T x T memory and skip what is masked"


def attend(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str = "auto") -> Array:
    """Attention of T queries over S = T keys under `mask`, (B, T, N, H) in q's dtype.

    N must be a multiple of K: each kv head serves N / K query heads. Raises ConfigError for an unknown backend.
    """
    backend, _ = choose(impl, q_BTNH.shape[1])
    return BACKENDS[backend](q_BTNH, k_BSKH, v_BSKH, mask)
