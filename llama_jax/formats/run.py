"""Run directories as a source of weights, tensor by tensor, and written from weights of another format."""

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import tensorstore
from flax import traverse_util

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, ModelConfig, Verification, to_dict
from llama_jax.errors import DamagedError, DataError
from llama_jax.files.atomic import write_atomic
from llama_jax.formats.base import STORED_DTYPES, lossless_dtype, require_finite
from llama_jax.formats.checkpoints import Checkpoints, check_step, checkpoint_errors, warn_of_no_sums
from llama_jax.formats.mapping import Tensor, Weight, weights_of
from llama_jax.formats.sums import CheckpointSums, TensorSums, is_chosen, json_sha256, write_sums
from llama_jax.model.tree import parameters
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer


class RunFolder:
    """The weights of a run directory (its newest step), or of one of its steps, compared with its checksums as they are read.

    Raises DamagedError where the checkpoint is damaged, DataError where its folder has the number of another step.
    """

    format = "run directory"

    def __init__(self, path: Path, *, verify: Verification = "full"):
        self.folder, self.step = find_checkpoint(path)
        self.verify = verify
        with closing(Checkpoints(self.folder / "checkpoints", verify=verify)) as checkpoints:
            config, self._sums = checkpoints.config(self.step), checkpoints.sums(self.step)
        self.config, self.compute = config.model, config.compute
        self.padded = bool(config.init_from)  # a run that began with random weights has as many ids as its tokenizer
        self._path = self.folder / "checkpoints" / str(self.step)
        self._arrays = {name: self._open(name, leaf.shape) for name, leaf in parameters(self.config).items()}
        self.dtype = lossless_dtype({np.dtype(array.dtype.numpy_dtype) for array in self._arrays.values()})
        if self._sums is None and verify != "never":
            self._check_without_sums()
        self._chunk: tuple[Weight, range, np.ndarray] | None = None
        """The chunk that was read last: its parameter, its layers, and their values."""

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is a run directory with a checkpoint, or a step of one."""
        is_step = path.parent.name == "checkpoints" and path.name.isdigit() and not (path / "config.json").exists()
        return bool(checkpoint_steps(path)) or is_step

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        """Read one tensor, as WeightSource says.

        Layers that share a chunk on disk are read together and kept until a tensor of another chunk is asked for.
        """
        weight, layer = tensor.weight, tensor.layer
        if self._chunk is None or self._chunk[0] != weight or layer not in self._chunk[1]:
            self._chunk = None  # memory holds one chunk
            self._chunk = self._read_chunk(weight, layer)
        _, layers, values = self._chunk
        array = values[layer - layers.start]
        if self._sums is not None and is_chosen(self.verify):
            with checkpoint_errors(self._path):
                self._sums.check_tensor(f"params.{weight.ours}", array, layer=layer if weight.stacked else None)
        return require_finite(array, f"{tensor.ours} in {self._path}") if check_finite else array

    def tokenizer(self) -> Tokenizer:
        """Load the run's tokenizer, as WeightSource says."""
        return load_tokenizer(self.folder)

    def _check_without_sums(self) -> None:
        """Say that an earlier version's checkpoint has no checksums, and compare its step with its number."""
        warn_of_no_sums(self._path)
        try:
            saved = _open_array(self._path, "step").read().result()
        except ValueError:  # weights that were converted have none
            return
        check_step(self._path, int(saved))

    def _open(self, name: str, wanted: tuple[int, ...]) -> tensorstore.TensorStore:
        with checkpoint_errors(self._path):
            array = _open_array(self._path, f"params.{name}")
        if array.shape != wanted or array.dtype.name not in STORED_DTYPES:
            raise DamagedError(f"{name} in {self._path} is {array.dtype.name} of shape {tuple(array.shape)}, and its config "
                            f"asks for {wanted}.")
        return array

    def _read_chunk(self, weight: Weight, layer: int) -> tuple[Weight, range, np.ndarray]:
        array = self._arrays[weight.ours]
        with checkpoint_errors(self._path):
            if not weight.stacked:
                return weight, range(1), array[None].read().result()
            size = array.chunk_layout.read_chunk.shape[0]
            first = layer // size * size
            layers = range(first, min(first + size, self.config.num_layers))
            return weight, layers, array[layers.start : layers.stop].read().result()


def checkpoint_steps(path: Path) -> list[int]:
    """The steps that a run directory holds checkpoints of, in no order."""
    folder = path / "checkpoints"
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []


def find_checkpoint(path: Path) -> tuple[Path, int]:
    """(run directory, step) of a run directory, whose newest step is taken, or of DIR/checkpoints/STEP.

    Raises DataError where there is no checkpoint.
    """
    if path.parent.name == "checkpoints" and path.name.isdigit() and path.is_dir():
        return path.parent.parent, int(path.name)
    if not (steps := checkpoint_steps(path)):
        raise DataError(f"no checkpoint at {path}: expected a run directory of train.py with checkpoints/<step>, or one of "
                        "these steps.")
    return path, max(steps)


