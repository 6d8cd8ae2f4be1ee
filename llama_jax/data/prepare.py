"""Text in, token shards out: streamed, on many processes, resumable, atomic.

A prepared folder holds flat little-endian shards, each document as BOS, its tokens, EOS, and manifest.json with counts,
original bytes and the tokenizer's hash. The shards are the same for any number of workers and any interruptions.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_jax.data.sources import documents, files_of
from llama_jax.data.tokenizer import Tokenizer
from llama_jax.errors import DataError

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
CHUNK_BYTES = 1 << 20
"""Text a worker gets at one time."""


@dataclass(frozen=True)
class Shard:
    """One flat file of tokens."""

    file: str
    tokens: int
    documents: int
    bytes: int


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
        values = json.loads((folder / MANIFEST).read_text())
        fields = {field.name: values[field.name] for field in dataclasses.fields(Manifest)}
        manifest = Manifest(**fields | {"shards": tuple(Shard(**shard) for shard in fields["shards"])})
    except OSError as error:
        raise DataError(f"{folder} is not a prepared folder: {error.strerror} ({MANIFEST}).") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error!r}); prepare the data again.") from None
    for shard in manifest.shards:
        file, wanted = folder / shard.file, shard.tokens * np.dtype(manifest.dtype).itemsize
        size = file.stat().st_size if file.exists() else 0
        if size != wanted:
            raise DataError(f"{file} should hold {shard.tokens} tokens in {wanted} bytes but has {size}; it is "
                            "truncated or was replaced: prepare the data again.")
    return manifest


def prepare(
    inputs: list[str],
    tokenizer: Tokenizer,
    output: Path,
    *,
    text_key: str = "text",
    workers: int = 0,
    shard_tokens: int = 1 << 26,
) -> Manifest:
    """Tokenise the files that `inputs` name into `output`; goes on where an earlier call was stopped.

    workers 0 means one a core. Raises DataError for unreadable inputs or an output that holds something else.
    """
    files = [file for path in inputs for file in files_of(path)]
    texts = itertools.chain.from_iterable(documents(file, text_key=text_key) for file in files)
    settings = fingerprint(files) | {"text_key": text_key, "shard_tokens": shard_tokens}
    return write_shards(texts, tokenizer, output, settings, workers=workers, shard_tokens=shard_tokens)


def fingerprint(files: list[Path]) -> dict:
    """Names and sizes of input files, to tell the same work from other work."""
    return {"files": [[file.name, file.stat().st_size] for file in files]}


def write_shards(
    texts: Iterable[str], tokenizer: Tokenizer, output: Path, settings: dict, *, workers: int, shard_tokens: int
) -> Manifest:
    """The shards of `texts`; work that is finished, or begun, under the same `settings` is not done again."""
    _make_folder(output)
    if (output / MANIFEST).exists():
        manifest = read_manifest(output)
        if (manifest.settings, manifest.tokenizer_sha256) != (settings, tokenizer.sha256):
            raise DataError(f"{output} already holds data made from other text, settings or tokenizer; remove it or "
                            "name another place.")
        return manifest
    settings_of_progress = settings | {"tokenizer": tokenizer.sha256}
    done = _finished_shards(output, settings_of_progress)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    texts = itertools.islice(texts, sum(shard.documents for shard in done), None)
    with _encoder(tokenizer, workers) as encode:
        for tokens, count, size in _group(encode(_chunks(texts)), tokenizer, dtype, shard_tokens):
            shard = Shard(f"shard_{len(done):05d}.bin", len(tokens), count, size)
            _write_atomic(output / shard.file, tokens.tobytes())
            done.append(shard)
            progress = {"settings": settings_of_progress, "shards": [dataclasses.asdict(s) for s in done]}
            _write_atomic(output / PROGRESS, json.dumps(progress).encode())
    if not done:
        raise DataError(f"no text in {', '.join(name for name, _ in settings['files'])}: every document is empty.")
    manifest = Manifest(tokenizer.sha256, tokenizer.vocab_size, dtype.str, tokenizer.bos_id, tokenizer.eos_id,
                        settings, tuple(done))
    tokenizer.save(output)
    _write_atomic(output / MANIFEST, manifest.to_json().encode())
    (output / PROGRESS).unlink(missing_ok=True)
    return manifest


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}.") from None


def _finished_shards(output: Path, settings: dict) -> list[Shard]:
    file = output / PROGRESS
    if not file.exists():
        return []
    progress = json.loads(file.read_text())
    if progress["settings"] != settings:
        raise DataError(f"{output} holds the beginning of other work (see {file}); remove it or name another output.")
    return [Shard(**shard) for shard in progress["shards"]]


def _write_atomic(file: Path, data: bytes) -> None:
    temporary = file.with_name(file.name + ".tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {file}: {error.strerror}.") from None


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents of about CHUNK_BYTES characters; a longer document stands alone."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _group(
    encoded: Iterable[list[tuple[list[int], int]]], tokenizer: Tokenizer, dtype: np.dtype, shard_tokens: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Whole documents gathered into shards of at least `shard_tokens`: (tokens, documents, bytes)."""
    parts, length, count, size = [], 0, 0, 0
    for ids, bytes_ in itertools.chain.from_iterable(encoded):
        parts.append(np.asarray([tokenizer.bos_id, *ids, tokenizer.eos_id], dtype))
        length, count, size = length + len(parts[-1]), count + 1, size + bytes_
        if length >= shard_tokens:
            yield np.concatenate(parts), count, size
            parts, length, count, size = [], 0, 0, 0
    if parts:
        yield np.concatenate(parts), count, size


_worker_tokenizer: Tokenizer | None = None


def _start_worker(model: bytes) -> None:
    global _worker_tokenizer
    _worker_tokenizer = Tokenizer(model)


def _encode(texts: list[str], tokenizer: Tokenizer | None = None) -> list[tuple[list[int], int]]:
    ids = (tokenizer or _worker_tokenizer).encode_batch(texts)
    return [(i, len(text.encode())) for i, text in zip(ids, texts, strict=True)]


@contextmanager
def _encoder(tokenizer: Tokenizer, workers: int):
    """Yields chunks -> encoded chunks, in order, on `workers` processes (1: this one)."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield lambda chunks: (_encode(chunk, tokenizer) for chunk in chunks)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (tokenizer.model,)) as pool:
        yield lambda chunks: _bounded_map(pool, chunks, 4 * workers)


def _bounded_map(pool, chunks: Iterable[list[str]], ahead: int) -> Iterator:
    """pool.imap with at most `ahead` chunks in flight: imap alone would read the whole input into memory."""
    chunks, pending = iter(chunks), []
    for chunk in chunks:
        pending.append(pool.apply_async(_encode, (chunk,)))
        if len(pending) >= ahead:
            yield pending.pop(0).get()
    for result in pending:
        yield result.get()
