"""From a folder of weights to a model, its parameters on the devices, and its tokenizer."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh
from jax.typing import DTypeLike

from llama_jax.config import MeshConfig, ModelConfig, Verification
from llama_jax.errors import ConfigError, nearest
from llama_jax.formats.base import WeightSource, check_vocabulary, tokenizer_of
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.mapping import Tensor, Weight, weights_of
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import abstract_tree
from llama_jax.parallel.mesh import check_model, make_mesh
from llama_jax.parallel.rules import AXES
from llama_jax.tokenizer.base import Tokenizer

PARAM_DTYPES = ("float32", "bfloat16")
"""The dtypes that `load` gives parameters."""


def load(
    path: str | Path, mesh: MeshConfig | None = None, *, dtype: DTypeLike | None = None, verify: Verification = "full"
) -> tuple[Transformer, Any, Tokenizer | None]:
    """Load (model, params, tokenizer) from a run directory, DIR/checkpoints/STEP, a Hugging Face folder or a Meta folder.

    Args:
        path: The folder. Of a run directory the newest step is loaded.
        mesh: Sizes of the mesh over which the parameters are sharded; None: all lie on the first device.
        dtype: "bfloat16" keeps every parameter, norms included, in 2 bytes from the moment that it is read, and the model then
            computes in bfloat16; weights that are stored in more bits are rounded. None: parameters are float32, and the model
            computes in bfloat16 where they are stored in 16 bits, or as the run did.
        verify: How many of the tensors are compared with the checksums that were written with them: all, a sample or none.

    Returns:
        The model, its parameter tree, and its tokenizer, None where the folder has none.

    Raises:
        DataError: There is nothing to load, or it is damaged.
        ConfigError: Tokenizer, model and mesh do not fit each other, or `dtype` is another.
    """
    dtype = None if dtype is None else _param_dtype(dtype)
    source = open_source(path, verify=verify)
    tokenizer = tokenizer_of(source)
    return *_model_and_params(source, mesh, dtype=dtype), tokenizer


def load_source(
    source: WeightSource, mesh: MeshConfig | None = None, *, report: Callable[[int], None] = lambda count: None
) -> tuple[Transformer, Any, Tokenizer]:
    """`load` from a source that is open, for those who need a tokenizer: raises NoTokenizer where there is none.

    `report` is called with the number of tensors just read (not for a run directory).
    """
    tokenizer = source.tokenizer()
    check_vocabulary(source, tokenizer)
    return *_model_and_params(source, mesh, report=report), tokenizer


def _model_and_params(
    source: WeightSource, mesh: MeshConfig | None, *, dtype: str | None = None,
    report: Callable[[int], None] = lambda count: None,
) -> tuple[Transformer, Any]:
    """The model and its parameters in `dtype`, or in float32."""
    # the backend that trained may need another machine, and cannot mask every prompt
    compute = replace(source.compute, attention="auto")
    if dtype == "bfloat16":  # computing in float32 would make float32 copies of the matrices
        compute = replace(compute, dtype="bfloat16")
    params = load_params(source, abstract_params(source.config, mesh, dtype=dtype or "float32"), report=report)
    return Transformer(source.config, compute), params


def _param_dtype(dtype: DTypeLike) -> str:
    """The name of a dtype that parameters may have; raises ConfigError for another."""
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in PARAM_DTYPES:
        raise ConfigError(f"parameters cannot be loaded as {name}{nearest(name, PARAM_DTYPES)}")
    return name


def load_params(source: WeightSource, target: Any, *, report: Callable[[int], None] = lambda count: None) -> Any:
    """The parameters of a source, laid out as `target` (ShapeDtypeStructs with shardings) says.

    A run directory is restored by orbax, which reads for each device only its own shards, and casts. It reads all parameters at
    one time in the dtype that they are stored in; where they become smaller, they are read tensor by tensor instead.
    """
    shrinks = jax.tree.leaves(target)[0].dtype.itemsize < source.dtype.itemsize
    if shrinks or not isinstance(source, RunFolder):
        return read_params(source, target, report=report)
    checkpoints = Checkpoints(source.folder / "checkpoints", verify=source.verify)
    try:
        return checkpoints.restore_params(source.step, target)
    finally:
        checkpoints.close()


def read_params(source: WeightSource, target: Any, *, report: Callable[[int], None] = lambda count: None) -> Any:
    """The parameters of a source of any format, read tensor by tensor, laid out as `target` says.

    Every tensor is read once and cut for the devices of this process; beside the result, host memory holds one parameter
    with all its layers.
    """
    structs = traverse_util.flatten_dict(target, sep=".")
    arrays = {}
    for weight in weights_of(source.config):
        arrays[weight.ours] = _read_parameter(source, weight, struct=structs[weight.ours], report=report)
    return traverse_util.unflatten_dict(arrays, sep=".")


def _read_parameter(
    source: WeightSource, weight: Weight, *, struct: jax.ShapeDtypeStruct, report: Callable[[int], None]
) -> jax.Array:
    """One parameter, its layers stacked, as an array with the dtype and sharding of `struct`."""
    places = struct.sharding.addressable_devices_indices_map(struct.shape)
    parts = {}
    for index in places.values():
        shape = [len(range(*part.indices(size))) for part, size in zip(index, struct.shape, strict=True)]
        parts.setdefault(str(index), (index, np.empty(shape, struct.dtype)))
    for layer in range(struct.shape[0] if weight.stacked else 1):
        ours = source.read(Tensor(weight, layer))
        for index, part in parts.values():
            if weight.stacked:
                part[layer] = ours[index[1:]]  # index[0] is all layers: they are never split over devices
            else:
                part[...] = ours[index]
        report(1)
    pieces = [jax.device_put(parts[str(index)][1], device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(struct.shape, struct.sharding, pieces)


def abstract_params(config: ModelConfig, mesh: MeshConfig | None = None, *, dtype: DTypeLike = "float32") -> Any:
    """ShapeDtypeStructs of the parameters in `dtype`, with their shardings on `mesh`, or on the first device."""
    real_mesh = _mesh_of_first_devices(mesh or MeshConfig(data=1))
    check_model(config, real_mesh)
    return abstract_tree(config, real_mesh, dtype=dtype)


def _mesh_of_first_devices(config: MeshConfig) -> Mesh:
    """A mesh over as many of the first devices as it needs, or over all where an axis is -1."""
    sizes = [getattr(config, axis) for axis in AXES]
    return make_mesh(config, None if -1 in sizes else jax.devices()[: math.prod(sizes)])
