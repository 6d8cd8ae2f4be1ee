"""Peak FLOP/s of accelerators, from their data sheets or measured."""

import time

import jax
import jax.numpy as jnp

PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
"""Start of jax's device_kind -> dense bfloat16 FLOP/s per device, from the manufacturer's data sheet."""


def peak_flops(device: jax.Device, dtype: str) -> tuple[float, str]:
    """Peak FLOP/s of a device and the source of that figure: the data sheet if it is listed, else a matmul measured now."""
    for kind in sorted(PEAK_FLOPS, key=len, reverse=True):
        if device.device_kind.startswith(kind):
            return PEAK_FLOPS[kind], f"{kind} data sheet, bfloat16"
    return measured_flops(dtype), f"measured 1024^3 {dtype} matmul"


def measured_flops(dtype: str) -> float:
    """Measure FLOP/s on the default device, as the best of five 1024 x 1024 matrix products in `dtype`."""
    size = 1024
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
