"""`llama_jax convert` at work: from one folder of weights into another."""

from pathlib import Path

from llama_jax.cli.options import ConvertOptions
from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.pooled import PooledSource
from llama_jax.conversion.verify import verify_logits
from llama_jax.formats.base import STORED_DTYPES, WeightSource
from llama_jax.formats.open import open_source
from llama_jax.model.accounting import parameter_count
from llama_jax.terminal import progress_bar


def run_convert(asked: ConvertOptions) -> None:
    """Convert, and say what came out; raises DataError where --verify finds a difference that rounding does not explain."""
    opened = open_source(asked.source)
    source: WeightSource = PooledSource(opened, asked.num_kv_heads) if asked.num_kv_heads else opened
    dtype = STORED_DTYPES[asked.dtype] if asked.dtype else source.dtype
    total = parameter_count(source.config) * dtype.itemsize
    print(f"{asked.source}: {opened.format}, {parameter_count(opened.config):,} parameters, {opened.dtype.name}")
    target = Path(asked.target)
    with progress_bar("weights", lambda done, seconds: _rate(done, seconds, total=total), total=total) as advance:
        tokenizer = convert_weights(source, target, asked.to, dtype=asked.dtype, max_length=asked.max_length,
                                    meta_shards=asked.meta_shards, report=advance)
    print(f"tokenizer: {tokenizer or 'none: there is none in the source'}")
    print(f"{target}: {asked.to}, {total:,} bytes of {dtype.name}")
    if asked.num_kv_heads:
        print(f"kv heads: {opened.config.num_kv_heads} -> {asked.num_kv_heads}; train a little before use (docs/CONVERT.md); "
              f"{parameter_count(source.config):,} parameters are left")
    if asked.verify:
        print(f"verify: {verify_logits(opened, open_source(target), pooled=asked.num_kv_heads > 0)}")


def _rate(done: float, seconds: float, *, total: int) -> str:
    """Bytes converted of all, and bytes per second."""
    scale, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    pace = done / 1e6 / max(seconds, 1e-9)
    return f"{done / scale:,.1f} of {total / scale:,.1f} {unit} ({done / total:.0%}), {pace:,.0f} MB/s"
