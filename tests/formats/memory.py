"""A source that is no folder: parameters in memory."""

from pathlib import Path

import numpy as np

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.formats.mapping import TABLE, Tensor, weights_of
from llama_jax.model.tree import Leaf, parameters, unflatten
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import NoTokenizer
from tests.golden.small import random_params

SHAPES = {"mha": 8, "gqa": 4, "mqa": 1}


def config_of(kv_heads: int = 4, **fields) -> ModelConfig:
    """Everything divides by 8 shards, and no two sizes are equal."""
    return ModelConfig(**{"vocab_size": 512, "dim": 64, "num_layers": 3, "num_heads": 8, "num_kv_heads": kv_heads,
                          "ffn_dim": 176, "max_length": 128, "norm_eps": 1e-6} | fields)


def random_tree(config: ModelConfig, seed: int) -> dict:
    """float32 parameters of any architecture, larger than an initialisation so that every part matters."""
    rng = np.random.default_rng(seed)

    def drawn(name: str, leaf: Leaf) -> np.ndarray:
        values = 0.1 * rng.standard_normal(leaf.shape)
        return (1 + 2 * values if name.endswith("norm.scale") else values).astype(np.float32)

    return unflatten({name: drawn(name, leaf) for name, leaf in parameters(config).items()})


class MemorySource:
    """A WeightSource of random parameters of a config, or of those given."""

    format, folder, padded = "memory", Path("/nowhere/memory"), True

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None = None, *, dtype=np.float32, params: dict | None = None,
                 compute: ComputeConfig | None = None):
        self.config, self.dtype, self._tokenizer = config, np.dtype(dtype), tokenizer
        self.compute = compute or ComputeConfig(dtype="float32")
        if params is None:
            llama = {weight.ours for weight in weights_of(config)} <= {weight.ours for weight in TABLE if weight.part == "weight"}
            params = random_params(config, 0) if llama else random_tree(config, 0)
        self.params = params

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        leaf = self.params
        for key in tensor.weight.ours.split("."):
            leaf = leaf[key]
        return np.asarray(leaf[tensor.layer] if tensor.weight.stacked else leaf).astype(self.dtype)

    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise NoTokenizer("none")
        return self._tokenizer
