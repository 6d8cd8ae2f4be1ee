"""Parameters and FLOPs of a model, by arithmetic on its configuration."""

from llama_jax.config import ModelConfig


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
