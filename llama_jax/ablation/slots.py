"""Which part of this host each worker of a study gets: one processor core, or an equal share of the accelerators."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from llama_jax.errors import ConfigError
from llama_jax.parallel.xla_flags import accelerator_platforms


def usable_cores() -> list[int]:
    """Processor cores that this process may run on; empty where the system cannot tell (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def number_of_jobs(asked: int) -> int:
    """Workers at one time on this host: `asked`; or, where that is 0, one per core on CPU and one in all on accelerators.

    Raises ConfigError where there are not as many accelerators as workers.
    """
    if asked < 0:
        raise ConfigError(f"--jobs must be positive, or 0 for as many as the machine allows, got {asked}.")
    platforms = accelerator_platforms()
    if not platforms:
        return asked or len(usable_cores()) or os.cpu_count() or 1
    if "tpu" in platforms and asked > 1:
        raise ConfigError(f"--jobs {asked}: one process takes all TPU chips of a host; leave --jobs out.")
    if asked > 1 and asked > len(_gpus()):
        raise ConfigError(f"--jobs {asked} is more than this host's {len(_gpus())} GPU(s), of which every job needs one.")
    return max(asked, 1)


def least_used_core(cores: list[int], used: Iterable[int]) -> list[int]:
    """The core that fewest workers keep to, in a list; empty on accelerators and where cores are not known."""
    if not cores or accelerator_platforms():
        return []
    counts = Counter(used)
    return [min(cores, key=lambda core: counts[core])]


def worker_environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of worker number `slot` of `jobs`: that of this process, and its share of several GPUs."""
    gpus = _gpus() if jobs > 1 and accelerator_platforms() else []
    share = len(gpus) // jobs
    shown = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot * share : (slot + 1) * share])} if gpus else {}
    return os.environ | {"PYTHONUNBUFFERED": "1"} | shown


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        return visible.split(",")
    return [str(number) for number in range(len([*Path("/dev").glob("nvidia[0-9]*")]))]
