"""Statistics of one tensor: moments, extremes, percentiles, and how many of its values are not finite."""

from typing import Any, NamedTuple

import numpy as np

_BLOCK = 1 << 16
"""Values that are held as float64 at a time; so few that they stay in a core's cache."""

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
"""The percentiles that `percentiles` computes."""


class TensorSummary(NamedTuple):
    """Statistics of a tensor's finite values, in float64; None where it has none."""

    mean: float | None
    std: float | None
    """Square root of the population variance."""
    min: float | None
    max: float | None
    non_finite: int
    """The number of values that are NaN or infinite."""


def summarize(array: np.ndarray) -> TensorSummary:
    """Compute a tensor's statistics in one pass, block by block (Chan et al. 1979), without a copy of it."""
    flat = array.ravel(order="K")  # in the order of memory, so that a transposed tensor is not copied
    count, mean, squares, least, most = 0, 0.0, 0.0, np.inf, -np.inf
    for begin in range(0, flat.size, _BLOCK):
        block = flat[begin : begin + _BLOCK].astype(np.float64)
        if not (finite := np.isfinite(block)).all():
            block = block[finite]
        if not block.size:
            continue
        least, most = min(least, block.min()), max(most, block.max())
        own_mean, total = block.mean(), count + block.size
        block -= own_mean
        squares += np.square(block, out=block).sum() + (own_mean - mean) ** 2 * count * block.size / total
        mean += (own_mean - mean) * block.size / total
        count = total
    if not count:
        return TensorSummary(None, None, None, None, flat.size)
    return TensorSummary(float(mean), float(np.sqrt(squares / count)), float(least), float(most), flat.size - count)


def percentiles(array: np.ndarray) -> dict[str, float | None]:
    """PERCENTILES of a tensor's finite values, by their number; None where it has none."""
    values = array.ravel(order="K").astype(np.float32)
    if not (finite := np.isfinite(values)).all():
        values = values[finite]
    found = np.percentile(values, PERCENTILES, overwrite_input=True).tolist() if values.size else [None] * len(PERCENTILES)
    return {f"{percent:g}": value for percent, value in zip(PERCENTILES, found, strict=True)}


def corner(array: np.ndarray, size: int) -> Any:
    """The first `size` values of a tensor's last two axes, at index 0 of the axes before them, as nested lists.

    What is not finite is the text nan, inf or -inf, which JSON can hold.
    """
    first = array[(0,) * max(0, array.ndim - 2)]
    values = first[(slice(size),) * first.ndim].astype(np.float64).tolist()
    rows = values if first.ndim == 2 else [values]
    rows = [[value if np.isfinite(value) else str(value) for value in row] for row in rows]
    return rows if first.ndim == 2 else rows[0]
