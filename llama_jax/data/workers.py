"""Worker processes that tokenise text for `prepare_data`; they import neither jax nor any module of this package that does."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import NamedTuple

import numpy as np

from llama_jax.data.hash_split import is_held_out
from llama_jax.data.manifest import token_dtype
from llama_jax.errors import LlamaError
from llama_jax.tokenizer.base import Tokenizer


class EncodedChunk(NamedTuple):
    """Tokenised documents, one after another; N of them with M tokens together."""

    tokens: np.ndarray
    """Ids of shape (M,), of the dtype of the shards: of every document BOS, its text, EOS."""
    counts: np.ndarray
    """Tokens of every document, int64 of shape (N,)."""
    num_bytes: np.ndarray
    """Bytes of every document's UTF-8 text, int64 of shape (N,)."""
    held_out: np.ndarray
    """Whether a document is held out, bool of shape (N,)."""

    def part(self, held_out: bool) -> "EncodedChunk":
        """The documents that are held out, or the others."""
        chosen = self.held_out == held_out
        if chosen.all():
            return self
        return EncodedChunk(self.tokens[np.repeat(chosen, self.counts)], *(values[chosen] for values in self[1:]))


Encoder = Callable[[Iterable[list[str]]], Iterator[EncodedChunk]]
"""Tokenises chunks of documents as they come, and keeps their order."""

_worker_tokenizer: Tokenizer | None = None
_worker_fraction = 0.0


def _start_worker(tokenizer: Tokenizer, heldout_fraction: float) -> None:
    """Set up a worker process: keep what it works with, leave Ctrl-C to the parent, and exit if the parent is killed."""
    global _worker_tokenizer, _worker_fraction
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker_tokenizer, _worker_fraction = tokenizer, heldout_fraction


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _encode(texts: list[str], tokenizer: Tokenizer, *, heldout_fraction: float) -> EncodedChunk:
    dtype = token_dtype(tokenizer.vocab_size)
    bos, eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], dtype)
    documents = [np.concatenate([bos, tokenizer.encode_array(text), eos], dtype=dtype, casting="unsafe") for text in texts]
    return EncodedChunk(np.concatenate(documents), np.array([*map(len, documents)], np.int64),
                        np.array([len(text.encode()) for text in texts], np.int64),
                        np.array([is_held_out(text, heldout_fraction) for text in texts], bool))


def _encode_in_worker(texts: list[str]) -> EncodedChunk:
    return _encode(texts, _worker_tokenizer, heldout_fraction=_worker_fraction)


def start_quiet_tracker() -> None:
    """Start the process of Python's that removes the semaphores of a killed one, and let it do so without a warning."""
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()


@contextmanager
def open_encoder(tokenizer: Tokenizer, workers: int, *, heldout_fraction: float = 0.0) -> Iterator[Encoder]:
    """Yield a function from chunks to encoded chunks, in the same order, that uses `workers` processes (1 means this one).

    `heldout_fraction` is the share of documents that are told to be held out (`llama_jax.data.hash_split`).
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield lambda chunks: (_encode(chunk, tokenizer, heldout_fraction=heldout_fraction) for chunk in chunks)
        return
    start_quiet_tracker()
    spawn = multiprocessing.get_context("spawn")  # a forked child would hang in the threads of jax
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (tokenizer, heldout_fraction))
    try:
        yield lambda chunks: _bounded_map(pool, chunks, ahead=4 * workers)
    except BrokenProcessPool:
        raise LlamaError("a worker process died, perhaps for lack of memory; run the same command again to go on, with "
                         "fewer workers if it happens again.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _bounded_map(pool: ProcessPoolExecutor, chunks: Iterable[list[str]], *, ahead: int) -> Iterator:
    """`pool.map(_encode_in_worker, chunks)` with at most `ahead` chunks in flight; `map` itself would read all input."""
    pending = deque()
    for chunk in chunks:
        pending.append(pool.submit(_encode_in_worker, chunk))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
