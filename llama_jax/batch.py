"""The batch that the data loader hands to the train step."""

from typing import NamedTuple

import numpy as np
from jax import Array


class Batch(NamedTuple):
    """Rows of packed tokens; every field is (B, T)."""

    tokens: Array | np.ndarray
    """int32 input tokens."""
    targets: Array | np.ndarray
    """int32 next token of each input."""
    positions: Array | np.ndarray
    """int32 positions, counted from 0 in every document of a row."""
    segment_ids: Array | np.ndarray
    """int32 number of the document in its row; tokens attend to their own document alone."""
    weights: Array | np.ndarray
    """float32 weight of each target in the loss; 0 where it begins another document or is padding."""
