"""Kinds of feed-forward layers: which projections a kind has, and how they combine."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array


@dataclass(frozen=True)
class FeedForwardKind:
    """FFN(x) = combine(x W_1, x W_2, ...) W_down, one matrix (D, F) for each name in `projections`."""

    projections: tuple[str, ...]
    """Parameter names of the matrices that read the residual stream."""
    combine: Callable[..., Array]
    """From the projections, each (..., F), to what the last matrix W_down (F, D) reads."""


def swiglu(gate: Array, up: Array) -> Array:
    """Swish(gate) * up (Shazeer 2020, equation 6)."""
    return jax.nn.silu(gate) * up


FEEDFORWARDS = {"swiglu": FeedForwardKind(("w_gate", "w_up"), swiglu)}
"""Kinds by the names that `model.feedforward` takes."""
