"""Parameters and FLOPs of a model, counted over `model.tree`."""

from llama_jax.config import ModelConfig
from llama_jax.model.tree import Leaf, parameters


def parameter_count(config: ModelConfig) -> int:
    """All parameters of a model."""
    return sum(leaf.size for leaf in parameters(config).values())


def layer_matrices(config: ModelConfig) -> list[Leaf]:
    """The matrices of one layer, each without the layers' axis."""
    return [leaf.of_layer for leaf in parameters(config).values() if leaf.stacked and leaf.is_matrix]


def head_parameters(config: ModelConfig) -> int:
    """Parameters of the output head's matrix product, D x V, tied or not."""
    return config.dim * config.vocab_size


def layer_matrix_parameters(config: ModelConfig) -> int:
    """Parameters of the matrix products of one layer."""
    return sum(leaf.size for leaf in layer_matrices(config))


def attention_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward FLOPs of one token in rows of `length`, in the products of queries with keys and of weights with values.

    All layers, and the causal half of the T x T products alone.
    """
    return 2.0 * config.num_layers * length * config.num_heads * config.head_size


MFU_FORMULA = (
    "MFU = tokens/s x FLOPs/token / peak, FLOPs/token = 6 x matmul parameters + 6 x layers x length x heads x head width "
    "(causal half of attention)"
)


def train_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward and backward FLOPs of one token in rows of `length`; recomputation is not counted (model FLOPs)."""
    matmul = config.num_layers * layer_matrix_parameters(config) + head_parameters(config)
    return 6.0 * matmul + 3.0 * attention_flops_per_token(config, length)
