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

from llama_jax.config import MeshConfig, ModelConfig
from llama_jax.formats.base import WeightSource, check_vocabulary
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.mapping import TABLE, Tensor, Weight
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import abstract_tree
from llama_jax.parallel.mesh import check_model, make_mesh
from llama_jax.parallel.rules import AXES
from llama_jax.tokenizer.base import Tokenizer


def load(path: str | Path, mesh: MeshConfig | None = None) -> tuple[Transformer, Any, Tokenizer]:
    """Load (model, params, tokenizer) from a run directory, DIR/checkpoints/STEP, a Hugging Face folder or a Meta folder.

    Of a run directory the newest step is loaded. Parameters are float32 and lie on the first device, or on `mesh` as the
    sharding rules say. Raises DataError where there is nothing to load or it is damaged, ConfigError where tokenizer, model
    and mesh do not fit each other.
    """
    return load_source(open_source(path), mesh)


def load_source(
    source: WeightSource, mesh: MeshConfig | None = None, *, report: Callable[[int], None] = lambda count: None
) -> tuple[Transformer, Any, Tokenizer]:
    """`load` from a source that is open; `report` is called with the number of tensors just read (not for a run directory)."""
    tokenizer = source.tokenizer()
    check_vocabulary(source, tokenizer)
    # the backend that trained may need another machine, and cannot mask every prompt
    compute = replace(source.compute, attention="auto")
    params = load_params(source, abstract_params(source.config, mesh), report=report)
    return Transformer(source.config, compute), params, tokenizer


def load_params(source: WeightSource, target: Any, *, report: Callable[[int], None] = lambda count: None) -> Any:
    """The parameters of a source, laid out as `target` (ShapeDtypeStructs with shardings) says.

    A run directory is restored by orbax, which reads for each device only its own shards, and casts.
    """
    if not isinstance(source, RunFolder):
        return read_params(source, target, report=report)
    checkpoints = Checkpoints(source.folder / "checkpoints")
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
    for weight in TABLE:
        if weight.ours in structs:
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


def abstract_params(config: ModelConfig, mesh: MeshConfig | None = None) -> Any:
    """ShapeDtypeStructs of the parameters, float32, with their shardings on `mesh`, or on the first device."""
    real_mesh = _mesh_of_first_devices(mesh or MeshConfig(data=1))
    check_model(config, real_mesh)
    return abstract_tree(config, real_mesh)


def _mesh_of_first_devices(config: MeshConfig) -> Mesh:
    """A mesh over as many of the first devices as it needs, or over all where an axis is -1."""
    sizes = [getattr(config, axis) for axis in AXES]
    return make_mesh(config, None if -1 in sizes else jax.devices()[: math.prod(sizes)])
