"""Our own run directories as a source, tensor by tensor, and as a target that `load` and `--init_from` take."""

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import tensorstore
from flax import traverse_util

from llama_jax.config import CheckpointConfig, Config, ModelConfig, to_dict
from llama_jax.errors import DataError
from llama_jax.files.atomic import write_atomic
from llama_jax.formats.base import STORED_DTYPES, lossless_dtype, require_finite
from llama_jax.formats.checkpoints import Checkpoints, readable
from llama_jax.formats.mapping import Tensor, Weight, tensors
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer


class RunFolder:
    """A run directory, or one of its steps."""

    format = "run directory"

    def __init__(self, path: Path):
        self.folder, self.step = find_step(path)
        checkpoints = Checkpoints(self.folder / "checkpoints")
        try:
            config = checkpoints.config(self.step)
        finally:
            checkpoints.close()
        self.config, self.padded = config.model, bool(config.init_from)
        self._path = self.folder / "checkpoints" / str(self.step)
        weights = dict.fromkeys(tensor.weight for tensor in tensors(self.config))
        self._arrays = {weight: self._open(weight) for weight in weights}
        self.dtype = lossless_dtype({np.dtype(array.dtype.numpy_dtype) for array in self._arrays.values()})
        self._held: tuple[Weight, range, np.ndarray] | None = None

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is a run directory with a checkpoint, or a step of one."""
        is_step = path.parent.name == "checkpoints" and path.name.isdigit() and not (path / "config.json").exists()
        return bool(steps_of(path)) or is_step

    def _open(self, weight: Weight) -> tensorstore.TensorStore:
        with readable(self._path):
            array = open_array(self._path, weight)
        first = Tensor(weight)
        wanted = ((self.config.num_layers,) if weight.stacked else ()) + first.shape(self.config)
        if array.shape != wanted or array.dtype.name not in STORED_DTYPES:
            raise DataError(f"{weight.ours} in {self._path} is {array.dtype.name} of shape {tuple(array.shape)}, and its config "
                            f"asks for {wanted}.")
        return array

    def read(self, tensor: Tensor) -> np.ndarray:
        """As of every source. What shares a chunk on disk is read once, and held until it was asked for."""
        weight, layer = tensor.weight, tensor.layer
        if self._held is None or self._held[0] != weight or layer not in self._held[1]:
            self._held = None
            array = self._arrays[weight]
            together = array.chunk_layout.read_chunk.shape[0] if weight.stacked else 1
            layers = range(layer // together * together, min((layer // together + 1) * together, self.config.num_layers))
            with readable(self._path):
                part = array[layers.start : layers.stop] if weight.stacked else array[None]
                self._held = weight, layers if weight.stacked else range(1), part.read().result()
        _, layers, values = self._held
        name = f"{weight.ours}[{layer}]" if weight.stacked else weight.ours
        return require_finite(values[layer - layers.start], f"{name} in {self._path}")

    def tokenizer(self) -> Tokenizer:
        """As of every source."""
        return load_tokenizer(self.folder)


def steps_of(path: Path) -> list[int]:
    """The steps below a run directory."""
    folder = path / "checkpoints"
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []


def find_step(path: Path) -> tuple[Path, int]:
    """(run directory, step) that `path` names; raises DataError where there is none."""
    if path.parent.name == "checkpoints" and path.name.isdigit() and path.is_dir():
        return path.parent.parent, int(path.name)
    if not (steps := steps_of(path)):
        raise DataError(f"no checkpoint at {path}: expected a run directory of train.py with checkpoints/<step>, or one of "
                        "these steps.")
    return path, max(steps)


def _config_of_run(config: ModelConfig, *, name: str, origin: str) -> Config:
    """A whole Config around a model, as a run directory holds it; `origin` names the folder that the weights come from."""
    default = Config()
    length = min(default.data.sequence_length, config.max_length)
    return replace(default, name=name, init_from=origin, model=config, data=replace(default.data, sequence_length=length))


def open_array(step: Path, weight: Weight, **options) -> tensorstore.TensorStore:
    """An array of a checkpoint as orbax lays it out: zarr in one OCDBT database a checkpoint."""
    place = {"driver": "ocdbt", "base": (step / "state").absolute().as_uri() + "/", "path": f"params.{weight.ours}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": place, **options.pop("spec", {})}, **{"open": True} | options).result()


def write_run(folder: Path, config: ModelConfig, dtype: np.dtype, weights: Iterable[tuple[Tensor, np.ndarray]],
              tokenizer: Tokenizer | None, *, name: str, origin: str) -> None:
    """A run directory with step 0 alone; `weights` are all tensors in our axes, in order.

    orbax writes everything around the arrays, for arrays of one number; each is then replaced by the real one, a layer
    at a time, so that memory holds no stack.
    """
    whole = _config_of_run(config, name=name, origin=origin)
    shapes = {tensor.weight: ((config.num_layers,) if tensor.weight.stacked else ()) + tensor.shape(config)
              for tensor in tensors(config)}
    tree = traverse_util.unflatten_dict({weight.ours: jax.numpy.zeros((), dtype) for weight in shapes}, sep=".")
    with closing(Checkpoints(folder / "checkpoints", CheckpointConfig())) as checkpoints:
        checkpoints.save(0, {"params": tree}, whole)
    step = folder / "checkpoints/0"
    open_arrays = {}
    for tensor, ours in weights:
        weight = tensor.weight
        if weight not in open_arrays:
            open_arrays = {weight: create(step, weight, shapes[weight], dtype)}
        ours = np.ascontiguousarray(ours)
        (open_arrays[weight][tensor.layer] if weight.stacked else open_arrays[weight]).write(ours).result()
    describe(step, shapes)
    write_atomic(folder / "config.json", (json.dumps(to_dict(whole), indent=1) + "\n").encode())
    if tokenizer is not None:
        tokenizer.save(folder)


def create(step: Path, weight: Weight, shape: tuple[int, ...], dtype: np.dtype) -> tensorstore.TensorStore:
    """An array in the place of the one that is there, a layer a chunk."""
    chunks = [1, *shape[1:]] if weight.stacked else list(shape)
    metadata = {"shape": list(shape), "chunks": chunks, "compressor": {"id": "zstd", "level": 1},
                "dtype": "bfloat16" if dtype == STORED_DTYPES["bfloat16"] else dtype.str}
    return open_array(step, weight, spec={"metadata": metadata, "store_data_equal_to_fill_value": True},
                      open=False, create=True, delete_existing=True)


def describe(step: Path, shapes: dict[Weight, tuple[int, ...]]) -> None:
    """The real shapes into orbax's own descriptions."""
    by_name = {f"params.{weight.ours}": shape for weight, shape in shapes.items()}
    file = step / "state/_METADATA"
    values = json.loads(file.read_text())
    for entry in values["tree_metadata"].values():
        name = ".".join(key["key"] for key in entry["key_metadata"])
        entry["value_metadata"]["write_shape"] = list(by_name[name])
    write_atomic(file, json.dumps(values).encode())
    for file in (step / "state/array_metadatas").glob("process_*"):
        values = json.loads(file.read_text())
        for entry in values["array_metadatas"]:
            shape = by_name[entry["array_metadata"]["param_name"]]
            stacked = entry["array_metadata"]["param_name"].startswith("params.layers.")
            entry["array_metadata"] |= {"write_shape": list(shape), "chunk_shape": [1, *shape[1:]] if stacked else list(shape)}
        write_atomic(file, json.dumps(values).encode())


