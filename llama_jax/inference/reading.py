"""Weights read straight into the form that inference computes with: one copy in memory, and on each device only its part.

A 65B model is 130 GB in bfloat16 and 65 GB in 8 bits; read into a tree of float32 first, as for training, it would take 260 GB.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from llama_jax.config import MeshConfig
from llama_jax.errors import ConfigError, nearest
from llama_jax.formats.base import WeightSource, check_vocabulary
from llama_jax.formats.loading import abstract_params
from llama_jax.formats.mapping import Tensor, weights_of
from llama_jax.inference.params import DecodingParams, prepared
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import LAYERS, Leaf, parameters, unflatten
from llama_jax.ops.linear import Int8
from llama_jax.parallel.rules import named_sharding
from llama_jax.tokenizer.base import Tokenizer

InferenceDtype = Literal["stored", "float32", "bfloat16", "int8"]
"""What inference reads weights into; "stored" is the dtype in which the model computes where nothing else is asked for."""

Observer = Callable[[Tensor, Array], None]
"""Called with every tensor, as it is stored and of the shape it has in a layer, before it is turned into what is kept."""


def read_for_inference(
    source: WeightSource,
    mesh: MeshConfig | None = None,
    *,
    dtype: InferenceDtype = "stored",
    report: Callable[[int], None] = lambda count: None,
    observe: Observer | None = None,
) -> tuple[Transformer, DecodingParams, Tokenizer]:
    """(model, parameters, tokenizer) of a folder of weights, for generating and scoring.

    Every tensor is read once and cut for the devices of this process. Beside the result, memory holds one tensor at a time (of a
    run directory as many layers of one as share a chunk on disk); the largest come first, while there is most room.

    Args:
        source: The open folder.
        mesh: Sizes of the mesh over which the parameters are sharded; None: all lie on the first device.
        dtype: bfloat16 and float32: matrices and embedding are kept in it, and the model computes in it. int8: matrices are
            quantized to 8 bits, the model computes as stored. stored: in 16 bits where weights are stored so, else in float32,
            or as the run computed. Norms and biases are float32 in any case.
        report: Called with the number of tensors just read.
        observe: Sees every tensor before it is cast.

    Raises:
        DataError: The folder is damaged, or has no tokenizer.
        ConfigError: The tokenizer or the mesh does not suit the model, or `dtype` is another.
    """
    if dtype not in get_args(InferenceDtype):
        raise ConfigError(f"weights cannot be read as {dtype}{nearest(dtype, get_args(InferenceDtype))}")
    tokenizer = source.tokenizer()
    check_vocabulary(source, tokenizer)
    # the backend that trained may need another machine, and cannot mask every prompt
    compute = replace(source.compute, attention="auto")
    if dtype in ("float32", "bfloat16"):
        compute = replace(compute, dtype=dtype)
    devices = abstract_params(source.config, mesh)["embedding"].sharding.mesh
    leaves, arrays = parameters(source.config), {}
    kept = partial(prepared, dtype=jnp.dtype(compute.dtype), int8=dtype == "int8")
    prepare = jax.jit(lambda array, leaf: kept(array.astype(jnp.float32), leaf), static_argnums=1)
    weights = sorted(weights_of(source.config), key=lambda weight: -leaves[weight.ours].of_layer.size)
    for weight in weights:
        leaf = leaves[weight.ours]
        for layer in range(leaf.shape[0] if leaf.stacked else 1):
            arrays |= _read(source, Tensor(weight, layer), mesh=devices, prepare=prepare, observe=observe)
            report(1)
    return Transformer(source.config, compute), DecodingParams(unflatten(arrays)), tokenizer


def _read(
    source: WeightSource, tensor: Tensor, *, mesh: Mesh, prepare: Callable[[Array, Leaf], Array | Int8], observe: Observer | None
) -> dict[str, Array | Int8]:
    """One tensor by its name in the tree of layers apart, and the output head where that is the embedding too."""
    weight = tensor.weight
    leaf, values = parameters(source.config)[weight.ours].of_layer, source.read(tensor)
    array = jax.make_array_from_callback(values.shape, named_sharding(mesh, *leaf.axes), lambda part: np.array(values[part]))
    if observe:
        observe(tensor, array)
    read = {weight.ours.replace(f"{LAYERS}.", f"{LAYERS}_{tensor.layer}.", 1): prepare(array, leaf)}
    if leaf.is_embedding and source.config.tied_embeddings and weight.ours == "embedding":
        read["head"] = prepare(array.T, replace(leaf, inputs=1))
    return jax.block_until_ready(read)  # so that what was read is freed before the next one comes
