"""The accelerators that a run can be planned for: a table of data sheet figures, each with its source."""

from dataclasses import dataclass
from typing import Literal

from llama_jax.parallel.hardware import PEAK_FLOPS


@dataclass(frozen=True, kw_only=True)
class CudaSpec:
    """What XLA's GPU compiler has to know of an NVIDIA card beside its memory; the values of XLA's own target specs."""

    capability: str
    """CUDA compute capability, such as "9.0"."""
    cores: int
    """Streaming multiprocessors."""
    fpus: int
    """Float32 units per streaming multiprocessor."""
    cache: int
    """Bytes of L2 cache."""
    clock: float
    """Clock rate in GHz."""
    shared: int
    """Bytes of shared memory per streaming multiprocessor."""
    features: str
    """XLA's name for the features that the major number of the capability does not imply."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One accelerator as jax counts devices: one GPU, or one TPU chip. Rates are per second, FLOPs without sparsity."""

    name: str
    """The name that --machine takes."""
    title: str
    """The maker's name; of a GPU also its device_kind in jax."""
    kind: Literal["gpu", "tpu"]
    bfloat16_flops: float
    """Peak FLOP/s of bfloat16 matmuls with float32 accumulation."""
    float32_flops: float
    """Peak FLOP/s of float32 matmuls as jax runs them by default: TF32 on NVIDIA, one bfloat16 pass on TPUs."""
    memory: int
    """Bytes of device memory."""
    memory_bandwidth: float
    """Bytes per second of device memory."""
    link_bandwidth: float
    """Bytes per second that one device sends to its neighbours: over NVLink inside a host, over ICI inside a TPU slice."""
    network_bandwidth: float
    """Bytes per second that one device sends to other hosts (inside a TPU slice that is ICI again)."""
    link_devices: int
    """Devices that the fast links join: the GPUs of a host, or the chips of the largest TPU slice."""
    chips_per_host: int
    watts: float | None
    """Power for the energy formula: of GPUs the thermal design power, as in the paper; of TPUs the mean that Google measured;
    None where nothing is published."""
    source: str
    """Where the figures are from."""
    matmul_share: float = 0.8
    """Share of `bfloat16_flops` that one large matmul reaches: measured on H100 and H200 (798 and 790 of 989 TFLOP/s at 8192^3,
    random numbers), and assumed for the others."""
    cores_per_chip: int = 1
    """Cores per chip, which the cloud's own names count (v4-2048 has 2,048 cores on 1,024 chips); `--machine NAME:COUNT` counts
    chips."""
    dimensions: int = 0
    """Dimensions of a TPU slice's torus."""
    reserved: int = 0
    """Bytes of a TPU's memory that libtpu keeps for itself."""
    cuda: CudaSpec | None = None
    """The compiler's description of an NVIDIA GPU; None for a TPU."""

    @property
    def capability(self) -> str:
        """CUDA compute capability; empty for a TPU."""
        return self.cuda.capability if self.cuda else ""

    @property
    def usable(self) -> int:
        """Bytes of memory that a program can have.

        Three quarters of a GPU's: jax takes no more by default (XLA_PYTHON_CLIENT_MEM_FRACTION), and beyond 76% XLA begins to
        recompute matmuls to save memory. On TPUs, all that libtpu leaves.
        """
        return self.memory * 3 // 4 if self.kind == "gpu" else self.memory - self.reserved


_A100_SOURCE = (
    "A100 data sheet (312 TFLOP/s, TF32 156, NVLink 600 GB/s both ways, 400 W); DGX A100 (8 x 200 Gb/s per host); "
    "memory and its bandwidth from XLA's target spec of the card")
_HOPPER_SOURCE = (
    "H100/H200 data sheets (989 TFLOP/s, TF32 494.5, NVLink 900 GB/s both ways, 700 W); DGX H100/H200 (8 x 400 Gb/s per host); "
    "memory and its bandwidth from XLA's target spec of the card")
_B200_SOURCE = (
    "DGX B200 data sheet (per card: 2.25 PFLOP/s dense, TF32 1.125, NVLink 1.8 TB/s both ways, 8 x 400 Gb/s per host); "
    "1,000 W: HGX B200; memory and its bandwidth from XLA's target spec of the card")


def _tpu_source(version: str, power: str = "power is not published") -> str:
    return (f"cloud.google.com/tpu/docs/{version} (FLOP/s, memory and its bandwidth); ICI: 45 GB/s per link and direction, v5p "
            "and v6e 90 (jax-ml.github.io/scaling-book); memory left to programs: libtpu's own message for v5e, for others as "
            f"users quote it; {power}")


_A100 = CudaSpec(capability="8.0", cores=108, fpus=64, cache=41_943_040, clock=1.41, shared=167_936, features="NONE")
_HOPPER = CudaSpec(capability="9.0", cores=132, fpus=128, cache=52_428_800, clock=1.98, shared=233_472,
                   features="ACCELERATED_FEATURES")
