"""Worker processes that tokenise text for `prepare_data`; they import neither jax nor any module of this package that does."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import numpy as np

from llama_jax.errors import LlamaError
from llama_jax.tokenizer.base import Tokenizer

EncodedChunk = list[tuple[np.ndarray, int]]
"""Documents of a chunk as (int32 token ids, bytes of UTF-8 text)."""
Encoder = Callable[[Iterable[list[str]]], Iterator[EncodedChunk]]
"""Tokenises chunks of documents as they come, and keeps their order."""

_worker_tokenizer: Tokenizer | None = None


def _start_worker(tokenizer: Tokenizer) -> None:
    """Set up a worker process: keep the tokenizer, leave Ctrl-C to the parent, and exit if the parent is killed."""
    global _worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_tokenizer = tokenizer


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _encode(texts: list[str], tokenizer: Tokenizer | None = None) -> EncodedChunk:
    """Tokenise a chunk; in a worker process, with the tokenizer that it keeps."""
    tokenizer = tokenizer or _worker_tokenizer
    return [(tokenizer.encode_array(text), len(text.encode())) for text in texts]


@contextmanager
def open_encoder(tokenizer: Tokenizer, workers: int) -> Iterator[Encoder]:
    """Yield a function from chunks to encoded chunks, in the same order, that uses `workers` processes (1 means this one)."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield lambda chunks: (_encode(chunk, tokenizer) for chunk in chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked child would hang in the threads of jax
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (tokenizer,))
    try:
        yield lambda chunks: _bounded_map(pool, chunks, ahead=4 * workers)
    except BrokenProcessPool:
        raise LlamaError("a worker process died, perhaps for lack of memory; run the same command again to go on, with "
                         "fewer workers if it happens again.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _bounded_map(pool: ProcessPoolExecutor, chunks: Iterable[list[str]], *, ahead: int) -> Iterator:
    """`pool.map(_encode, chunks)` with at most `ahead` chunks in flight; `map` itself would read all input into memory."""
    pending = deque()
    for chunk in chunks:
        pending.append(pool.submit(_encode, chunk))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
