"""Prepare data: raw text in, token shards out, streamed through many processes; a stopped preparation can be resumed.

The shards are the same for any number of workers and any interruptions.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from llama_jax.data.hash_split import HashSplit, is_held_out
from llama_jax.data.inputs import find_inputs, fingerprint_inputs, read_input
from llama_jax.data.manifest import Manifest, Shard
from llama_jax.data.shards import ShardWriter
from llama_jax.data.workers import EncodedChunk, open_encoder
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.lock import only_writer
from llama_jax.tokenizer.base import Tokenizer

CHUNK_SIZE = 1 << 20
"""Characters of text that a worker gets at one time."""

ReportChunk = Callable[[Shard], None]
"""A function that is called with the counts of each chunk of text when it is tokenised."""


def prepare_data(
    inputs: list[str],
    tokenizer: Tokenizer,
    *,
    output: Path | HashSplit,
    text_key: str = "text",
    separator: str = "",
    workers: int = 0,
    shard_tokens: int = 1 << 26,
    report: ReportChunk | None = None,
) -> Manifest:
    """Tokenise the text that `inputs` name into shards in `output`, and resume there if an earlier call was stopped.

    Args:
        inputs: files, folders, embedded texts and data sets of the Hugging Face hub, see `find_inputs`.
        tokenizer: gives the ids; it is copied into `output`.
        output: folder of the shards, or two folders between which the documents are split by their hashes.
        text_key: key or column with the text in JSON lines, Parquet files and data sets of the hub.
        separator: text between the documents of a .txt file; empty: a file is one document.
        workers: processes that tokenise; 0 means one per core.
        shard_tokens: fewest tokens of every shard but the last of a folder.
        report: called with the counts of each chunk.

    Returns:
        The manifest of `output`; of a split, that of the folder to train on.

    Raises:
        ConfigError: an argument is out of range, or there are no inputs.
        DataError: an input cannot be read, or `output` holds something else, or another process writes there.
    """
    if workers < 0 or shard_tokens < 1:
        raise ConfigError(f"workers must be at least 0 and shard_tokens at least 1, got {workers} and {shard_tokens}.")
    if not inputs:
        raise ConfigError("there is nothing to prepare; name files or folders after --input.")
    sources = find_inputs(*inputs)
    texts = itertools.chain.from_iterable(read_input(source, text_key=text_key, separator=separator) for source in sources)
    settings = fingerprint_inputs(sources) | {"text_key": text_key, "shard_tokens": shard_tokens}
    settings |= {"document_separator": separator} if separator else {}
    folders = [output.train, output.heldout] if isinstance(output, HashSplit) else [output]
    with ExitStack() as locks:
        for folder in sorted(folders):
            locks.enter_context(only_writer(folder))
        return write_shards(texts, tokenizer, output=output, settings=settings, workers=workers, shard_tokens=shard_tokens,
                            report=report)


def write_shards(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    *,
    output: Path | HashSplit,
    settings: dict,
    workers: int,
    shard_tokens: int,
    report: ReportChunk | None = None,
) -> Manifest:
    """Tokenise `texts` into shards in `output`; what an earlier call with the same `settings` finished is not done again.

    Arguments and result are those of `prepare_data`; `settings` identify the texts. Raises DataError if `output` holds other
    work, or nothing would be in a folder.
    """
    if isinstance(output, HashSplit):
        fraction, folders = output.fraction, {"train": output.train, "heldout": output.heldout}
        settings_of = {part: settings | {"heldout_by_hash": fraction, "part": part} for part in folders}
    else:
        fraction, folders, settings_of = 0.0, {"train": output}, {"train": settings}
    writers = [ShardWriter(folder, tokenizer, settings=settings_of[part], shard_tokens=shard_tokens)
               for part, folder in folders.items()]
    if not all(writer.manifest for writer in writers):
        texts = _unfinished(texts, writers, fraction=fraction)
        with open_encoder(tokenizer, workers, heldout_fraction=fraction) as encode:
            for chunk in _reported(encode(_chunks(texts)), report):
                for held_out, writer in enumerate(writers):
                    writer.add(chunk.part(bool(held_out)))
        _check_documents(writers, fraction, names=[name for name, *_ in settings["files"]])
    train, *heldout = writers
    for writer in heldout:
        writer.finish()
    return train.finish()


def _unfinished(texts: Iterable[str], writers: Sequence[ShardWriter], *, fraction: float) -> Iterator[str]:
    """The documents that are in no finished shard of the folder that they belong to."""
    finished = [math.inf if writer.manifest else writer.documents for writer in writers]
    texts = iter(texts)
    for text in texts:
        held_out = is_held_out(text, fraction)
        if finished[held_out]:
            finished[held_out] -= 1
        else:
            yield text
        if not any(finished):
            break
    yield from texts


def _check_documents(writers: Sequence[ShardWriter], fraction: float, *, names: Sequence[str]) -> None:
    """Raise DataError where a folder would hold no document."""
    counts = [writer.documents for writer in writers]
    if not sum(counts):
        raise DataError(f"no text in {', '.join(names)}: every document is blank.")
    if not all(counts):
        raise DataError(f"heldout_fraction {fraction} holds out {counts[-1]} of {sum(counts)} documents; choose another, or give "
                        "more documents.")


def _reported(encoded: Iterable[EncodedChunk], report: ReportChunk | None) -> Iterator[EncodedChunk]:
    """Pass chunks on, after calling `report` with the counts of each."""
    for chunk in encoded:
        if report:
            report(Shard("", len(chunk.tokens), len(chunk.counts), int(chunk.num_bytes.sum())))
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
