"""Training rows put together into a Batch: segments and positions restart where a document begins."""

from collections.abc import Sequence

import numpy as np

from llama_jax.batch import Batch
from llama_jax.data.windows import TokenRow


def batch_of_rows(rows: Sequence[TokenRow]) -> Batch:
    """Rows as a Batch: segments and positions restart at each start, and what is not predicted has weight 0."""
    tokens, targets, starts, predicted = (np.stack(field) for field in zip(*rows, strict=True))
    index = np.arange(tokens.shape[1], dtype=np.int32)[None]
    return Batch(
        tokens=tokens,
        targets=targets,
        positions=index - np.maximum.accumulate(np.where(starts, index, 0), axis=1),
        segment_ids=np.cumsum(starts, axis=1, dtype=np.int32),
        weights=predicted.astype(np.float32),
    )


def batch_of_tokens(rows: np.ndarray, bos_id: int) -> Batch:
    """Rows (B, T + 1) of documents that begin with BOS, which nothing else is, as a Batch.

    A target that is BOS opens another document and has weight 0.
    """
    tokens, starts = rows.astype(np.int32), rows == bos_id
    return batch_of_rows([TokenRow(t[:-1], t[1:], s[:-1], ~s[1:]) for t, s in zip(tokens, starts, strict=True)])
