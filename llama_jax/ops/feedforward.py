"""Kinds of feed-forward layers: which input projections a kind has, and how their outputs are combined (Shazeer 2020)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
from jax import Array

from llama_jax.errors import ConfigError, nearest


@dataclass(frozen=True)
class FeedForwardKind:
    """One kind of feed-forward layer: FFN(x) = combine(x W_1, x W_2, ...) W_down, with W_i (D, F) and W_down (F, D)."""

    projections: tuple[str, ...]
    """Parameter names of the input matrices W_1, W_2, ..."""
    combine: Callable[..., Array]
    """(x W_1, x W_2, ...) -> the hidden layer that W_down reads; all are (..., F)."""


exact_gelu = partial(jax.nn.gelu, approximate=False)
"""GELU: x times the standard normal's cumulative distribution at x (Hendrycks & Gimpel 2016), not its tanh approximation."""


def swiglu(gate: Array, up: Array) -> Array:
    """Gate `up` with Swish: Swish(gate) * up, element by element (SwiGLU; Shazeer 2020, equation 6)."""
    return jax.nn.silu(gate) * up


def _plain(activation: Callable[[Array], Array]) -> FeedForwardKind:
    return FeedForwardKind(("w_up",), activation)


def _gated(combine: Callable[[Array, Array], Array]) -> FeedForwardKind:
    return FeedForwardKind(("w_gate", "w_up"), combine)


FEEDFORWARDS = {
    "relu": _plain(jax.nn.relu),
    "gelu": _plain(exact_gelu),
    "swish": _plain(jax.nn.silu),
    "glu": _gated(lambda gate, up: jax.nn.sigmoid(gate) * up),
    "bilinear": _gated(lambda gate, up: gate * up),
    "reglu": _gated(lambda gate, up: jax.nn.relu(gate) * up),
    "geglu": _gated(lambda gate, up: exact_gelu(gate) * up),
    "swiglu": _gated(swiglu),
}
"""Value of `model.feedforward` -> kind of feed-forward layer."""


def feedforward_kind(name: str) -> FeedForwardKind:
    """The kind of that name; raises ConfigError where there is none."""
    if name not in FEEDFORWARDS:
        raise ConfigError(f"unknown kind of feed-forward layer {name!r}{nearest(name, FEEDFORWARDS)}")
    return FEEDFORWARDS[name]


def equal_width(ffn_dim: int, kind: str, *, like: str = "relu", multiple_of: int = 1) -> int:
    """The width F at which a layer of `kind` has as many weights as one of kind `like` with width `ffn_dim`.

    A gated layer takes 2/3 of a plain one's width (Shazeer 2020, section 2). The result is rounded up to a multiple.
    """
    matrices, wanted = (len(feedforward_kind(name).projections) + 1 for name in (kind, like))
    return -(-ffn_dim * wanted // (matrices * multiple_of)) * multiple_of
