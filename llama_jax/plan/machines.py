"""The accelerators a plan can be made for: a table of figures, each with its source."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from llama_jax.config import nearest
from llama_jax.errors import ConfigError


@dataclass(frozen=True)
class Cuda:
    """What the compiler has to know of an NVIDIA GPU beside its memory; values as in XLA's own specs of these cards."""

    capability: str
    """Compute capability."""
    cores: int
    """Streaming multiprocessors."""
    fpus: int
    """Float32 units in each of them."""
    cache: int
    """Bytes of L2 cache."""
    clock: float
    """GHz."""
    shared: int
    """Bytes of shared memory that a multiprocessor has."""
    features: str
    """XLA's name for what the capability's first number alone does not say."""


_AMPERE = Cuda("8.0", 108, 64, 41_943_040, 1.41, 167_936, "NONE")
_HOPPER = Cuda("9.0", 132, 128, 52_428_800, 1.98, 233_472, "ACCELERATED_FEATURES")
_BLACKWELL = Cuda("10.0", 148, 128, 132_644_864, 1.965, 233_472, "ACCELERATED_FEATURES")


@dataclass(frozen=True)
class Machine:
    """One accelerator, as jax counts devices: a GPU, or a TPU chip."""

    name: str
    """How --machine calls it."""
    title: str
    """What its maker calls it; for a GPU also what jax calls it."""
    kind: Literal["gpu", "tpu"]
    bfloat16: float
    """Dense FLOP/s in bfloat16 with float32 accumulation."""
    float32: float
    """Dense FLOP/s of float32 matmuls as jax runs them by default: TF32 on NVIDIA, one bfloat16 pass on TPUs."""
    memory: int
    """Bytes of device memory."""
    bandwidth: float
    """Bytes/s of device memory."""
    link: float
    """Bytes/s that one device sends to its neighbours: NVLink inside a host, ICI inside a TPU slice."""
    network: float
    """Bytes/s that one device sends between hosts (a TPU slice: its links again)."""
    link_devices: int
    """Devices that `link` joins: those of a host, or the largest slice."""
    chips_per_host: int
    watts: float | None
    """Power for the energy formula: the paper's thermal design power for GPUs, Google's measured mean for TPUs, None where
    nothing is published."""
    source: str
    """Where the figures are from."""
    matmul_share: float = 0.8
    """Share of `bfloat16` that one large matmul reaches: measured on H100 and H200 (798 and 790 of 989 TFLOP/s at 8192^3,
    random numbers); taken over for the others."""
    cores_per_chip: int = 1
    """What the cloud's own names count (v4-2048 has 2,048 cores on 1,024 chips); machines here count chips."""
    dimensions: int = 0
    """Of a TPU's torus."""
    reserved: int = 0
    """Bytes of a TPU's memory that libtpu keeps for itself."""
    cuda: Cuda | None = None
    """Of an NVIDIA GPU."""

    @property
    def capability(self) -> str:
        """CUDA compute capability; empty for a TPU."""
        return self.cuda.capability if self.cuda else ""

    @property
    def usable(self) -> int:
        """Bytes a program can have. Of a GPU three quarters: jax takes no more by default (XLA_PYTHON_CLIENT_MEM_FRACTION), and
        beyond 76% XLA begins to compute matmuls again to save memory."""
        return self.memory * 3 // 4 if self.kind == "gpu" else self.memory - self.reserved


_NVIDIA = {
    "a100": "A100 data sheet (312 TFLOP/s, TF32 156, NVLink 600 GB/s both ways, 400 W); DGX A100 (8 x 200 Gb/s a host); "
            "memory and its bandwidth from XLA's target spec of the card",
    "hopper": "H100/H200 data sheets (989 TFLOP/s, TF32 494.5, NVLink 900 GB/s both ways, 700 W); DGX H100/H200 (8 x 400 Gb/s "
              "a host); memory and its bandwidth from XLA's target spec of the card",
    "b200": "DGX B200 data sheet (a card: 2.25 PFLOP/s dense, TF32 1.125, NVLink 1.8 TB/s both ways, 8 x 400 Gb/s a host); "
            "1,000 W: HGX B200; memory and its bandwidth from XLA's target spec of the card",
}


