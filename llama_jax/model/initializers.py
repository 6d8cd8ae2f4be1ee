"""Initial values: normal with std 0.02; projections into the residual stream scaled by 1/sqrt(2L)."""

from collections.abc import Callable

from flax import linen as nn

STD = 0.02
"""Standard deviation of every matrix and embedding (the paper gives none; GPT-2's and the released code's custom)."""


def matrix(*axes: str, residual_layers: int = 0) -> Callable:
    """Initialiser of a parameter with logical `axes`.

    The 2L projections that add to the residual stream name their L, so that its variance does not grow with depth.
    """
    std = STD / (2 * residual_layers) ** 0.5 if residual_layers else STD
    return nn.with_logical_partitioning(nn.initializers.normal(std), axes)
