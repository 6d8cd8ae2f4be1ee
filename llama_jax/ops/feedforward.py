"""Kinds of feed-forward layers: which input projections a kind has, and how their outputs are combined."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array


@dataclass(frozen=True)
class FeedForwardKind:
    """One kind of feed-forward layer: FFN(x) = combine(x W_1, x W_2, ...) W_down, with W_i (D, F) and W_down (F, D)."""

    projections: tuple[str, ...]
    """Parameter names of the input matrices W_1, W_2, ..."""
    combine: Callable[..., Array]
    """(x W_1, x W_2, ...) -> the hidden layer that W_down reads; all are (..., F)."""


def swiglu(gate: Array, up: Array) -> Array:
    """Gate `up` with Swish: Swish(gate) * up, element by element (SwiGLU; Shazeer 2020, equation 6)."""
    return jax.nn.silu(gate) * up


FEEDFORWARDS = {"swiglu": FeedForwardKind(("w_gate", "w_up"), swiglu)}
"""Value of `model.feedforward` -> kind of feed-forward layer."""
