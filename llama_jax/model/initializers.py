"""Initial values of parameters, and what each declares about itself for `model.tree`.

Matrices and embeddings are normal with standard deviation 0.02; the 2L projections into the residual stream are scaled by
1 / sqrt(2L), so that its variance does not grow with depth.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from flax import linen as nn
from flax import struct

STD = 0.02
"""Standard deviation of every matrix and embedding (the paper gives none; GPT-2's and the released code's custom)."""

_describing: ContextVar[bool] = ContextVar("describing", default=False)


class Described(nn.Partitioned):
    """A parameter that carries its own description; `model.tree` alone ever sees one."""

    inputs: int = struct.field(default=0, pytree_node=False)
    """How many of its axes, the first ones without the layers, a matrix product contracts; 0 for what is no matrix."""


@contextmanager
def descriptions() -> Iterator[None]:
    """Inside, modules initialise every parameter as `Described`; outside as a plain array."""
    token = _describing.set(True)
    try:
        yield
    finally:
        _describing.reset(token)


def matrix(*axes: str, inputs: int = 1, residual_layers: int = 0) -> Callable[..., Any]:
    """Initialiser of a weight matrix with logical `axes`, of which a matrix product contracts the first `inputs`.

    A projection into the residual stream of a model of L blocks gives residual_layers = L.
    """
    std = STD / (2 * residual_layers) ** 0.5 if residual_layers else STD
    return _described(nn.initializers.normal(std), axes, inputs=inputs)


def embedding_table(*axes: str) -> Callable[..., Any]:
    """Initialiser of a table of which rows are looked up; weight decay leaves it alone."""
    return _described(nn.initializers.normal(STD), axes, inputs=0)


def ones(*axes: str) -> Callable[..., Any]:
    """Initialiser of a scale that begins at 1."""
    return _described(nn.initializers.ones_init(), axes, inputs=0)


def _described(initializer: Callable[..., jax.Array], axes: tuple[str, ...], *, inputs: int) -> Callable[..., Any]:
    def init(key, *shape_and_dtype):
        value = initializer(key, *shape_and_dtype)
        return Described(value, names=axes, inputs=inputs) if _describing.get() else value

    return init
