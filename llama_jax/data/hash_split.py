"""Held-out documents by hash: which side a document falls on depends on its text alone, not on what else is in the corpus."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from llama_jax.errors import ConfigError


@dataclass(frozen=True)
class HashSplit:
    """Two prepared folders that share out the documents of one text."""

    train: Path
    heldout: Path
    fraction: float
    """Share of the documents that is held out."""

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise ConfigError(f"heldout_fraction must be between 0 and 1, got {self.fraction}; name the share of documents to "
                              "hold out, such as 0.01.")
        if self.train.resolve() == self.heldout.resolve():
            raise ConfigError(f"{self.train} cannot hold both the documents to train on and those held out; name another "
                              "heldout_output.")


def is_held_out(text: str, fraction: float) -> bool:
    """Whether a document is one of the share `fraction` that is held out.

    It is where the first 8 bytes of the SHA-256 of its UTF-8 text, read as a big-endian integer and divided by 2^64, are below
    `fraction`. So equal documents fall on the same side, a document stays on its side whatever is added to the corpus, and with
    a larger fraction the held-out documents of a smaller one stay held out.
    """
    return fraction > 0 and int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < fraction * 2**64
