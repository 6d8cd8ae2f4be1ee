"""The command that converts, at work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from llama_jax.convert.convert import convert
from llama_jax.convert.options import Convert
from llama_jax.convert.pooled import PooledSource
from llama_jax.convert.verify import verify
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import STORED_DTYPES, WeightSource
from llama_jax.formats.open import open_source
from llama_jax.model.accounting import parameter_count

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is printed where there is no terminal."""
ROUNDING = 1e-4
"""Largest error of a logit that a conversion without loss may show."""


def run_convert(asked: Convert) -> None:
    """Convert, and say what came out."""
    if asked.meta_shards < 1 or asked.max_length < 0 or asked.num_kv_heads < 0:
        raise ConfigError("meta_shards must be positive, max_length and num_kv_heads at least 0.")
    if asked.meta_shards > 1 and asked.to != "meta":
        raise ConfigError(f"--meta_shards divides Meta folders; --to is {asked.to}.")
    opened = open_source(asked.source)
    source: WeightSource = PooledSource(opened, asked.num_kv_heads) if asked.num_kv_heads else opened
    dtype = STORED_DTYPES[asked.dtype] if asked.dtype else source.dtype
    total = parameter_count(source.config) * dtype.itemsize
    print(f"{asked.source}: {opened.format}, {parameter_count(opened.config):,} parameters, {opened.dtype.name}")
    target = Path(asked.target)
    with progress(total) as report:
        tokenizer = convert(source, target, asked.to, dtype=asked.dtype, max_length=asked.max_length,
                            meta_shards=asked.meta_shards, report=report)
    print(f"tokenizer: {tokenizer or 'none: there is none in the source'}")
    print(f"{target}: {asked.to}, {total:,} bytes of {dtype.name}")
    if asked.num_kv_heads:
        print(f"kv heads: {opened.config.num_kv_heads} -> {asked.num_kv_heads}; train a little before use (docs/CONVERT.md); "
              f"{parameter_count(source.config):,} parameters are left")
    if asked.verify:
        difference = verify(opened, open_source(target))
        print(f"verify: {difference}")
        lossless = dtype in (source.dtype, STORED_DTYPES["float32"]) and not asked.num_kv_heads
        if lossless and not difference.largest <= ROUNDING:
            raise DataError(f"{target} is not what {asked.source} is, though nothing was rounded or pooled: {difference}.")


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line now and then; the result is called with how many bytes more are done."""
    if sys.stderr.isatty():
        columns = (TextColumn("weights"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("weights", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, printed = 0, time.perf_counter()

    def plain(count: int) -> None:
        nonlocal done, printed
        done += count
        if time.perf_counter() - printed >= SECONDS_BETWEEN_LINES:
            printed = time.perf_counter()
            print(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB ({done / total:.0%})", file=sys.stderr, flush=True)

    yield plain
