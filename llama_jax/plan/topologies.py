"""Compile-only devices: accelerators that are not here, described to jax and XLA so that programs compile for them."""

import math
from typing import Any

from llama_jax.plan.fleet import Fleet, torus_shape
from llama_jax.plan.machines import Machine


def compile_only_devices(fleet: Fleet) -> list[Any]:
    """Devices of `fleet` that programs can be compiled for but not run on. For GPUs, changes this process: see below."""
    from jax.experimental import topologies

    name = topology_name(fleet)
    if fleet.machine.kind == "tpu":
        options: dict[str, Any] = {}
        if fleet.machine.name == "v4":
            options["chip_config_name"] = "megacore"  # else jax counts v4's two cores as two devices
        if fleet.count == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        return list(topologies.get_topology_desc(name, platform="tpu", **options).devices)
    _fix_compute_capability(fleet.machine)
    description = gpu_target_config(fleet.machine)
    return list(topologies.get_topology_desc("", platform="cuda", target_config=description, topology=name).devices)


def topology_name(fleet: Fleet) -> str:
    """The fleet's name in jax.experimental.topologies: v4:8x8x16, or 1x256x8 (partitions, hosts, devices per host)."""
    if fleet.machine.kind == "tpu":
        return f"{fleet.machine.name}:{'x'.join(map(str, torus_shape(fleet)))}"
    return f"1x{fleet.hosts}x{math.ceil(fleet.count / fleet.hosts)}"


def gpu_target_config(machine: Machine) -> str:
    """The text proto that describes a card to XLA (GpuTargetConfigProto)."""
    cuda = machine.cuda
    major, _ = cuda.capability.split(".")
    fields = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 49_152,
        "shared_memory_per_core": cuda.shared, "threads_per_core_limit": 2048, "core_count": cuda.cores,
        "fpus_per_core": cuda.fpus, "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535, "memory_bandwidth": int(machine.memory_bandwidth), "l2_cache_size": cuda.cache,
        "clock_rate_ghz": cuda.clock, "device_memory_size": machine.memory, "shared_memory_per_block_optin": cuda.shared - 1024,
        "registers_per_core_limit": 65_536, "registers_per_block_limit": 65_536, "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024, "thread_dim_limit_z": 64,
    } | {f"{name}_version": '"12.9.0"' for name in ("runtime", "driver", "compile_time_toolkit")}
    lines = [f"  {name}: {value}" for name, value in fields.items()]
    return "\n".join([
        "gpu_device_info {", *lines, '  dnn_version: "9.10.0"',
        f"  cuda_compute_capability {{ major: {major} feature_extension: {cuda.features} }}", f'  name: "{machine.title}"', "}",
        'platform_name: "CUDA"', "dnn_version_info { major: 9 minor: 10 }", f'device_description_str: "{machine.title}"', "",
    ])


def _fix_compute_capability(machine: Machine) -> None:
    """Have jax's cuDNN attention see the compute capability of `machine` in this process.

    jax asks the GPU that is present for it, and there is none.
    """
    from jax._src.cudnn import fused_attention_stablehlo

    def as_numbers(capability: str) -> tuple[int, ...]:
        return tuple(int(part) for part in capability.split("."))

    fused_attention_stablehlo.check_compute_capability = lambda least: as_numbers(machine.capability) >= as_numbers(least)
    fused_attention_stablehlo.is_cuda_compute_capability_equal = lambda other: machine.capability == other
