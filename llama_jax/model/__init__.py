"""The LLaMA model: Flax modules from RMSNorm to the whole decoder, the key-value cache, and a description of all parameters."""

from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.attention import Attention, KeysValues, LayerCache
from llama_jax.model.block import Block
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import NORMS, RMSNorm, make_norm
from llama_jax.model.positions import POSITIONS, PositionEncoding, Rotary, position_encoding
from llama_jax.model.tree import Leaf, parameters

__all__ = [
    "NORMS", "POSITIONS", "Attention", "Block", "Cache", "FeedForward", "KeysValues", "LayerCache", "Leaf", "PositionEncoding",
    "RMSNorm", "Rotary", "Transformer", "head_matrix", "make_norm", "parameter_count", "parameters", "position_encoding",
    "train_flops_per_token",
]
