"""Number of parameters and of FLOPs per token of a model, counted from the description in `model.tree`."""

from llama_jax.config import ModelConfig
from llama_jax.model.positions import position_encoding
from llama_jax.model.tree import LAYERS, Leaf, parameters


def parameter_count(config: ModelConfig) -> int:
    """The number of parameters of a model, embeddings and norms included."""
    return sum(leaf.size for leaf in parameters(config).values())


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """The number of parameters in embedding, attention, feed-forward layers, norms and output head, biases counted with theirs.

    The head of a model with tied embeddings has none.
    """
    counts = dict.fromkeys(("embedding", "attention", "feed-forward", "norms", "head"), 0)
    for name, leaf in parameters(config).items():
        counts[_part_of(name)] += leaf.size
    return counts


def _part_of(name: str) -> str:
    """The part of the model that a parameter belongs to; what a position encoding adds to the embedding counts with it."""
    module = name.removeprefix(f"{LAYERS}.").partition(".")[0]
    parts = {"attention": "attention", "feedforward": "feed-forward", "head": "head"}
    return "norms" if module.endswith("norm") else parts.get(module, "embedding")


def layer_matrices(config: ModelConfig) -> list[Leaf]:
    """Descriptions of the weight matrices of one block, without the leading axis over layers."""
    return [leaf.of_layer for leaf in parameters(config).values() if leaf.stacked and leaf.is_matrix]


def head_parameters(config: ModelConfig) -> int:
    """The number of weights in the output head's matrix product, D x V, whether or not they are tied to the embedding."""
    return config.dim * config.vocab_size


def layer_matrix_parameters(config: ModelConfig) -> int:
    """The number of weights in the matrix products of one block."""
    return sum(leaf.size for leaf in layer_matrices(config))


def attention_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward FLOPs per token of attention's two T x T products (queries with keys, weights with values), in rows of `length`.

    Counts all layers, and only the causal half of each product; with what the position encoding adds (`attention_flops`).
    """
    added = position_encoding(config).attention_flops(config.num_heads, head_dim=config.head_size)
    return config.num_layers * (2.0 * length * config.num_heads * config.head_size + added)


MFU_FORMULA = (
    "MFU = tokens/s x FLOPs/token / peak, FLOPs/token = 6 x matmul parameters + 6 x layers x length x heads x head width "
    "(causal half of attention)"
)


def train_flops_per_token(config: ModelConfig, length: int) -> float:
    """Model FLOPs per token of training in rows of `length`: forward and backward, without recomputation."""
    matmul = config.num_layers * layer_matrix_parameters(config) + head_parameters(config)
    return 6.0 * matmul + 3.0 * attention_flops_per_token(config, length)