def write_run(
    folder: Path, config: Config, *, weights: Iterable[tuple[Tensor, np.ndarray]], tokenizer: Tokenizer | None
) -> None:
    """Write a run directory that holds a config (`config_around_model`) and step 0 alone.

    `weights` are all tensors of the model in the order of `tensors(config.model)`, those of one parameter in one dtype.
    """
    shapes = {weight: parameters(config.model)[weight.ours].shape for weight in weights_of(config.model)}
    # orbax saves whole arrays only. It is given arrays of one number, for the sake of the files that it writes around them;
    # then each array is made anew and filled a layer at a time, so that memory never holds all layers.
    scalars = traverse_util.unflatten_dict({weight.ours: jax.numpy.zeros(()) for weight in shapes}, sep=".")
    begun = folder / "unfinished"  # it has another name until it is complete, so that a kill leaves nothing that can be loaded
    with closing(Checkpoints(begun, CheckpointConfig())) as checkpoints:
        checkpoints.save(0, {"params": scalars}, config=config)
    weight, array, sums = None, None, {}
    for tensor, ours in weights:
        if tensor.weight != weight:
            weight = tensor.weight
            array = _recreate_array(begun / "0", weight, shape=shapes[weight], dtype=ours.dtype)
            sums[f"params.{weight.ours}"] = collector = TensorSums(shapes[weight], ours.dtype, {})
        collector.add(ours, layer=tensor.layer if weight.stacked else None)
        place = array[tensor.layer] if weight.stacked else array
        place.write(np.ascontiguousarray(ours)).result()
    _write_shapes_into_metadata(begun / "0", shapes)
    arrays = {name: collector.result() for name, collector in sums.items()}
    write_sums(begun / "0", CheckpointSums(0, {"config": json_sha256(to_dict(config))}, arrays))
    begun.rename(folder / "checkpoints")
    write_atomic(folder / "config.json", (json.dumps(to_dict(config), indent=1) + "\n").encode())
    if tokenizer is not None:
        tokenizer.save(folder)


def config_around_model(model: ModelConfig, compute: ComputeConfig, *, name: str, origin: str) -> Config:
    """A whole Config around a model, for the config.json of a run called `name` whose weights come from the folder `origin`."""
    default = Config()
    data = replace(default.data, sequence_length=min(default.data.sequence_length, model.max_length))
    return replace(default, name=name, init_from=origin, model=model, compute=compute, data=data)


def _chunk_shape(weight: Weight, shape: tuple[int, ...]) -> list[int]:
    """One layer per chunk."""
    return [1, *shape[1:]] if weight.stacked else list(shape)


def _open_array(step: Path, name: str, **options) -> tensorstore.TensorStore:
    """An array where orbax puts it: in zarr, all arrays of a checkpoint in one OCDBT database."""
    place = {"driver": "ocdbt", "base": (step / "state").absolute().as_uri() + "/", "path": f"{name}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": place, **options.pop("spec", {})}, **{"open": True} | options).result()


def _recreate_array(step: Path, weight: Weight, *, shape: tuple[int, ...], dtype: np.dtype) -> tensorstore.TensorStore:
    """An empty array of this shape in the place of the one that is there."""
    metadata = {"shape": list(shape), "chunks": _chunk_shape(weight, shape), "compressor": {"id": "zstd", "level": 1},
                "dtype": "bfloat16" if dtype == STORED_DTYPES["bfloat16"] else dtype.str}
    return _open_array(step, f"params.{weight.ours}", spec={"metadata": metadata, "store_data_equal_to_fill_value": True},
                       open=False, create=True, delete_existing=True)


def _write_shapes_into_metadata(step: Path, shapes: dict[Weight, tuple[int, ...]]) -> None:
    """Give the arrays' shapes to the descriptions that orbax keeps beside them, which still say that they are scalars."""
    weights = {f"params.{weight.ours}": weight for weight in shapes}
    file = step / "state/_METADATA"
    values = json.loads(file.read_text())
    for entry in values["tree_metadata"].values():
        weight = weights[".".join(key["key"] for key in entry["key_metadata"])]
        entry["value_metadata"]["write_shape"] = list(shapes[weight])
    write_atomic(file, json.dumps(values).encode())
    for file in (step / "state/array_metadatas").glob("process_*"):
        values = json.loads(file.read_text())
        for entry in values["array_metadatas"]:
            weight = weights[entry["array_metadata"]["param_name"]]
            shape = shapes[weight]
            entry["array_metadata"] |= {"write_shape": list(shape), "chunk_shape": _chunk_shape(weight, shape)}
        write_atomic(file, json.dumps(values).encode())
