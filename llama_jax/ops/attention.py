"""Attention over any backend: `choose` picks one, or says why the one asked for cannot serve; `attend` checks, and calls it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.errors import ConfigError
from llama_jax.ops import chunked, cudnn, reference, splash
from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import Problem


@dataclass(frozen=True)
class Backend:
    """One way to compute attention."""

    attend: Callable[..., Array]
    """(q_BTNH, k_BSKH, v_BSKH, mask) -> (B, T, N, H); with `first` where `Problem.sliced` is not among what it lacks."""
    knows: frozenset[str]
    """Fields of `Mask` that it heeds. A mask that says more is refused."""
    lacks: Callable[[Problem], str] = lambda problem: ""
    """What else keeps it from a problem, as the end of a sentence; empty where it can serve."""


BACKENDS = {
    "reference": Backend(reference.attend_reference, reference.KNOWS),
    "chunked": Backend(chunked.attend_chunked, chunked.KNOWS),
    "cudnn": Backend(cudnn.attend_cudnn, cudnn.KNOWS, cudnn.lacks),
    "splash": Backend(splash.attend_splash, splash.KNOWS, splash.lacks),
}

FUSED = ("cudnn", "splash")
"""Backends that are one kernel of some hardware."""

PREFERRED = (*FUSED, "chunked", "reference")
"""The order in which auto asks them."""

NATIVE = {"gpu": "cudnn", "cuda": "cudnn", "tpu": "splash"}
"""The fused backend that a platform would want."""

DTYPES = ("bfloat16", "float16", "float32")
"""What attention is computed in; its scores and softmax are float32."""


def lacks(name: str, problem: Problem) -> str:
    """What keeps a backend from a problem, as the end of a sentence; empty where it can serve."""
    unknown = problem.mask - BACKENDS[name].knows
    if not unknown:
        return BACKENDS[name].lacks(problem)
    others = [other for other, backend in BACKENDS.items() if unknown <= backend.knows]
    return f"it knows no {Mask.words(unknown)}, which {' and '.join(others) or 'no backend'} can serve"


def choose(impl: str, problem: Problem) -> tuple[str, str]:
    """The backend that `impl` means for a problem, and why; raises ConfigError where the one asked for cannot serve."""
    if impl == "auto":
        return _best(problem)
    if impl not in BACKENDS:
        raise ConfigError(f"unknown attention backend {impl!r}; known: auto, {', '.join(BACKENDS)}.")
    if reason := lacks(impl, problem):
        able = any(not lacks(name, problem) for name in PREFERRED)
        raise ConfigError(f"model.attention {impl} cannot serve: {reason}{'; auto picks one that can' if able else ''}.")
    return impl, "asked for"


def _best(problem: Problem) -> tuple[str, str]:
    reasons = {name: lacks(name, problem) for name in PREFERRED}
    able = [name for name in PREFERRED if not reasons[name]]
    if not able:
        raise ConfigError("no attention backend can serve: "
                          + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) + ".")
    if able[0] in FUSED:
        return able[0], f"the fused kernel for {problem.hardware}"
    native = NATIVE.get(problem.device.platform)
    missed = f"; not {native}: {reasons[native]}" if native else ""
    return able[0], f"runs on every platform, keeps no T x T weights and skips masked tiles{missed}"


def attend(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str, *, first: Array | None = None) -> Array:
    """Attention of T queries over S keys under `mask`, (B, T, N, H) in q's dtype, on one device.

    N must be a multiple of K: each kv head serves N / K query heads. `impl` is a name of BACKENDS, or auto. `first` is given
    where the queries are a slice of the row that begins there (`Problem.sliced`); else T = S. A token that sees nothing, not
    even itself, gets zeros. Raises ConfigError for shapes that do not fit each other, and where the backend asked for
    cannot serve: a mask of which it does not know every field is never computed as if that field were absent.
    """
    name, _ = choose(impl, problem_of(q_BTNH, k_BSKH, v_BSKH, mask, sliced=first is not None))
    if q_BTNH.size == 0:  # no rows or no tokens
        return q_BTNH
    if first is None:
        return BACKENDS[name].attend(q_BTNH, k_BSKH, v_BSKH, mask)
    return BACKENDS[name].attend(q_BTNH, k_BSKH, v_BSKH, mask, first=first)


def problem_of(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, sliced: bool = False) -> Problem:
    """What these arrays ask of a backend; raises ConfigError where they do not fit each other."""
    shapes = f"q {q_BTNH.shape}, k {k_BSKH.shape}, v {v_BSKH.shape}"
    if q_BTNH.ndim != 4 or k_BSKH.ndim != 4 or k_BSKH.shape != v_BSKH.shape:
        raise ConfigError(f"attention wants q (B, T, N, H), and k and v (B, S, K, H), got {shapes}.")
    (B, T, N, H), (_, S, K, _) = q_BTNH.shape, k_BSKH.shape
    if k_BSKH.shape != (B, S, K, H) or K == 0 or N % K or (T != S and not sliced):
        raise ConfigError(f"attention wants rows B and a width H in common, as many queries as keys, and a number of heads that "
                          f"kv heads divide, got {shapes}.")
    dtypes = [jnp.dtype(x.dtype).name for x in (q_BTNH, k_BSKH, v_BSKH)]
    if len(set(dtypes)) > 1 or dtypes[0] not in DTYPES:
        raise ConfigError(f"attention wants q, k and v of one dtype out of {', '.join(DTYPES)}, got {', '.join(dtypes)}.")
    for name in sorted(mask.used):
        said = getattr(mask, name)
        if name.endswith("_BT") and (said.shape not in ((B, S), (1, S)) or not jnp.issubdtype(said.dtype, jnp.integer)):
            raise ConfigError(f"mask.{name} wants integers, one for each of {B} x {S} tokens, got {said.dtype} {said.shape}.")
    return Problem(device_in_use(), S, H, q_BTNH.dtype, mask.used, sliced)


def device_in_use() -> jax.Device:
    """The device that what is traced now will run on: one of the mesh in use, else jax's default.

    A mesh that is described only, because a program is compiled for elsewhere, tells the platform and the kind.
    """
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is None:
        default = jax.config.jax_default_device
        return default if hasattr(default, "device_kind") else jax.devices(default)[0]
    return next((device for device in jax.devices() if device.device_kind == described.device_kind), described)
