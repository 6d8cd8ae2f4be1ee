"""The compiler flags for each platform, set before jax starts its devices."""

import os
from importlib.util import find_spec
from pathlib import Path

OVERLAP_FLAGS = {
    "gpu": ("XLA_FLAGS", {
        "--xla_gpu_enable_latency_hiding_scheduler": "true",
        "--xla_gpu_enable_while_loop_double_buffering": "true",  # a layer's collectives under the next layer's compute
        "--xla_gpu_enable_pipelined_all_gather": "true",
        "--xla_gpu_enable_pipelined_reduce_scatter": "true",
        "--xla_gpu_enable_pipelined_all_reduce": "true",
        "--xla_gpu_all_gather_combine_threshold_bytes": "134217728",
        "--xla_gpu_reduce_scatter_combine_threshold_bytes": "134217728",
        "--xla_gpu_all_reduce_combine_threshold_bytes": "134217728",
    }),
    "tpu": ("LIBTPU_INIT_ARGS", {
        "--xla_tpu_enable_async_collective_fusion": "true",
        "--xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
        "--xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
        "--xla_tpu_overlap_compute_collective_tc": "true",
        "--xla_tpu_enable_data_parallel_all_reduce_opt": "true",
        "--xla_tpu_data_parallel_opt_different_sized_ops": "true",
        "--xla_enable_async_all_gather": "true",
    }),
}
"""Platform -> the variable its compiler reads, and the flags that hide communication behind computation."""


def platforms() -> list[str]:
    """Accelerators of this machine, found without starting jax's devices: what JAX_PLATFORMS says, else what is there."""
    if wanted := os.environ.get("JAX_PLATFORMS", ""):
        return [{"cuda": "gpu"}.get(name, name) for name in wanted.split(",") if {"cuda": "gpu"}.get(name, name) in OVERLAP_FLAGS]
    gpu = any(map(find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))) and Path("/dev/nvidiactl").exists()
    tpu = find_spec("libtpu") and any(Path(file).exists() for file in ("/dev/accel0", "/dev/vfio/0"))
    return ["gpu"] * bool(gpu) + ["tpu"] * bool(tpu)


def set_flags() -> None:
    """Add this machine's OVERLAP_FLAGS to the environment; a flag that is there already keeps the value it has."""
    for platform in platforms():
        variable, flags = OVERLAP_FLAGS[platform]
        present = os.environ.get(variable, "").split()
        names = {flag.partition("=")[0] for flag in present}
        present += [f"{name}={value}" for name, value in flags.items() if name not in names]
        os.environ[variable] = " ".join(present)


def flags_in_use() -> list[str]:
    """Lines for the log."""
    return [f"{variable}: {os.environ[variable]}" for variable, _ in OVERLAP_FLAGS.values() if os.environ.get(variable)]
