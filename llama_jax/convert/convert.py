"""Weights from one format into another, tensor by tensor; the target appears under its name when it is complete."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import STORED_DTYPES, WeightSource, require_finite, tokenizer_of
from llama_jax.formats.hf import write_hf
from llama_jax.formats.mapping import Tensor, tensors
from llama_jax.formats.meta import write_meta
from llama_jax.formats.run import config_around_model, write_run
from llama_jax.model.accounting import parameter_count
from llama_jax.tokenizer.base import Tokenizer


def convert_weights(
    source: WeightSource,
    target: Path,
    to: Literal["orbax", "hf", "meta"],
    *,
    dtype: str = "",
    max_length: int = 0,
    meta_shards: int = 1,
    report: Callable[[int], None] = lambda count: None,
) -> Tokenizer | None:
    """Write a source's weights, config and tokenizer as the folder `target` of the format `to`.

    Args:
        source: what is read, one tensor at a time.
        target: a folder that does not exist yet.
        to: orbax (a run directory), hf or meta.
        dtype: one of STORED_DTYPES; "" keeps the source's.
        max_length: context length in tokens; 0 keeps the source's.
        meta_shards: files of weights of a Meta folder.
        report: called with the number of bytes just written.

    Returns:
        The source's tokenizer, or None where it has none.

    Raises:
        ConfigError: the target exists, or its format cannot hold the model.
        DataError: the source is damaged, or the disk is full. Nothing is left under the target's name.
    """
    config = replace(source.config, max_length=max_length or source.config.max_length)
    stored = STORED_DTYPES[dtype] if dtype else source.dtype
    tokenizer = tokenizer_of(source)
    with _complete_or_absent(target, source.folder, needed=parameter_count(config) * stored.itemsize) as folder:
        weights = _cast_tensors(source, config, dtype=stored, report=report)
        if to == "orbax":
            whole = config_around_model(config, source.compute, name=target.name, origin=str(source.folder))
            write_run(folder, whole, dtype=stored, weights=weights, tokenizer=tokenizer)
        elif to == "hf":
            write_hf(folder, config, dtype=stored, weights=weights, tokenizer=tokenizer)
        else:
            write_meta(folder, config, dtype=stored, weights=weights, tokenizer=tokenizer, shards=meta_shards)
    return tokenizer


def _cast_tensors(
    source: WeightSource, config: ModelConfig, *, dtype: np.dtype, report: Callable[[int], None]
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """All tensors in order, in `dtype`; raises DataError where a value is too large for it."""
    for tensor in tensors(config):
        ours = source.read(tensor)
        if ours.dtype != dtype:
            with np.errstate(over="ignore"):
                ours = require_finite(ours.astype(dtype), f"{tensor.hf} as {dtype.name}")
        yield tensor, ours
        report(ours.nbytes)


@contextmanager
def _complete_or_absent(target: Path, source: Path, *, needed: int) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` when the block ends, and removed where it fails.

    Raises ConfigError where the target exists or lies in the source, DataError where the disk has not the `needed` bytes or a
    file cannot be written.
    """
    if os.path.lexists(target):
        raise ConfigError(f"{target} exists; name another --target, nothing is overwritten.")
    if target.absolute().is_relative_to(source.resolve()):
        raise ConfigError(f"{target} lies in the source {source}; name another --target, the source stays as it is.")
    folder = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(target.parent).free) < needed:
            raise DataError(f"{target} needs {needed:,} bytes and {target.parent} has {free:,} free; make room or name another "
                            "--target.")
        folder.mkdir()
        yield folder
        _fsync_files(folder)
        folder.rename(target)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:  # tensorstore raises the last two
        reason = (error.strerror if isinstance(error, OSError) else str(error).splitlines()[0][:300]) or type(error).__name__
        raise DataError(f"cannot write {target}: {reason}; nothing of it stays.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fsync_files(folder: Path) -> None:
    """Wait until all files below `folder` are on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
