"""Prepare data: raw text in, token shards out, streamed through many processes; a stopped preparation can be resumed.

The shards are the same for any number of workers and any interruptions.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from llama_jax.data.manifest import MANIFEST_FILE, START_DTYPE, Manifest, Shard, file_size, read_manifest, token_dtype
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.data.workers import EncodedChunk, open_encoder
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer

PREPARE_PROGRESS = "progress.json"
"""File in an output folder that lists the finished shards while work is under way."""
CHUNK_SIZE = 1 << 20
"""Characters of text that a worker gets at one time."""
_END_BYTES = 1 << 16
"""Bytes at each end of an input file that its fingerprint hashes."""

ReportChunk = Callable[[Shard], None]
"""A function that is called with the counts of each chunk of text when it is tokenised."""


def prepare_data(
    inputs: list[str],
    tokenizer: Tokenizer,
    *,
    output: Path,
    text_key: str = "text",
    separator: str = "",
    workers: int = 0,
    shard_tokens: int = 1 << 26,
    report: ReportChunk | None = None,
) -> Manifest:
    """Tokenise the files that `inputs` name into shards in `output`, and resume there if an earlier call was stopped.

    Args:
        inputs: files, folders and embedded texts, see `find_text_files`.
        tokenizer: gives the ids; it is copied into `output`.
        output: folder of the shards.
        text_key: key or column with the text in JSON lines and Parquet files.
        separator: text between the documents of a .txt file; empty: a file is one document.
        workers: processes that tokenise; 0 means one per core.
        shard_tokens: fewest tokens of every shard but the last.
        report: called with the counts of each chunk.

    Raises:
        ConfigError: an argument is out of range, or there are no inputs.
        DataError: an input cannot be read, or `output` holds something else.
    """
    if workers < 0 or shard_tokens < 1:
        raise ConfigError(f"workers must be at least 0 and shard_tokens at least 1, got {workers} and {shard_tokens}.")
    if not inputs:
        raise ConfigError("there is nothing to prepare; name files or folders after --input.")
    files = find_text_files(*inputs)
    texts = itertools.chain.from_iterable(read_documents(file, text_key=text_key, separator=separator) for file in files)
    settings = fingerprint_files(files) | {"text_key": text_key, "shard_tokens": shard_tokens}
    settings |= {"document_separator": separator} if separator else {}
    return write_shards(texts, tokenizer, output=output, settings=settings, workers=workers, shard_tokens=shard_tokens,
                        report=report)


def fingerprint_files(files: list[Path]) -> dict:
    """Names, sizes and hashes of both ends of input files, which tell whether two preparations have the same inputs."""
    return {"files": [[file.name, file.stat().st_size, _hash_of_ends(file)] for file in files]}


def _hash_of_ends(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            begin = stream.read(_END_BYTES)
            stream.seek(max(file.stat().st_size - _END_BYTES, 0))
            return hashlib.sha256(begin + stream.read(_END_BYTES)).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None


def write_shards(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    *,
    output: Path,
    settings: dict,
    workers: int,
    shard_tokens: int,
    report: ReportChunk | None = None,
) -> Manifest:
    """Tokenise `texts` into shards in `output`; what an earlier call with the same `settings` finished is not done again.

    The arguments are those of `prepare_data`; `settings` identify the texts. Raises DataError if `output` holds other work.
    """
    make_folder(output)
    if (output / MANIFEST_FILE).exists():
        manifest = read_manifest(output)
        made_by = manifest.tokenizer_sha256, manifest.bos_id, manifest.eos_id
        if (manifest.settings, made_by) != (settings, (tokenizer.sha256, tokenizer.bos_id, tokenizer.eos_id)):
            raise DataError(f"{output} already holds data made from other text, settings or tokenizer; remove it or "
                            "name another place.")
        return manifest
    if holds_tokenizer(output) and (held := load_tokenizer(output)).sha256 != tokenizer.sha256:
        raise DataError(f"{output} holds another tokenizer ({held.FILE}), which would be overwritten; name another output.")
    settings_of_progress = settings | {"tokenizer": tokenizer.sha256}
    dtype = token_dtype(tokenizer.vocab_size)
    done = _finished_shards(output, settings_of_progress, dtype=dtype)
    texts = itertools.islice(texts, sum(shard.documents for shard in done), None)
    with open_encoder(tokenizer, workers) as encode:
        chunks = _reported(encode(_chunks(texts)), report)
        for tokens, starts, size in _group(chunks, tokenizer, dtype=dtype, shard_tokens=shard_tokens):
            name = f"shard_{len(done):05d}"
            shard = Shard(f"{name}.bin", len(tokens), len(starts), size, f"{name}.starts")
            write_atomic(output / shard.file, tokens.tobytes())
            write_atomic(output / shard.starts, starts.tobytes())
            done.append(shard)
            progress = {"settings": settings_of_progress, "shards": [dataclasses.asdict(s) for s in done]}
            write_atomic(output / PREPARE_PROGRESS, json.dumps(progress).encode())
    if not done:
        raise DataError(f"no text in {', '.join(name for name, *_ in settings['files'])}: every document is blank.")
    manifest = Manifest(tokenizer.sha256, tokenizer.vocab_size, dtype.str, tokenizer.bos_id, tokenizer.eos_id,
                        settings, tuple(done))
    tokenizer.save(output)
    write_atomic(output / MANIFEST_FILE, manifest.to_json().encode())
    (output / PREPARE_PROGRESS).unlink(missing_ok=True)
    return manifest


def _finished_shards(output: Path, settings: dict, *, dtype: np.dtype) -> list[Shard]:
    """Shards that an earlier call finished and that are still whole; a shard without `starts`, of an earlier version, is not."""
    file = output / PREPARE_PROGRESS
    if not file.exists():
        return []
    try:
        progress = json.loads(file.read_text())
        shards = [Shard(**shard) for shard in progress["shards"]]
        begun = progress["settings"]
    except (ValueError, KeyError, TypeError):
        return []  # a damaged list is treated as none: all shards are made again
    if begun != settings:
        raise DataError(f"{output} holds the beginning of other work (see {file}); remove it or name another output.")

    def is_whole(shard: Shard) -> bool:
        starts_size = shard.documents * np.dtype(START_DTYPE).itemsize
        tokens_size = shard.tokens * dtype.itemsize
        return bool(shard.starts) and (file_size(output / shard.starts), file_size(output / shard.file)) == (
            starts_size, tokens_size)

    return list(itertools.takewhile(is_whole, shards))


def _reported(encoded: Iterable[EncodedChunk], report: ReportChunk | None) -> Iterator[EncodedChunk]:
    """Pass chunks on, after calling `report` with the counts of each."""
    for chunk in encoded:
        if report:
            report(Shard("", sum(len(ids) + 2 for ids, _ in chunk), len(chunk), sum(size for _, size in chunk)))
        yield chunk


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents of about CHUNK_SIZE characters; a longer document stands alone."""
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _group(
    encoded: Iterable[EncodedChunk], tokenizer: Tokenizer, *, dtype: np.dtype, shard_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Gather whole documents into shards of at least `shard_tokens`: (tokens, where documents begin, bytes of text)."""
    parts, starts, length, size = [], [], 0, 0
    for ids, num_bytes in itertools.chain.from_iterable(encoded):
        starts.append(length)
        parts.append(np.concatenate([[tokenizer.bos_id], ids, [tokenizer.eos_id]]).astype(dtype))
        length, size = length + len(parts[-1]), size + num_bytes
        if length >= shard_tokens:
            yield np.concatenate(parts), np.array(starts, START_DTYPE), size
            parts, starts, length, size = [], [], 0, 0
    if parts:
        yield np.concatenate(parts), np.array(starts, START_DTYPE), size
