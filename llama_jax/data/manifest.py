"""A prepared folder: flat little-endian shards and manifest.json, which says what they hold and what made them.

Each document lies as BOS, its tokens, EOS. Beside each shard a second file says where its documents begin: where BOS and
EOS are one token, or a text holds their ids, the tokens alone do not tell.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_jax.errors import DataError

MANIFEST_FILE = "manifest.json"
TOKEN_DTYPES = ("<u2", "<u4")
"""Of tokens: two bytes where the vocabulary allows it, else four."""
START_DTYPE = "<i8"
"""dtype of a place where a document begins."""


@dataclass(frozen=True)
class Shard:
    """One flat file of tokens."""

    file: str
    tokens: int
    documents: int
    bytes: int
    starts: str = ""
    """File of the places in the shard where a document begins, ascending, each a START; empty in folders that an earlier
    version wrote."""


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds."""

    tokenizer_sha256: str
    vocab_size: int
    dtype: str
    bos_id: int
    eos_id: int
    settings: dict
    """What made it: input files with their sizes, and options."""
    shards: tuple[Shard, ...]

    @property
    def tokens(self) -> int:
        """All tokens, BOS and EOS counted."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """All documents."""
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the original text."""
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> str:
        """Fields and totals."""
        totals = {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}
        return json.dumps(dataclasses.asdict(self) | totals, indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder, its shards' sizes checked; raises DataError."""
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text())
        fields = {field.name: values[field.name] for field in dataclasses.fields(Manifest)}
        manifest = Manifest(**fields | {"shards": tuple(Shard(**shard) for shard in fields["shards"])})
        if manifest.dtype not in TOKEN_DTYPES:
            raise ValueError(f"dtype {manifest.dtype!r} is none of {', '.join(TOKEN_DTYPES)}")
        totals = (manifest.tokens, manifest.documents, manifest.bytes)
        if totals != (values["tokens"], values["documents"], values["bytes"]) or min(totals) < 1:
            raise ValueError("its totals are not those of its shards")
        if manifest.tokens < 2 * manifest.documents:
            raise ValueError(f"{manifest.tokens} tokens cannot be {manifest.documents} documents, each with a BOS and an EOS")
    except OSError as error:
        raise DataError(f"{folder} is not a prepared folder: {error.strerror} ({MANIFEST_FILE}).") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(f"{folder / MANIFEST_FILE} is damaged ({reason}); remove {folder} and prepare it again.") from None
    for shard in manifest.shards:
        size, wanted = file_size(folder / shard.file), shard.tokens * np.dtype(manifest.dtype).itemsize
        if size != wanted:
            raise DataError(f"{folder / shard.file} should hold {shard.tokens} tokens in {wanted} bytes but has "
                            f"{size}: it is truncated or was replaced; remove {folder} and prepare it again.")
        size, wanted = file_size(folder / shard.starts), shard.documents * np.dtype(START_DTYPE).itemsize
        if shard.starts and size != wanted:
            raise DataError(f"{folder / shard.starts} should hold the beginnings of {shard.documents} documents in {wanted} "
                            f"bytes but has {size}: it is truncated or was replaced; remove {folder} and prepare it again.")
    return manifest


def file_size(file: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return file.stat().st_size if file.is_file() else 0
