"""The batch that the data loader hands to the train step."""

from typing import NamedTuple

import numpy as np
from jax import Array


class Batch(NamedTuple):
    """One training batch: B rows of T tokens, packed with documents; every field has shape (B, T)."""

    tokens: Array | np.ndarray
    """int32 input tokens."""
    targets: Array | np.ndarray
    """int32 token that follows each input token, which the model should predict."""
    positions: Array | np.ndarray
    """int32 position of each token in its document, from 0."""
    segment_ids: Array | np.ndarray
    """int32 number, within the row, of the document that a token belongs to; tokens attend only to their own document."""
    weights: Array | np.ndarray
    """float32 weight of each target in the loss; 0 for padding and where the target is the first token of another document."""
