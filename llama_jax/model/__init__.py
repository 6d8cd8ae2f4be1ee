"""The model: Flax modules from norms to the whole decoder, the key-value cache, and a description of all parameters.

Norms, FeedForward and Attention take fields, not a config, and fit into any Flax (Linen) model: norms and FeedForward take
(..., D) and Attention (..., T, D) with any leading axes, and their parameters are plain arrays. Under another project's mesh only
axes that have names of ours (`parallel.rules.AXES`) and are all `AxisType.Auto` shard anything here; inside a `shard_map` or
`pmap` every device computes what it is given; explicit shardings of the input (`AxisType.Explicit`) carry over to the output.
"""

from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.attention import Attention, KeysValues, LayerCache
from llama_jax.model.block import Block
from llama_jax.model.cache import Cache
from llama_jax.model.capture import CAPTURED, capture
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import NORMS, LayerNorm, RMSNorm, make_norm
from llama_jax.model.positions import (
    POSITIONS,
    Learned,
    LinearBias,
    PositionEncoding,
    RelativeVectors,
    Rotary,
    Rotary3D,
    Sinusoidal,
    position_encoding,
)
from llama_jax.model.tree import Leaf, parameters

__all__ = [
    "CAPTURED", "NORMS", "POSITIONS", "Attention", "Block", "Cache", "FeedForward", "KeysValues", "LayerCache", "LayerNorm",
    "Leaf", "Learned", "LinearBias", "PositionEncoding", "RMSNorm", "RelativeVectors", "Rotary", "Rotary3D", "Sinusoidal",
    "Transformer", "capture", "head_matrix", "make_norm", "parameter_count", "parameters", "position_encoding",
    "train_flops_per_token",
]
