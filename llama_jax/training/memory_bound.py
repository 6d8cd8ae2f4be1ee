"""Refuses a run that can never fit: what its parameters, their optimizer state and its batches need at the very least."""

import math
import os

import jax
from jax.sharding import Mesh

from llama_jax.config import Config
from llama_jax.errors import ConfigError
from llama_jax.model.accounting import parameter_count

_MOMENT_BYTES = {"float32": 4, "bfloat16": 2}


def check_memory(config: Config, mesh: Mesh) -> None:
    """Raise ConfigError where the run needs more memory than its devices have, before an allocator fails at it.

    What is counted is far from all: parameters and AdamW's two moments, sharded as the mesh says, and the ids of one batch.
    `llama-jax plan` says what a run really needs.
    """
    ways = math.prod(size for axis, size in mesh.shape.items() if axis != "data")
    parameters = parameter_count(config.model)
    state = parameters * (4 + 2 * _MOMENT_BYTES[config.optimizer.moment_dtype]) // ways
    rows = max(1, config.training.batch_size * config.data.sequence_length * 4 // mesh.size)
    devices = jax.local_devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    memory = limit or _host_bytes() // len(devices)
    if memory and max(state, rows) > memory:
        what = f"{parameters:,} parameters with their optimizer state" if state > rows else (
            f"batches of {config.training.batch_size:,} x {config.data.sequence_length:,} tokens")
        raise ConfigError(f"{what} need at least {max(state, rows) / 2**30:,.1f} GiB on each device, and there are "
                          f"{memory / 2**30:,.1f} GiB; `llama-jax plan` shows what fits.")


def _host_bytes() -> int:
    """Memory of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
