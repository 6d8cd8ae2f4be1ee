"""Batch: the one parcel that travels from the loader to the train step."""

from typing import NamedTuple

import numpy as np
from jax import Array


class Batch(NamedTuple):
    """Rows of packed tokens; every field is (B, T)."""

    tokens: Array | np.ndarray
    """int32 inputs."""
    targets: Array | np.ndarray
    """int32 next tokens."""
    positions: Array | np.ndarray
    """int32, restarting at 0 with every document of a row."""
    segment_ids: Array | np.ndarray
    """int32; tokens see only tokens of their own segment."""
    weights: Array | np.ndarray
    """float32; 0 where the target starts another document or is padding."""
