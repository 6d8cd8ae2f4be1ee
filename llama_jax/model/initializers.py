"""Initialisers of the parameters, which also declare each parameter's logical axes for `model.tree`.

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
    """A parameter together with its logical axes and its number of input axes; only `model.tree` makes and reads these."""

    inputs: int = struct.field(default=0, pytree_node=False)
    """Number of leading axes (not counting layers) that a matrix product contracts; 0 for a parameter that is no matrix."""

    def unbox(self, apply_constraint: bool = True) -> Any:
        """The value alone: flax would constrain it to mesh axes called like the logical ones, which no mesh has."""
        return self.value


@contextmanager
def descriptions() -> Iterator[None]:
    """Context in which modules initialise every parameter as `Described` and not as a plain array."""
    token = _describing.set(True)
    try:
        yield
    finally:
        _describing.reset(token)


def matrix(*axes: str, inputs: int = 1, residual_layers: int = 0) -> Callable[..., Any]:
    """Initialiser of a weight matrix with logical `axes`, the first `inputs` of which a matrix product contracts.

    `residual_layers` is the number of blocks L for a projection into the residual stream, whose standard deviation is divided
    by sqrt(2L); 0 for any other matrix.
    """
    std = STD / (2 * residual_layers) ** 0.5 if residual_layers else STD
    return _described(nn.initializers.normal(std), axes, inputs=inputs)


def embedding_table(*axes: str) -> Callable[..., Any]:
    """Initialiser of a table of vectors by token id, position or distance, which is not decayed."""
    return _described(nn.initializers.normal(STD), axes, inputs=0)


def ones(*axes: str) -> Callable[..., Any]:
    """Initialiser of a norm's scale, which starts at 1."""
    return _described(nn.initializers.ones_init(), axes, inputs=0)


def zeros(*axes: str) -> Callable[..., Any]:
    """Initialiser of a bias, which starts at 0 and is not decayed."""
    return _described(nn.initializers.zeros_init(), axes, inputs=0)


def _described(initializer: Callable[..., jax.Array], axes: tuple[str, ...], *, inputs: int) -> Callable[..., Any]:
    def init(key, *shape_and_dtype):
        value = initializer(key, *shape_and_dtype)
        return Described(value, names=axes, inputs=inputs) if _describing.get() else value

    return init
