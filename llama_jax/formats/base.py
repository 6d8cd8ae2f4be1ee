"""What a conversion or a load reads from: any folder that holds a LLaMA, behind one interface."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh

from llama_jax.config import Config, MeshConfig, ModelConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.checkpoints import abstract
from llama_jax.formats.mapping import TABLE, Tensor, Weight, pool_heads
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.mesh import check_model, make_mesh
from llama_jax.parallel.rules import AXES, shardings
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import NoTokenizer

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
"""What weights may be stored in."""


class Source(Protocol):
    """A folder of weights."""

    folder: Path
    format: str
    """For people."""
    config: ModelConfig
    padded: bool
    """Whether the model may have more ids than its tokenizer, as those of other projects often do."""
    dtype: np.dtype
    """Of DTYPES: what holds every tensor without loss."""

    def read(self, tensor: Tensor) -> np.ndarray:
        """One tensor in our axes, without the layers, as it is stored; raises DataError where it is damaged."""

    def tokenizer(self) -> Tokenizer:
        """The one that lies there; raises NoTokenizer where there is none, DataError where it is damaged."""


def open_source(path: str | Path) -> Source:
    """What `path` names: a run directory (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder.

    Raises DataError where it is none of them or contradicts itself; no weights are read yet.
    """
    from llama_jax.formats.hf import HFFolder  # they import what stands below
    from llama_jax.formats.meta import MetaFolder
    from llama_jax.formats.run import RunFolder

    path = Path(path)
    if not path.is_dir():
        raise DataError(f"no checkpoint at {path}: there is no such folder.")
    found = [kind for kind in (RunFolder, MetaFolder) if kind.is_one(path)]
    if HFFolder.has_weights(path) if found else HFFolder.is_one(path):
        found.append(HFFolder)
    if len(found) > 1:
        raise DataError(f"{path} holds weights twice, as a {' and as a '.join(kind.format for kind in found)}; move one of them "
                        "away.")
    if found:
        return found[0](path)
    raise DataError(f"no checkpoint at {path}: expected a run directory of train.py with checkpoints/<step> (or one of these "
                    "steps), a Hugging Face folder with config.json and *.safetensors, or a Meta folder with params.json and "
                    "consolidated.*.pth.")


class Pooled:
    """A source with fewer kv heads: neighbouring heads' keys and values averaged (Ainslie et al. 2023)."""

    def __init__(self, source: Source, kv_heads: int):
        if kv_heads < 1 or source.config.num_kv_heads % kv_heads:
            raise ConfigError(f"--num_kv_heads must divide the {source.config.num_kv_heads} kv heads of {source.folder}, got "
                              f"{kv_heads}.")
        self._source, self.folder, self.format = source, source.folder, source.format
        self.dtype, self.padded = source.dtype, source.padded
        self.config, self.tokenizer = replace(source.config, num_kv_heads=kv_heads), source.tokenizer

    def read(self, tensor: Tensor) -> np.ndarray:
        """The source's, pooled where it has kv heads."""
        ours = self._source.read(tensor)
        return pool_heads(ours, self.config.num_kv_heads) if "K" in tensor.weight.axes else ours


def widest(dtypes: set[np.dtype]) -> np.dtype:
    """The one of DTYPES that holds all of `dtypes`."""
    return next(iter(dtypes)) if len(dtypes) == 1 else DTYPES["float32"]


def compute_dtype(dtype: np.dtype) -> str:
    """What a model computes in whose weights are stored in `dtype`."""
    return "float32" if dtype == DTYPES["float32"] else "bfloat16"


def checked(array: np.ndarray, name: str) -> np.ndarray:
    """`array`, all of it finite; raises DataError with its name."""
    bits = array.view(np.uint32 if array.dtype.itemsize == 4 else np.uint16)
    exponent = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}[array.dtype.name]
    bad = (bits & bits.dtype.type(exponent)) == exponent
    if bad.any():
        raise DataError(f"{name} holds {int(bad.sum())} value(s) that are NaN or infinite; get the weights again.")
    return array


def tokenizer_of(source: Source) -> Tokenizer | None:
    """The source's, if it has one; its ids are known to be the model's."""
    try:
        tokenizer = source.tokenizer()
    except NoTokenizer:
        return None
    check_vocabulary(source, tokenizer)
    return tokenizer


def check_vocabulary(source: Source, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where the tokenizer's ids are not the model's."""
    pieces, ids = tokenizer.vocab_size, source.config.vocab_size
    if pieces > ids or (pieces < ids and not source.padded):
        raise ConfigError(f"the tokenizer of {source.folder} has {pieces} pieces and the model {ids}; put the tokenizer there "
                          "that it was trained with.")


def first_mesh(config: MeshConfig) -> Mesh:
    """A mesh over as many of the first devices as it needs; over all where an axis is -1."""
    sizes = [getattr(config, axis) for axis in AXES]
    return make_mesh(config, None if -1 in sizes else jax.devices()[: math.prod(sizes)])


def abstract_params(config: ModelConfig, mesh: MeshConfig | None = None) -> Any:
    """ShapeDtypeStructs of the parameters, float32, with their shardings on `mesh`, or on the first device."""
    real_mesh = first_mesh(mesh or MeshConfig(data=1))
    check_model(config, real_mesh)
    boxed = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return abstract(nn.unbox(boxed), shardings(boxed, real_mesh))


def read_params(source: Source, target: Any, report: Callable[[int], None] = lambda count: None) -> Any:
    """The parameters of a source, laid out as `target` (ShapeDtypeStructs with shardings) says.

    Every tensor is read once and cut for the devices here; beside the result, memory holds one row of the table.
    """
    structs = traverse_util.flatten_dict(target, sep=".")
    arrays = {}
    for weight in TABLE:
        if weight.ours in structs:
            arrays[weight.ours] = _read_stack(source, weight, structs[weight.ours], report)
    return traverse_util.unflatten_dict(arrays, sep=".")


def _read_stack(source: Source, weight: Weight, struct: jax.ShapeDtypeStruct, report: Callable[[int], None]) -> jax.Array:
    """One row of the table, its layers stacked."""
    places = struct.sharding.addressable_devices_indices_map(struct.shape)
    parts = {}
    for index in places.values():
        shape = [len(range(*part.indices(size))) for part, size in zip(index, struct.shape, strict=True)]
        parts.setdefault(str(index), (index, np.empty(shape, struct.dtype)))
    for layer in range(struct.shape[0] if weight.stacked else 1):
        ours = source.read(Tensor(weight, layer))
        for index, part in parts.values():  # layers are never split over devices
            if weight.stacked:
                part[layer] = ours[index[1:]]
            else:
                part[...] = ours[index]
        report(1)
    pieces = [jax.device_put(parts[str(index)][1], device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(struct.shape, struct.sharding, pieces)


def run_config(config: ModelConfig, name: str, origin: str) -> Config:
    """A whole Config around a model, as a run directory holds it; `origin` is where the weights are from."""
    default = Config()
    length = min(default.data.sequence_length, config.max_length)
    return replace(default, name=name, init_from=origin, model=config, data=replace(default.data, sequence_length=length))
