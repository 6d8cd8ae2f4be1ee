"""The shapes that benchmarks measure, with random weights."""

from llama_jax.config import ModelConfig
from tests.golden.small import random_params

SHAPES = {
    "S": ModelConfig(dim=288, num_layers=6, num_heads=6, num_kv_heads=6, ffn_dim=768, max_length=256),
    "M": ModelConfig(dim=768, num_layers=12, num_heads=12, num_kv_heads=12, ffn_dim=2048, max_length=512),
}
"""As in train_cpu.py: small enough for two cores, large enough to tell."""


def random_model(shape: str) -> tuple[ModelConfig, dict]:
    """(config, float32 numpy parameters)."""
    config = SHAPES[shape]
    return config, random_params(config, 0)
