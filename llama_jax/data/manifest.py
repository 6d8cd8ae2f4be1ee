"""The format of a prepared folder: flat little-endian token shards, and manifest.json, which says what they hold.

Each document is stored as BOS, its tokens, EOS. A second file beside each shard holds the places where its documents begin,
because the tokens alone do not tell if BOS and EOS are one token, or if a text contains their ids.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from llama_jax.errors import DataError
from llama_jax.files.json_kinds import IfThere, ListOf, json_fault, show_value

MANIFEST_FILE = "manifest.json"
PREPARE_PROGRESS = "progress.json"
"""File in an output folder that lists the finished shards while work is under way."""
_MAX_FILE_NAME = 255
_TOKEN_DTYPES = ("<u2", "<u4")
"""dtypes of token ids: two bytes where the vocabulary has at most 2^16 ids, else four."""
START_DTYPE = "<i8"
"""dtype of a place in a shard where a document begins."""


@dataclass(frozen=True)
class Shard:
    """One flat file of tokens, and what it holds."""

    file: str
    tokens: int
    """Number of tokens, BOS and EOS counted."""
    documents: int
    bytes: int
    """UTF-8 bytes of the original text."""
    starts: str = ""
    """Name of the file with the places in the shard where documents begin, ascending, each a START_DTYPE; empty in folders of
    earlier versions, which had no such file."""
    sha256: str = ""
    """Hash of `file`; empty in folders of earlier versions, as `starts_sha256` is."""
    starts_sha256: str = ""
    """Hash of the file `starts`."""


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds, and what it was made from."""

    tokenizer_sha256: str
    vocab_size: int
    dtype: str
    bos_id: int
    eos_id: int
    settings: dict
    """Input files, with their sizes and hashes, and options: work with the same settings is not done again."""
    shards: tuple[Shard, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all shards, BOS and EOS counted."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the original text of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> str:
        """The content of manifest.json: the fields, the totals of the shards, and a hash of all that."""
        totals = {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}
        values = dataclasses.asdict(self) | totals
        return json.dumps(values | {"sha256": _hash_of_values(values)}, indent=1) + "\n"


_NUMBERS = dict.fromkeys(("tokens", "documents", "bytes"), int)
_SHARD = {"file": str, **_NUMBERS, **dict.fromkeys(("starts", "sha256", "starts_sha256"), IfThere(str))}
_MANIFEST = {"tokenizer_sha256": str, "vocab_size": int, "dtype": str, "bos_id": int, "eos_id": int, "settings": dict,
             "shards": ListOf(_SHARD), **_NUMBERS, "sha256": IfThere(str)}
"""What manifest.json holds; earlier versions wrote neither hashes nor `starts`."""


def _hash_of_values(values: dict) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def shards_from_json(values: Any) -> tuple[Shard, ...]:
    """The shards that a list of JSON objects describes; raises ValueError where it does not, or a file lies elsewhere."""
    if fault := json_fault(values, ListOf(_SHARD), name="shards"):
        raise ValueError(fault)
    for shard in values:
        if unknown := shard.keys() - _SHARD:
            raise ValueError(f"a shard has the unknown field {show_value(min(unknown))}")
        for file in filter(None, (shard["file"], shard.get("starts"))):
            if PurePath(file).name != file or "\0" in file or len(file) > _MAX_FILE_NAME:
                raise ValueError(f"{show_value(file)} is no name of a file in this folder")
        if min(shard[name] for name in _NUMBERS) < 0:
            raise ValueError(f"{show_value(shard['file'])} cannot hold fewer than 0 tokens, documents or bytes")
    return tuple(Shard(**shard) for shard in values)


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of _TOKEN_DTYPES that can hold every id of a vocabulary."""
    return np.dtype(_TOKEN_DTYPES[0] if vocab_size <= 1 << 16 else _TOKEN_DTYPES[1])


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared folder and check it against the sizes of the files (`verify_shards` reads them).

    Raises:
        DataError: there is no manifest, it is damaged, or a file has another size than it says.
    """
    try:
        values = json.loads((folder / MANIFEST_FILE).read_bytes())
        if fault := json_fault(values, _MANIFEST):
            raise ValueError(fault)
        fields = {field.name: values[field.name] for field in dataclasses.fields(Manifest)}
        manifest = Manifest(**fields | {"shards": shards_from_json(fields["shards"])})
        if manifest.dtype not in _TOKEN_DTYPES:
            raise ValueError(f"dtype {manifest.dtype!r} is none of {', '.join(_TOKEN_DTYPES)}")
        totals = (manifest.tokens, manifest.documents, manifest.bytes)
        if totals != (values["tokens"], values["documents"], values["bytes"]) or min(totals) < 1:
            raise ValueError("its totals are not those of its shards")
        if manifest.tokens < 2 * manifest.documents:
            raise ValueError(f"{manifest.tokens} tokens cannot be {manifest.documents} documents, each with a BOS and an EOS")
        if not max(manifest.bos_id, manifest.eos_id) < manifest.vocab_size <= 1 << 8 * np.dtype(manifest.dtype).itemsize:
            raise ValueError(f"ids {manifest.bos_id} and {manifest.eos_id} of {manifest.vocab_size} cannot be {manifest.dtype}")
        written = values.pop("sha256", None)
        if written not in (None, _hash_of_values(values)):
            raise ValueError("its content does not have its hash: it was changed after it was written")
    except OSError as error:
        raise DataError(f"{folder} is not a prepared folder: {error.strerror} ({MANIFEST_FILE}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder / MANIFEST_FILE} is damaged ({error}); remove {folder} and prepare it again.") from None
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


def verify_shards(folder: Path, *, report: Callable[[Shard], None] | None = None) -> Manifest:
    """Read all files of a prepared folder, compare them with the checksums of its manifest, and return that.

    Of shards that earlier versions made, which have no checksums, only the sizes are checked.

    Args:
        folder: the prepared folder.
        report: called with each shard that is found whole.

    Raises:
        DataError: as `read_manifest`; or a file is not what was written, and it is named.
    """
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        if name := damaged_file(folder, shard):
            raise DataError(f"{folder / name} is damaged: its checksum is not the one in {MANIFEST_FILE}; remove {folder} and "
                            "prepare it again, or copy the file anew.")
        if report:
            report(shard)
    return manifest


def damaged_file(folder: Path, shard: Shard) -> str:
    """Name of the first file of a shard whose content does not have its checksum; empty where there is none."""
    for name, wanted in ((shard.file, shard.sha256), (shard.starts, shard.starts_sha256)):
        if wanted and _sha256_of(folder / name) != wanted:
            return name
    return ""


def _sha256_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None


def file_size(file: Path) -> int:
    """Size of a file in bytes, 0 if there is none."""
    return file.stat().st_size if file.is_file() else 0