def _tpu(version: str) -> str:
    return (f"cloud.google.com/tpu/docs/{version} (FLOP/s, memory and its bandwidth); ICI: 45 GB/s a link and direction, v5p and "
            "v6e 90 (jax-ml.github.io/scaling-book); memory left to programs: libtpu's own words for v5e, for others as users "
            "quote it")


_GIB = 2**30

MACHINES: dict[str, Machine] = {machine.name: machine for machine in (
    Machine("a100-40g", "NVIDIA A100-SXM4-40GB", "gpu", 312e12, 156e12, 42_331_013_120, 1.5552e12, 300e9, 25e9,
            8, 8, 400.0, _NVIDIA["a100"], cuda=_AMPERE),
    Machine("a100-80g", "NVIDIA A100-SXM4-80GB", "gpu", 312e12, 156e12, 85_100_068_864, 2.03904e12, 300e9, 25e9,
            8, 8, 400.0, _NVIDIA["a100"], cuda=_AMPERE),
    Machine("h100", "NVIDIA H100 80GB HBM3", "gpu", 989e12, 494.5e12, 84_942_979_072, 3.35232e12, 450e9, 50e9,
            8, 8, 700.0, _NVIDIA["hopper"], cuda=_HOPPER),
    Machine("h200", "NVIDIA H200", "gpu", 989e12, 494.5e12, 151_397_597_184, 4.8e12, 450e9, 50e9,
            8, 8, 700.0, _NVIDIA["hopper"], cuda=_HOPPER),
    Machine("b200", "NVIDIA B200", "gpu", 2250e12, 1125e12, 191_514_411_008, 7.67232e12, 900e9, 50e9,
            8, 8, 1000.0, _NVIDIA["b200"], cuda=_BLACKWELL),
    Machine("v4", "TPU v4", "tpu", 275e12, 275e12, 32 * _GIB, 1.2288e12, 270e9, 270e9, 4096, 4, 170.0,
            _tpu("v4") + "; 170 W: Jouppi et al. 2023 (arXiv 2304.01433), mean, 192 at most", cores_per_chip=2, dimensions=3,
            reserved=5 * _GIB // 4),
    Machine("v5e", "TPU v5e", "tpu", 197e12, 197e12, 16 * _GIB, 0.819e12, 180e9, 180e9, 256, 4, None,
            _tpu("v5e") + "; power is not published", dimensions=2, reserved=_GIB // 4),
    Machine("v5p", "TPU v5p", "tpu", 459e12, 459e12, 96 * _GIB, 2.765e12, 540e9, 540e9, 8960, 4, None,
            _tpu("v5p") + "; power is not published", cores_per_chip=2, dimensions=3, reserved=_GIB * 26 // 100),
    Machine("v6e", "TPU v6e", "tpu", 918e12, 918e12, 32 * _GIB, 1.64e12, 360e9, 360e9, 256, 4, None,
            _tpu("v6e") + "; power is not published", dimensions=2, reserved=3 * _GIB // 4),
)}
"""By the name --machine takes."""

ALIASES = {"a100": "a100-80g", "a100-40": "a100-40g", "a100-80": "a100-80g", "h100-80g": "h100", "v5litepod": "v5e"}


@dataclass(frozen=True)
class Fleet:
    """So many of one machine."""

    machine: Machine
    count: int

    @property
    def title(self) -> str:
        """For people, with what a count means."""
        m = self.machine
        if m.cores_per_chip > 1:
            return f"{self.count:,} {m.title} chips ({m.name}-{self.count * m.cores_per_chip} where the cloud counts cores)"
        return f"{self.count:,} {m.title}"

    @property
    def hosts(self) -> int:
        """Hosts they stand in."""
        return -(-self.count // self.machine.chips_per_host)


def parse_machine(text: str) -> Fleet:
    """NAME:COUNT, COUNT in devices as jax counts them (GPUs, TPU chips); a TPU also as its cloud names it, v4-2048 in cores.

    Raises ConfigError for an unknown name, or a count that there is not.
    """
    known = f"known machines: {', '.join(MACHINES)}"
    match = re.fullmatch(r"(.+?)(:|-)(\d+)", text.strip().lower())
    separator = match[2] if match else ""
    if not match or (separator == "-" and not re.fullmatch(r"v\d.*", match[1])):
        raise ConfigError(f"--machine wants NAME:COUNT, such as h100:8 or v4:1024, got {text!r}; {known}.")
    name, number = ALIASES.get(match[1], match[1]), int(match[3])
    if name not in MACHINES:
        raise ConfigError(f"unknown machine {match[1]!r}{nearest(match[1], MACHINES)} ({known})".rstrip(".") + ".")
    machine = MACHINES[name]
    cores = machine.cores_per_chip if separator == "-" else 1
    if number < 1 or number % cores:
        raise ConfigError(f"--machine {text}: the count must be a positive multiple of {cores}.")
    fleet = Fleet(machine, number // cores)
    if machine.kind == "tpu":
        slice_shape(fleet)
    elif fleet.count > machine.chips_per_host and fleet.count % machine.chips_per_host:
        raise ConfigError(f"--machine {text}: {fleet.count} is not a whole number of hosts of {machine.chips_per_host}.")
    return fleet


def slice_shape(fleet: Fleet) -> tuple[int, ...]:
    """The torus of a TPU slice, its sides as even as they can be; raises ConfigError where no slice has so many chips.

    Sides are 1, 2 or multiples of 4; v5e and v6e have two of them, v4 and v5p three.
    """
    machine, count = fleet.machine, fleet.count
    sides = [side for side in (1, 2, *range(4, 129, 4)) if count % side == 0]
    shapes = [(a, count // a) for a in sides] if machine.dimensions == 2 else [
        (a, b, count // (a * b)) for a in sides for b in sides if count % (a * b) == 0]
    shapes = [shape for shape in shapes if list(shape) == sorted(shape) and shape[-1] in sides]
    if machine.dimensions == 3:  # the flat slices of one host row are written 2x2x1, not 1x2x2
        shapes = [shape for shape in shapes if shape[0] > 1 or shape in ((1, 1, 1), (1, 2, 2))]
    if count > machine.link_devices or not shapes:
        raise ConfigError(f"there is no {machine.title} slice of {count:,} chips: at most {machine.link_devices:,}, in a "
                          f"torus of {machine.dimensions} sides that are 1, 2 or multiples of 4.")
    best = min(shapes, key=lambda shape: max(shape) / min(shape))
    return tuple(sorted(best, reverse=best[0] == 1))


def describe_gpu(machine: Machine) -> str:
    """The text proto by which XLA knows the card (GpuTargetConfigProto)."""
    cuda = machine.cuda
    major, _ = cuda.capability.split(".")
    fields = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 49_152,
        "shared_memory_per_core": cuda.shared, "threads_per_core_limit": 2048, "core_count": cuda.cores,
        "fpus_per_core": cuda.fpus, "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535, "memory_bandwidth": int(machine.bandwidth), "l2_cache_size": cuda.cache,
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


def topology_name(fleet: Fleet) -> str:
    """What jax.experimental.topologies calls it: v4:8x8x16, or 1x256x8 (partitions, hosts, devices a host)."""
    if fleet.machine.kind == "tpu":
        return f"{fleet.machine.name}:{'x'.join(map(str, slice_shape(fleet)))}"
    return f"1x{fleet.hosts}x{math.ceil(fleet.count / fleet.hosts)}"
