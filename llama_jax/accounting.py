"""Parameters, FLOPs and peaks: arithmetic on a ModelConfig; numbers and seconds as people read them."""

import time

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig

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
"""Dense bfloat16 FLOP/s by the start of jax's device_kind, from the makers' data sheets."""


def parameter_count(config: ModelConfig) -> int:
    """All parameters of a model."""
    c = config
    embeddings = c.vocab_size * c.dim * (1 if c.tied_embeddings else 2)
    return embeddings + c.num_layers * (_layer_matmul_parameters(c) + 2 * c.dim) + c.dim


def _layer_matmul_parameters(c: ModelConfig) -> int:
    return c.dim * c.head_size * (2 * c.num_heads + 2 * c.num_kv_heads) + 3 * c.dim * c.ffn_dim


MFU_FORMULA = (
    "MFU = tokens/s x FLOPs/token / peak, FLOPs/token = 6 x matmul parameters + 6 x layers x length x heads x head width "
    "(causal half of attention)"
)


def train_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward and backward FLOPs of one token in rows of `length`; recomputation is not counted (model FLOPs)."""
    c = config
    matmul = c.num_layers * _layer_matmul_parameters(c) + c.dim * c.vocab_size
    return 6.0 * matmul + 6.0 * c.num_layers * length * c.num_heads * c.head_size


def peak_flops(device: jax.Device, dtype: str) -> tuple[float, str]:
    """(FLOP/s, where the figure is from): the data sheet's for known accelerators, else a matmul measured now."""
    for kind in sorted(PEAK_FLOPS, key=len, reverse=True):
        if device.device_kind.startswith(kind):
            return PEAK_FLOPS[kind], f"{kind} data sheet, bfloat16"
    return measured_flops(dtype), f"measured 1024^3 {dtype} matmul"


def measured_flops(dtype: str) -> float:
    """FLOP/s of the best of five square matmuls of random numbers on the default device."""
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


def compact(value: float, form: str = "") -> str:
    """A number in a format; by its power of ten where that takes more than 12 characters, as perplexities that diverge do."""
    text = format(value, form)
    return text if len(text) <= 12 else format(value, ".2e")


def clock(seconds: float) -> str:
    """Seconds as people read them: 1:15, 1:06:40, 3 d 4 h; a question mark for what is negative or not finite."""
    if not 0 <= seconds < float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
