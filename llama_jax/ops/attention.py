"""Attention with a choice of backends: `choose` picks one or says why the requested one cannot be used, `attend` runs it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.errors import ConfigError, nearest
from llama_jax.ops import chunked, cudnn, reference, splash
from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.derivatives import only_gradients
from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import AttentionSpec, words_for


@dataclass(frozen=True)
class Backend:
    """One implementation of attention, and what it supports."""

    attend: Callable[..., Array]
    """(q_BTNH, k_BSKH, v_BSKH, mask, bias=...) -> (B, T, N, H); also takes `first` if it supports `AttentionSpec.sliced`."""
    knows: frozenset[str]
    """Fields of `Mask` and `Bias` that it supports. It is refused where any other field is set."""
    lacks: Callable[[AttentionSpec], str] = lambda spec: ""
    """(spec) -> why it cannot compute that for any other reason, as the end of a sentence; empty where it can."""
    every_derivative: bool = False
    """Whether it has derivatives of every order and mode (`ops.derivatives`), not gradients alone."""
    fused_on: tuple[str, ...] = ()
    """Platforms (jax's names) on which it is a fused kernel, and the first choice."""


BACKENDS = {
    "cudnn": Backend(cudnn.attend_cudnn, cudnn.KNOWS, cudnn.cudnn_lacks, fused_on=("gpu", "cuda")),
    "splash": Backend(splash.attend_splash, splash.KNOWS, splash.splash_lacks, fused_on=("tpu",)),
    "chunked": Backend(chunked.attend_chunked, chunked.KNOWS),
    "reference": Backend(reference.attend_reference, reference.KNOWS, every_derivative=True),
}
"""Value of `compute.attention` -> backend, in the order in which auto tries them."""

DTYPES = ("bfloat16", "float16", "float32")
"""Dtypes that queries, keys and values may have; scores and softmax are always float32."""


def is_fused(name: str) -> bool:
    """Whether a backend is a fused kernel, which keeps its scores out of the device's memory."""
    return bool(BACKENDS[name].fused_on)


def backend_lacks(name: str, spec: AttentionSpec) -> str:
    """Why a backend cannot compute attention under this spec, as the end of a sentence; empty where it can."""
    if not (only_gradients() or BACKENDS[name].every_derivative):
        return "it has gradients alone, and inside every_derivative() all derivatives are asked for"
    unknown = spec.described - BACKENDS[name].knows
    if not unknown:
        return BACKENDS[name].lacks(spec)
    others = [other for other, backend in BACKENDS.items() if unknown <= backend.knows]
    return f"it knows no {words_for(unknown, Mask, Bias)}, which {' and '.join(others) or 'no backend'} can serve"


def choose(impl: str, spec: AttentionSpec) -> tuple[str, str]:
    """Choose the backend for `impl` (a name of BACKENDS, or auto) under a spec; returns its name and the reason.

    Raises ConfigError where the requested backend cannot be used.
    """
    if impl == "auto":
        return _best(spec)
    if impl not in BACKENDS:
        raise ConfigError(f"unknown attention backend {impl!r}{nearest(impl, ['auto', *BACKENDS])}")
    if reason := backend_lacks(impl, spec):
        able = any(not backend_lacks(name, spec) for name in BACKENDS)
        raise ConfigError(f"compute.attention {impl} cannot serve: {reason}{'; auto picks one that can' if able else ''}.")
    return impl, "asked for"


def _best(spec: AttentionSpec) -> tuple[str, str]:
    reasons = {name: backend_lacks(name, spec) for name in BACKENDS}
    able = [name for name in BACKENDS if not reasons[name]]
    if not able:
        raise ConfigError("no attention backend can serve: "
                          + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) + ".")
    if is_fused(able[0]):
        return able[0], f"the fused kernel for {spec.hardware}"
    fused = [name for name, backend in BACKENDS.items() if spec.device.platform in backend.fused_on]
    missed = "".join(f"; not {name}: {reasons[name]}" for name in fused)
    return able[0], f"runs on every platform, keeps no T x T weights and skips masked tiles{missed}"


def attend(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str, *, bias: Bias = NO_BIAS,
    first: Array | None = None,
) -> Array:
    """Compute softmax attention of T queries over S keys under a mask and a bias, (B, T, N, H) in q's dtype, on one device.

    N must be a multiple of K: each kv head serves N / K query heads. `impl` is a name of BACKENDS, or auto. `first` is the index
    of the first query where the queries are a slice of the row; without it T = S. The output of a query that may see no key,
    not even its own, is zero. Raises ConfigError for shapes that do not fit each other, and where the requested backend cannot
    be used: a mask or bias with a field that it does not support is never computed as if that field were absent.
    """
    name, _ = choose(impl, spec_of_arrays(q_BTNH, k_BSKH, v_BSKH, mask=mask, bias=bias, sliced=first is not None))
    if q_BTNH.size == 0:  # no rows or no tokens
        return q_BTNH
    if first is None:
        return BACKENDS[name].attend(q_BTNH, k_BSKH, v_BSKH, mask, bias=bias)
    return BACKENDS[name].attend(q_BTNH, k_BSKH, v_BSKH, mask, bias=bias, first=first)


def spec_of_arrays(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, *, mask: Mask, bias: Bias = NO_BIAS, sliced: bool = False
) -> AttentionSpec:
    """Describe the attention that these arrays ask for; raises ConfigError where their shapes or dtypes do not fit each other."""
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
    for description in (mask, bias):
        for name in sorted(description.used):
            said = getattr(description, name.partition(".")[2])
            if name.endswith("_BT") and (said.shape not in ((B, S), (1, S)) or not jnp.issubdtype(said.dtype, jnp.integer)):
                raise ConfigError(f"{name} wants integers, one for each of {B} x {S} tokens, got {said.dtype} {said.shape}.")
            if name.endswith("_N") and said.shape != (N,):
                raise ConfigError(f"{name} wants one number for each of {N} query heads, got {said.shape}.")
            if name.endswith("_RH") and (said.ndim != 2 or said.shape[1] != H or not said.shape[0]):
                raise ConfigError(f"{name} wants one vector of {H} numbers for each distance, got {said.shape}.")
    return AttentionSpec(device_in_use(), S, H, q_BTNH.dtype, mask.used | bias.used, sliced)


def device_in_use() -> jax.Device:
    """The device on which the computation that is being traced will run: one of the mesh in use, else jax's default.

    For a program that is compiled for devices elsewhere the mesh describes them: their platform and their kind.
    """
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is None:
        default = jax.config.jax_default_device
        return default if hasattr(default, "device_kind") else jax.devices(default)[0]
    return next((device for device in jax.devices() if device.device_kind == described.device_kind), described)
