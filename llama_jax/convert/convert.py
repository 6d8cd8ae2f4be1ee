"""From one folder to another, tensor by tensor, under a temporary name until it is whole."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import STORED_DTYPES, WeightSource, require_finite, tokenizer_of
from llama_jax.formats.hf import write_hf
from llama_jax.formats.mapping import Tensor, tensors
from llama_jax.formats.meta import write_meta
from llama_jax.formats.run import write_run
from llama_jax.model.accounting import parameter_count
from llama_jax.tokenizer.base import Tokenizer

Report = Callable[[int], None]
"""Hears how many bytes more are written."""


def convert(source: WeightSource, target: Path, to: str, *, dtype: str = "", max_length: int = 0, meta_shards: int = 1,
            report: Report = lambda count: None) -> Tokenizer | None:
    """Write `target` in the format `to` ("orbax", "hf" or "meta"); returns the tokenizer that went along, if there was one.

    dtype "" and max_length 0 keep the source's. Raises ConfigError where the target exists or the format cannot hold the
    model, DataError where the source is damaged or the disk is full; then nothing lies under the target's name.
    """
    config = replace(source.config, max_length=max_length or source.config.max_length)
    stored = STORED_DTYPES[dtype] if dtype else source.dtype
    tokenizer = tokenizer_of(source)
    needed = parameter_count(config) * stored.itemsize
    with appearing(target, source.folder, needed) as folder:
        weights = cast(source, config, stored, report)
        if to == "orbax":
            write_run(folder, config, stored, weights, tokenizer, name=target.name, origin=str(source.folder))
        elif to == "hf":
            write_hf(folder, config, stored, weights, tokenizer)
        else:
            write_meta(folder, config, stored, weights, tokenizer, shards=meta_shards)
    return tokenizer


def cast(source: WeightSource, config: ModelConfig, dtype: np.dtype, report: Report) -> Iterator[tuple[Tensor, np.ndarray]]:
    """All tensors in the table's order and in `dtype`; raises DataError where one does not fit into it."""
    for tensor in tensors(config):
        ours = source.read(tensor)
        if ours.dtype != dtype:
            with np.errstate(over="ignore"):
                ours = require_finite(ours.astype(dtype), f"{tensor.hf} as {dtype.name}")
        yield tensor, ours
        report(ours.nbytes)


@contextmanager
def appearing(target: Path, source: Path, needed: int) -> Iterator[Path]:
    """A folder that becomes `target` when all went well, and disappears otherwise."""
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
        sync(folder)
        folder.rename(target)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:  # tensorstore's are of the last two kinds
        reason = (error.strerror if isinstance(error, OSError) else str(error).splitlines()[0][:300]) or type(error).__name__
        raise DataError(f"cannot write {target}: {reason}; nothing of it stays.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(folder: Path) -> None:
    """Everything below onto the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
