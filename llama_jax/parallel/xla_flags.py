"""XLA compiler flags that overlap communication with computation, set in the environment before jax starts its devices."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

OVERLAP_FLAGS = {
    "gpu": ("XLA_FLAGS", {
        "--xla_gpu_enable_latency_hiding_scheduler": "true",
        "--xla_gpu_enable_while_loop_double_buffering": "true",  # overlaps a layer's collectives with the next layer
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
"""Platform -> (environment variable that its compiler reads, flag -> value)."""

_ORDER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"


def accelerator_platforms() -> list[str]:
    """The accelerator platforms of this machine ("gpu", "tpu"), found without starting jax's devices.

    Those that JAX_PLATFORMS names where it is set, else those whose driver and jax plugin are present.
    """
    if wanted := os.environ.get("JAX_PLATFORMS", ""):
        names = ["gpu" if name == "cuda" else name for name in wanted.split(",")]
        return [name for name in names if name in OVERLAP_FLAGS]
    found = []
    if Path("/dev/nvidiactl").exists() and (find_spec("jax_cuda12_plugin") or find_spec("jax_cuda13_plugin")):
        found.append("gpu")
    if find_spec("libtpu") and (Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()):
        found.append("tpu")
    return found


def set_xla_flags() -> None:
    """Add this machine's OVERLAP_FLAGS to the environment; a flag that is set already keeps its value."""
    for platform in accelerator_platforms():
        variable, flags = OVERLAP_FLAGS[platform]
        present = os.environ.get(variable, "").split()
        names = {flag.partition("=")[0] for flag in present}
        present += [f"{name}={value}" for name, value in flags.items() if name not in names]
        os.environ[variable] = " ".join(present)


def set_inference_flags() -> None:
    """Where the CPU computes, have it do so in the order that needs least memory; a flag that is set already keeps its value.

    By itself XLA prepares many layers' matrices at once, so that a model in 8 bits took three times its bytes; the time is the
    same. Later versions of jax than were tried may not know the flag, and would end with an error.
    """
    present = os.environ.get("XLA_FLAGS", "")
    known = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 13)
    if known and not accelerator_platforms() and _ORDER_FLAG not in present:
        os.environ["XLA_FLAGS"] = f"{present} {_ORDER_FLAG}=false".strip()


def describe_xla_flags() -> list[str]:
    """Log lines that show the environment variables with compiler flags, one line per variable that is set."""
    return [f"{variable}: {os.environ[variable]}" for variable, _ in OVERLAP_FLAGS.values() if os.environ.get(variable)]
