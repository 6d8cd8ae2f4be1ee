"""Text in, token shards out: streamed, on many processes, resumable, atomic.

The shards are the same for any number of workers and any interruptions.
"""

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from llama_jax.data.manifest import MANIFEST_FILE, START_DTYPE, TOKEN_DTYPES, Manifest, Shard, file_size, read_manifest
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError, LlamaError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer

PREPARE_PROGRESS = "progress.json"
CHUNK_BYTES = 1 << 20
"""Text a worker gets at one time."""
END_BYTES = 1 << 16

ReportChunk = Callable[[Shard], None]
"""Receives the counts of each chunk of text as it is tokenised."""


def prepare_data(
    inputs: list[str],
    tokenizer: Tokenizer,
    *,
    output: Path,
    text_key: str = "text",
    workers: int = 0,
    shard_tokens: int = 1 << 26,
    report: ReportChunk | None = None,
) -> Manifest:
    """Tokenise the files that `inputs` name into `output`; goes on where an earlier call was stopped.

    workers 0 means one a core. Raises DataError for unreadable inputs or an output that holds something else.
    """
    if workers < 0 or shard_tokens < 1:
        raise ConfigError(f"workers must be at least 0 and shard_tokens at least 1, got {workers} and {shard_tokens}.")
    if not inputs:
        raise ConfigError("there is nothing to prepare; name files or folders after --input.")
    files = find_text_files(*inputs)
    texts = itertools.chain.from_iterable(read_documents(file, text_key=text_key) for file in files)
    settings = fingerprint_files(files) | {"text_key": text_key, "shard_tokens": shard_tokens}
    return write_shards(texts, tokenizer, output=output, settings=settings, workers=workers, shard_tokens=shard_tokens,
                        report=report)


def fingerprint_files(files: list[Path]) -> dict:
    """Names, sizes and hashes of both ends of input files, to tell the same work from other work."""
    return {"files": [[file.name, file.stat().st_size, _hash_of_ends(file)] for file in files]}


def _hash_of_ends(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            ends = stream.read(END_BYTES)
            stream.seek(max(file.stat().st_size - END_BYTES, 0))
            return hashlib.sha256(ends + stream.read(END_BYTES)).hexdigest()[:16]
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
    """The shards of `texts`; work that is finished, or begun, under the same `settings` is not done again."""
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
    dtype = np.dtype(TOKEN_DTYPES[tokenizer.vocab_size > 1 << 16])
    done = _finished_shards(output, settings_of_progress, dtype=dtype)
    texts = itertools.islice(texts, sum(shard.documents for shard in done), None)
    with _encoder(tokenizer, workers) as encode:
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
    """Shards that an earlier call finished and that are still whole; those of an earlier version lack `starts`."""
    file = output / PREPARE_PROGRESS
    if not file.exists():
        return []
    try:
        progress = json.loads(file.read_text())
        shards = [Shard(**shard) for shard in progress["shards"]]
        begun = progress["settings"]
    except (ValueError, KeyError, TypeError):
        return []  # as good as no progress
    if begun != settings:
        raise DataError(f"{output} holds the beginning of other work (see {file}); remove it or name another output.")
    return list(itertools.takewhile(
        lambda s: s.starts and file_size(output / s.starts) == s.documents * np.dtype(START_DTYPE).itemsize
        and file_size(output / s.file) == s.tokens * dtype.itemsize, shards))


def _reported(encoded: Iterable[list[tuple[np.ndarray, int]]], report: ReportChunk | None) -> Iterator:
    for chunk in encoded:
        if report:
            report(Shard("", sum(len(ids) + 2 for ids, _ in chunk), len(chunk), sum(size for _, size in chunk)))
        yield chunk


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
    encoded: Iterable[list[tuple[np.ndarray, int]]], tokenizer: Tokenizer, *, dtype: np.dtype, shard_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Whole documents gathered into shards of at least `shard_tokens`: (tokens, where documents begin, bytes of text)."""
    parts, starts, length, size = [], [], 0, 0
    for ids, bytes_ in itertools.chain.from_iterable(encoded):
        starts.append(length)
        parts.append(np.concatenate([[tokenizer.bos_id], ids, [tokenizer.eos_id]]).astype(dtype))
        length, size = length + len(parts[-1]), size + bytes_
        if length >= shard_tokens:
            yield np.concatenate(parts), np.array(starts, START_DTYPE), size
            parts, starts, length, size = [], [], 0, 0
    if parts:
        yield np.concatenate(parts), np.array(starts, START_DTYPE), size


_worker_tokenizer: Tokenizer | None = None


def _start_worker(tokenizer: Tokenizer) -> None:
    """Keep the tokenizer; Ctrl-C is the parent's to handle, and a worker does not outlive a killed one."""
    global _worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
    _worker_tokenizer = tokenizer


def _encode(texts: list[str], tokenizer: Tokenizer | None = None) -> list[tuple[np.ndarray, int]]:
    tokenizer = tokenizer or _worker_tokenizer
    return [(tokenizer.encode_array(text), len(text.encode())) for text in texts]


@contextmanager
def _encoder(tokenizer: Tokenizer, workers: int):
    """Yields chunks -> encoded chunks, in order, on `workers` processes (1: this one)."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield lambda chunks: (_encode(chunk, tokenizer) for chunk in chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # threads of jax do not survive a fork
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (tokenizer,))
    try:
        yield lambda chunks: _bounded_map(pool, chunks, ahead=4 * workers)
    except BrokenProcessPool:
        raise LlamaError("a worker process died, perhaps for want of memory; the same command goes on, with fewer "
                         "workers if it happens again.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _bounded_map(pool: ProcessPoolExecutor, chunks: Iterable[list[str]], *, ahead: int) -> Iterator:
    """pool.map with at most `ahead` chunks in flight: map alone would read the whole input into memory."""
    pending = deque()
    for chunk in chunks:
        pending.append(pool.submit(_encode, chunk))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
