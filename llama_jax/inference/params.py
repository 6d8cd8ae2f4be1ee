"""Parameters as inference reads them, and the forward pass over them that fills and reads a cache."""

from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.attention import KeysValues
from llama_jax.model.block import Block
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer, head_matrix, rope
from llama_jax.model.norms import RMSNorm
from llama_jax.ops.linear import Int8, linear, quantize
from llama_jax.ops.masks import Mask


@struct.dataclass
class Weights:
    """A model's parameters; layers lie apart, because slicing them out of a stack costs a copy a token."""

    embedding_VD: Array
    layers: tuple[Any, ...]
    final_norm: Any
    head_DV: Array | Int8


def make_weights(config: ModelConfig, params: Any, *, int8: bool = False) -> Weights:
    """Unstacked, and matrices cast to the compute dtype (norms stay in float32); int8 leaves only the embedding at that.

    Raises ConfigError for a tree that is not this model's.
    """
    return _make_weights(config, plain(config, params), int8=int8)


def plain(config: ModelConfig, params: Any) -> Any:
    """A model's parameter tree without the boxes in which `Transformer.init` puts arrays.

    Raises ConfigError where names or shapes are not the model's: an array that is a layer short would be read without a word.
    """
    params = nn.meta.unbox(params)
    wanted, given = shapes(config), shapes_of(params)
    if given != wanted:
        name = min(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise ConfigError(f"these are not the model's parameters: {name or 'the whole'} should be {wanted.get(name, 'absent')} "
                          f"and is {given.get(name, 'absent')}; give the tree that `load` returns, or init's under \"params\".")
    return params


@lru_cache
def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """What the parameters of a model are called, and their shapes."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return shapes_of(nn.meta.unbox(jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)["params"]))


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a tree's arrays, by name."""
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(jnp.shape(x))
            for path, x in jax.tree.flatten_with_path(params)[0]}


@partial(jax.jit, static_argnames=("config", "int8"))
def _make_weights(config: ModelConfig, params: Any, *, int8: bool) -> Weights:
    def cast(path, x: Array) -> Array | Int8:
        name = path[-1].key
        if name == "scale":
            return x
        return quantize(x, contract=2 if name == "wo" else 1) if int8 else x.astype(config.dtype)

    layers = tuple(jax.tree.map_with_path(cast, jax.tree.map(itemgetter(n), params["layers"]))
                   for n in range(config.num_layers))
    head = head_matrix(params)
    return Weights(params["embedding"].astype(config.dtype), layers, params["final_norm"],
                   quantize(head) if int8 else head.astype(config.dtype))


def forward(
    config: ModelConfig, weights: Weights, tokens_BT: Array, cache: Cache | None = None
) -> tuple[Array, list[KeysValues]]:
    """What the head reads (B, T, D), and each layer's keys and values.

    With a cache the tokens follow what it holds, and the keys and values are the cache's with theirs among them.
    """
    positions_BT = jnp.arange(tokens_BT.shape[1])[None, :]
    if cache is not None:
        positions_BT += cache.lengths_B[:, None]
    tables, x_BTD, kvs = rope(config, positions_BT), weights.embedding_VD[tokens_BT], []
    for n, layer in enumerate(weights.layers):
        cached = None if cache is None else cache.layer(n)
        x_BTD, kv = Block(config, keeps_kv=True).apply({"params": layer}, x_BTD, tables, Mask(), cached)
        kvs.append(kv)
    return RMSNorm(config.norm_eps).apply({"params": weights.final_norm}, x_BTD), kvs


def logits_of(weights: Weights, h_BD: Array) -> Array:
    """float32 (B, V)."""
    return linear(h_BD, weights.head_DV, out_dtype=jnp.float32)
