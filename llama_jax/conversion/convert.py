"""Weights from one format into another, tensor by tensor; the target appears under its name when it is complete."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.conversion.pooled import PooledSource
from llama_jax.conversion.verify import LogitDifference, verify_logits
from llama_jax.errors import ConfigError, nearest
from llama_jax.formats.base import STORED_DTYPES, WeightSource, require_finite, tokenizer_of
from llama_jax.formats.hf import write_hf
from llama_jax.formats.mapping import Tensor, tensors
from llama_jax.formats.meta import write_meta
from llama_jax.formats.new_folder import new_folder
from llama_jax.formats.open import open_source
from llama_jax.formats.run import config_around_model, write_run
from llama_jax.model.accounting import parameter_count
from llama_jax.tokenizer.base import Tokenizer

Format = Literal["orbax", "hf", "meta"]
"""orbax: a run directory; hf: a folder for transformers; meta: params.json and consolidated.NN.pth."""


def convert(
    source: str | Path, target: str | Path, *, to: Format, dtype: str = "", num_kv_heads: int = 0, max_length: int = 0,
    meta_shards: int = 1, verify: bool = False,
) -> LogitDifference | None:
    """Convert a folder of weights into another format, tensor by tensor, as the command `convert` does (docs/CONVERT.md).

    Args:
        source: A run directory (its newest step), DIR/checkpoints/STEP, a Hugging Face folder or a Meta folder.
        target: The folder to make; nothing that exists is overwritten.
        to: The format to write: "orbax" (a run directory), "hf" or "meta".
        dtype: Dtype of the stored weights: "float32", "bfloat16" or "float16"; "" keeps the source's.
        num_kv_heads: Average neighbouring key-value heads until this many are left; 0 keeps them.
        max_length: Context length in tokens; 0 keeps the source's.
        meta_shards: Number of files of a Meta folder.
        verify: Compare the logits of source and target on random tokens.

    Returns:
        How far the logits lie apart where `verify` asks for it, else None.

    Raises:
        ConfigError: The target exists, its format cannot hold the model, or an argument has a value that it cannot have.
        DataError: The source is damaged, the disk is full, or `verify` finds a difference that rounding does not explain.
            Nothing is left under the target's name, except in the last case.
    """
    opened = open_source(source)
    pooled = PooledSource(opened, num_kv_heads) if num_kv_heads else opened
    convert_weights(pooled, Path(target), to, dtype=dtype, max_length=max_length, meta_shards=meta_shards)
    return verify_logits(opened, open_source(target), pooled=num_kv_heads > 0) if verify else None


def convert_weights(
    source: WeightSource,
    target: Path,
    to: Format,
    *,
    dtype: str = "",
    max_length: int = 0,
    meta_shards: int = 1,
    report: Callable[[int], None] = lambda count: None,
) -> Tokenizer | None:
    """Write a source's weights, config and tokenizer as the folder `target` of the format `to`.

    Args:
        source: what is read, one tensor at a time.
        target: a folder that does not exist yet, or is empty.
        to: orbax (a run directory), hf or meta.
        dtype: one of STORED_DTYPES; "" keeps the source's.
        max_length: context length in tokens; 0 keeps the source's.
        meta_shards: files of weights of a Meta folder.
        report: called with the number of bytes just written.

    Returns:
        The source's tokenizer, or None where it has none.

    Raises:
        ConfigError: the target exists, its format cannot hold the model, or an argument has a value that it cannot have.
        DataError: the source is damaged, or the disk is full. Nothing is left under the target's name.
    """
    _check_arguments(to=to, dtype=dtype, max_length=max_length, meta_shards=meta_shards)
    config = _with_length(source.config, max_length)
    stored = STORED_DTYPES[dtype] if dtype else source.dtype
    tokenizer = tokenizer_of(source)
    if target.absolute().is_relative_to(source.folder.resolve()):
        raise ConfigError(f"{target} lies in the source {source.folder}; name another folder, the source stays as it is.")
    with new_folder(target, needed=parameter_count(config) * stored.itemsize) as folder:
        weights = _cast_tensors(source, config, dtype=stored, report=report)
        if to == "orbax":
            whole = config_around_model(config, source.compute, name=target.name, origin=str(source.folder))
            write_run(folder, whole, weights=weights, tokenizer=tokenizer)
        elif to == "hf":
            write_hf(folder, config, dtype=stored, weights=weights, tokenizer=tokenizer)
        else:
            write_meta(folder, config, dtype=stored, weights=weights, tokenizer=tokenizer, shards=meta_shards)
    return tokenizer


def _check_arguments(*, to: str, dtype: str, max_length: int, meta_shards: int) -> None:
    """Raise ConfigError for values that the arguments of a conversion cannot have."""
    if to not in get_args(Format):
        raise ConfigError(f"there is no format {to!r}{nearest(to, get_args(Format))}")
    if dtype and dtype not in STORED_DTYPES:
        raise ConfigError(f"weights cannot be stored as {dtype!r}{nearest(dtype, STORED_DTYPES)}")
    if meta_shards < 1 or max_length < 0:
        raise ConfigError(f"meta_shards must be positive and max_length at least 0, got {meta_shards} and {max_length}.")
    if meta_shards > 1 and to != "meta":
        raise ConfigError(f"meta_shards divides the files of Meta folders, and the format is {to}.")


def _with_length(config: ModelConfig, max_length: int) -> ModelConfig:
    """The model with another context length; raises ConfigError where its parameters depend on that."""
    if config.position == "learned" and max_length not in (0, config.max_length):
        raise ConfigError(f"this model has learned a vector for each of its {config.max_length} positions (model.position "
                          f"learned), so its context cannot become {max_length}; leave max_length out.")
    return replace(config, max_length=max_length or config.max_length)


def _cast_tensors(
    source: WeightSource, config: ModelConfig, *, dtype: np.dtype, report: Callable[[int], None]
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """All tensors in order, in `dtype`; raises DataError where a value is too large for it."""
    for tensor in tensors(config):
        ours = source.read(tensor)
        if ours.dtype != dtype:
            with np.errstate(over="ignore"):
                ours = require_finite(ours.astype(dtype), f"{tensor.ours} as {dtype.name}")
        yield tensor, ours
        report(ours.nbytes)
