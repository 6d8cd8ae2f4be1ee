"""Random models that fit the `tokenizer` fixture."""

import jax
import jax.numpy as jnp

from llama_jax.config import ModelConfig
from llama_jax.model.decoder import Transformer
from tests.golden.small import FLOAT32, random_params

KV_HEADS = {"mha": 4, "gqa": 2, "mqa": 1}


def small_model(kv_heads: int, **fields) -> tuple[Transformer, dict]:
    """A random float32 model of 512 tokens and context 64, like the `tokenizer` fixture's."""
    config = ModelConfig(**{"vocab_size": 512, "dim": 32, "num_layers": 3, "num_heads": 4, "num_kv_heads": kv_heads,
                            "ffn_dim": 48, "max_length": 64} | fields)
    return Transformer(config, FLOAT32), jax.tree.map(jnp.asarray, random_params(config, 0))
