"""Training rows put together into a Batch: segments and positions restart where a document begins."""

from collections.abc import Sequence

import numpy as np

from llama_jax.batch import Batch
from llama_jax.data.windows import TokenRow


def batch_of_rows(rows: Sequence[TokenRow]) -> Batch:
    """A Batch of shape (B, T) of B rows, in which targets that are not predicted have weight 0."""
    tokens, targets, starts, predicted = (np.stack(field) for field in zip(*rows, strict=True))
    index = np.arange(tokens.shape[1], dtype=np.int32)[None]
    segment_begin = np.maximum.accumulate(np.where(starts, index, 0), axis=1)
    return Batch(
        tokens=tokens,
        targets=targets,
        positions=index - segment_begin,
        segment_ids=np.cumsum(starts, axis=1, dtype=np.int32),
        weights=predicted.astype(np.float32),
    )


def batch_of_tokens(tokens: np.ndarray, bos_id: int) -> Batch:
    """A Batch of shape (B, T) of tokens of shape (B, T + 1), whose documents begin at each BOS and nowhere else.

    A target that is BOS begins another document and has weight 0.
    """
    starts = tokens == bos_id
    rows = zip(tokens.astype(np.int32), starts, strict=True)
    return batch_of_rows([TokenRow(row[:-1], row[1:], start[:-1], ~start[1:]) for row, start in rows])
