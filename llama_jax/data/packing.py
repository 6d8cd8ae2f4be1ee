"""Token streams cut into rows: each token of a prepared folder is predicted once an epoch."""

from pathlib import Path

import numpy as np

from llama_jax.batch import Batch
from llama_jax.data.manifest import Manifest, read_manifest
from llama_jax.errors import DataError


class TokenSource:
    """A prepared folder as ceil((tokens - 1) / T) windows of T + 1 tokens; neighbours share one token.

    The last window is filled up with BOS, which nothing predicts.
    """

    def __init__(self, folder: str | Path, sequence_length: int):
        self.folder = Path(folder)
        self.name = self.folder.name
        self.sequence_length = sequence_length
        self.manifest: Manifest = read_manifest(self.folder)
        dtype = np.dtype(self.manifest.dtype)
        self._shards = [np.memmap(self.folder / shard.file, dtype, "r") for shard in self.manifest.shards]
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return -(-(self.manifest.tokens - 1) // self.sequence_length)

    @property
    def predicted_per_byte(self) -> float:
        """Predicted tokens (all but BOS) a byte of original text: bits a byte = nats a token / ln 2 * this."""
        return (self.manifest.tokens - self.manifest.documents) / self.manifest.bytes

    def window(self, index: int) -> np.ndarray:
        """int32 (T + 1,) tokens of window `index`."""
        begin = index * self.sequence_length
        end = min(begin + self.sequence_length + 1, self.manifest.tokens)
        row = np.full(self.sequence_length + 1, self.manifest.bos_id, np.int32)
        first = int(np.searchsorted(self._starts, begin, side="right")) - 1
        at = begin
        while at < end:
            offset = at - self._starts[first]
            piece = self._shards[first][offset : offset + end - at]
            row[at - begin : at - begin + len(piece)] = piece
            at, first = at + len(piece), first + 1
        return row

    def check(self, tokenizer_sha256: str, vocab_size: int) -> None:
        """Raise DataError where the shards were made by another tokenizer than the run's."""
        m = self.manifest
        if m.vocab_size > vocab_size:
            raise DataError(f"{self.folder} was tokenised with {m.vocab_size} pieces but model.vocab_size is "
                            f"{vocab_size}; set --model.vocab_size {m.vocab_size} or prepare it again.")
        if m.tokenizer_sha256 != tokenizer_sha256:
            raise DataError(f"{self.folder} was made with another tokenizer (sha256 {m.tokenizer_sha256[:12]}, this "
                            f"run's is {tokenizer_sha256[:12]}); prepare it again or set --data.tokenizer.")


def pack(rows: np.ndarray, bos_id: int) -> Batch:
    """Rows (B, T + 1) of documents that begin with BOS, as a Batch: segments and positions restart at each BOS.

    A target that is BOS opens another document and has weight 0.
    """
    tokens, targets = rows[:, :-1], rows[:, 1:]
    starts = tokens == bos_id
    index = np.arange(tokens.shape[1], dtype=np.int32)[None]
    return Batch(
        tokens=np.ascontiguousarray(tokens, np.int32),
        targets=np.ascontiguousarray(targets, np.int32),
        positions=index - np.maximum.accumulate(np.where(starts, index, 0), axis=1),
        segment_ids=np.cumsum(starts, axis=1, dtype=np.int32),
        weights=(targets != bos_id).astype(np.float32),
    )
