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


def choose(impl: str) -> tuple[str, str]:
    """The backend that `impl` means, and why; raises ConfigError where there is none of that name."""
    if impl == "auto":
        return "chunked", "runs on every platform, keeps no T x T weights and skips masked tiles"
    if impl not in BACKENDS:
        raise ConfigError(f"unknown attention backend {impl!r}; known: auto, {', '.join(BACKENDS)}.")
    return impl, "asked for"


def attend(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str = "auto") -> Array:
    """Attention of T queries over S = T keys under `mask`, (B, T, N, H) in q's dtype.

    N must be a multiple of K: each kv head serves N / K query heads. Raises ConfigError for an unknown backend.
    """
    backend, _ = choose(impl)
    return BACKENDS[backend](q_BTNH, k_BSKH, v_BSKH, mask)