_B200 = CudaSpec(capability="10.0", cores=148, fpus=128, cache=132_644_864, clock=1.965, shared=233_472,
                 features="ACCELERATED_FEATURES")
_GIB = 2**30

MACHINES: dict[str, Machine] = {machine.name: machine for machine in (
    Machine(
        name="a100-40g", title="NVIDIA A100-SXM4-40GB", kind="gpu", cuda=_A100,
        bfloat16_flops=PEAK_FLOPS["NVIDIA A100"], float32_flops=156e12, memory=42_331_013_120, memory_bandwidth=1.5552e12,
        link_bandwidth=300e9, network_bandwidth=25e9, link_devices=8, chips_per_host=8, watts=400.0, source=_A100_SOURCE),
    Machine(
        name="a100-80g", title="NVIDIA A100-SXM4-80GB", kind="gpu", cuda=_A100,
        bfloat16_flops=PEAK_FLOPS["NVIDIA A100"], float32_flops=156e12, memory=85_100_068_864, memory_bandwidth=2.03904e12,
        link_bandwidth=300e9, network_bandwidth=25e9, link_devices=8, chips_per_host=8, watts=400.0, source=_A100_SOURCE),
    Machine(
        name="h100", title="NVIDIA H100 80GB HBM3", kind="gpu", cuda=_HOPPER,
        bfloat16_flops=PEAK_FLOPS["NVIDIA H100"], float32_flops=494.5e12, memory=84_942_979_072, memory_bandwidth=3.35232e12,
        link_bandwidth=450e9, network_bandwidth=50e9, link_devices=8, chips_per_host=8, watts=700.0, source=_HOPPER_SOURCE),
    Machine(
        name="h200", title="NVIDIA H200", kind="gpu", cuda=_HOPPER,
        bfloat16_flops=PEAK_FLOPS["NVIDIA H200"], float32_flops=494.5e12, memory=151_397_597_184, memory_bandwidth=4.8e12,
        link_bandwidth=450e9, network_bandwidth=50e9, link_devices=8, chips_per_host=8, watts=700.0, source=_HOPPER_SOURCE),
    Machine(
        name="b200", title="NVIDIA B200", kind="gpu", cuda=_B200,
        bfloat16_flops=PEAK_FLOPS["NVIDIA B200"], float32_flops=1125e12, memory=191_514_411_008, memory_bandwidth=7.67232e12,
        link_bandwidth=900e9, network_bandwidth=50e9, link_devices=8, chips_per_host=8, watts=1000.0, source=_B200_SOURCE),
    Machine(
        name="v4", title="TPU v4", kind="tpu", cores_per_chip=2, dimensions=3, reserved=5 * _GIB // 4,
        bfloat16_flops=PEAK_FLOPS["TPU v4"], float32_flops=275e12, memory=32 * _GIB, memory_bandwidth=1.2288e12,
        link_bandwidth=270e9, network_bandwidth=270e9, link_devices=4096, chips_per_host=4, watts=170.0,
        source=_tpu_source("v4", "170 W: Jouppi et al. 2023 (arXiv 2304.01433), mean, 192 at most")),
    Machine(
        name="v5e", title="TPU v5e", kind="tpu", dimensions=2, reserved=_GIB // 4,
        bfloat16_flops=PEAK_FLOPS["TPU v5e"], float32_flops=197e12, memory=16 * _GIB, memory_bandwidth=0.819e12,
        link_bandwidth=180e9, network_bandwidth=180e9, link_devices=256, chips_per_host=4, watts=None,
        source=_tpu_source("v5e")),
    Machine(
        name="v5p", title="TPU v5p", kind="tpu", cores_per_chip=2, dimensions=3, reserved=_GIB * 26 // 100,
        bfloat16_flops=PEAK_FLOPS["TPU v5p"], float32_flops=459e12, memory=96 * _GIB, memory_bandwidth=2.765e12,
        link_bandwidth=540e9, network_bandwidth=540e9, link_devices=8960, chips_per_host=4, watts=None,
        source=_tpu_source("v5p")),
    Machine(
        name="v6e", title="TPU v6e", kind="tpu", dimensions=2, reserved=3 * _GIB // 4,
        bfloat16_flops=PEAK_FLOPS["TPU v6e"], float32_flops=918e12, memory=32 * _GIB, memory_bandwidth=1.64e12,
        link_bandwidth=360e9, network_bandwidth=360e9, link_devices=256, chips_per_host=4, watts=None,
        source=_tpu_source("v6e")),
)}
"""Every machine by the name that --machine takes."""

MACHINE_ALIASES = {"a100": "a100-80g", "a100-40": "a100-40g", "a100-80": "a100-80g", "h100-80g": "h100", "v5litepod": "v5e"}
"""Other names that --machine takes, and the one in MACHINES that each stands for."""
