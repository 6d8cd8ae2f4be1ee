"""Small random LLaMAs and batches made by numpy alone: the common ground of golden values and live comparisons."""

from pathlib import Path

import numpy as np

from llama_jax.config import ComputeConfig, ModelConfig

FLOAT32 = ComputeConfig(dtype="float32")
"""How tests compute: everything in float32."""

CONFIGS = {
    "mha": ModelConfig(vocab_size=96, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, ffn_dim=64, max_length=64,
                       rope_theta=10_000.0),
    "gqa": ModelConfig(vocab_size=96, dim=32, num_layers=3, num_heads=4, num_kv_heads=2, ffn_dim=48, max_length=64,
                       rope_theta=500_000.0, norm_eps=1e-6),
}

STEPS, BATCH, LENGTH = 50, 4, 32
PEAK_LR, WARMUP = 1e-2, 5


def random_params(config: ModelConfig, seed: int) -> dict:
    """float32 parameters in our tree, larger than an initialisation so that every part matters."""
    rng = np.random.default_rng(seed)
    D, N, K, H, F, L, V = (config.dim, config.num_heads, config.num_kv_heads, config.head_size, config.ffn_dim,
                           config.num_layers, config.vocab_size)

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    def scale(*shape: int) -> np.ndarray:
        return (1 + 0.2 * rng.standard_normal(shape)).astype(np.float32)

    return {
        "embedding": normal(V, D),
        "layers": {
            "attention_norm": {"scale": scale(L, D)},
            "attention": {"wq": normal(L, D, N, H), "wk": normal(L, D, K, H), "wv": normal(L, D, K, H),
                          "wo": normal(L, N, H, D)},
            "feedforward_norm": {"scale": scale(L, D)},
            "feedforward": {"w_gate": normal(L, D, F), "w_up": normal(L, D, F), "w_down": normal(L, F, D)},
        },
        "final_norm": {"scale": scale(D)},
        "head": normal(D, V),
    }


def random_rows(config: ModelConfig, seed: int, batch: int = BATCH, length: int = LENGTH) -> np.ndarray:
    """int32 (batch, length + 1) tokens with some structure to learn: each token is likely to follow its predecessor."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, config.vocab_size, (batch, length + 1))
    follow = rng.random(rows.shape) < 0.7
    for t in range(1, length + 1):
        rows[:, t] = np.where(follow[:, t], (rows[:, t - 1] * 5 + 1) % config.vocab_size, rows[:, t])
    return rows.astype(np.int32)


def golden() -> dict:
    """The values of transformers.npz."""
    return np.load(Path(__file__).with_name("transformers.npz"))
