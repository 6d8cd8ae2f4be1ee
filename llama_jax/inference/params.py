"""Parameters as decoding reads them: layers apart, in the compute dtype or in 8 bits."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.tree import LAYERS, Leaf, name_of, parameters, unboxed
from llama_jax.ops.linear import Int8, linear, quantize


@struct.dataclass
class DecodingParams:
    """Parameters for decode steps, as `decoding_params` makes them.

    Every layer stands by itself, because slicing it out of a stack would cost a copy per token; matrices and the embedding are
    in the compute dtype or in 8 bits, norms and biases as they were; the output head is there in any case, tied or not.
    """

    tree: Any
    """Parameter tree of `Transformer(..., layers_apart=True)`."""

    @property
    def mesh(self) -> Mesh:
        """The devices that the parameters are spread over."""
        return self.tree["embedding"].sharding.mesh

    def next_logits(self, h_BD: Array) -> Array:
        """float32 logits (B, V) of the next token, from what the head reads (B, D)."""
        return linear(h_BD, head_matrix(self.tree), out_dtype=jnp.float32)


def decoding_params(model: Transformer, params: Any, *, int8: bool = False) -> DecodingParams:
    """A model's parameters for decoding; those that are made for it already are returned as they are.

    With `int8` every matrix is quantized to 8 bits, and the embedding alone keeps the compute dtype. Raises ConfigError for a
    tree that is not this model's.
    """
    if isinstance(params, DecodingParams):
        return params
    return _decoding_params(model, unboxed(model.config, params), int8=int8)


def prepared(x: Array, leaf: Leaf, *, dtype: DTypeLike, int8: bool) -> Array | Int8:
    """One parameter, or one layer of it, as decoding reads it."""
    if leaf.is_matrix:
        return quantize(x, contract=leaf.inputs) if int8 else x.astype(dtype)
    return x.astype(dtype) if leaf.is_embedding else x


@partial(jax.jit, static_argnames=("model", "int8"))
def _decoding_params(model: Transformer, params: Any, *, int8: bool) -> DecodingParams:
    leaves, dtype = parameters(model.config), model.compute.dtype
    prepare = partial(prepared, dtype=dtype, int8=int8)

    def of_layer(n: int) -> Any:
        return jax.tree.map_with_path(
            lambda path, x: prepare(x[n], leaves[f"{LAYERS}.{name_of(path)}"].of_layer), params[LAYERS])

    tree = {name: value for name, value in params.items() if name != LAYERS}
    tree = jax.tree.map_with_path(lambda path, x: prepare(x, leaves[name_of(path)]), tree)
    head = head_matrix(params)
    tree["head"] = quantize(head) if int8 else head.astype(dtype)
    return DecodingParams(tree | {f"{LAYERS}_{n}": of_layer(n) for n in range(model.config.num_layers)})
