"""Hugging Face folders: config.json and safetensors, whole or in shards, read and written."""

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llama_jax.config import ModelConfig
from llama_jax.errors import DataError
from llama_jax.formats.base import (
    EMBEDDING_TENSOR,
    HEAD_TENSOR,
    STORED_DTYPES,
    compute_dtype,
    lossless_dtype,
    require_finite,
)
from llama_jax.formats.config_json import hf_settings, model_config, read_json
from llama_jax.formats.mapping import Tensor, from_ours, tensors, to_ours
from llama_jax.formats.tokenizer_export import generation, hf_files
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer

LOG = logging.getLogger(__name__)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
IDLE = "rotary_emb.inv_freq"
"""A table that old files carry along, once per layer."""
LAYER = re.compile(r"model\.layers\.(\d+)\.")
QUANTISED = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".absmax",
             ".quant_map", ".SCB")
"""Ends of the names of tensors that GPTQ, AWQ, FP8, compressed-tensors and bitsandbytes store."""
MOST_NAMED = 4
"""How many files that are not read are named."""
OTHER = re.compile(r"(model|pytorch_model).*\.(safetensors|bin)(\.index\.json)?")
"""Names of weights, and of their indexes, in transformers' folders."""
NAMES = {"F32": STORED_DTYPES["float32"], "BF16": STORED_DTYPES["bfloat16"], "F16": STORED_DTYPES["float16"]}
"""safetensors' names of the dtypes that weights may have."""
SHARD_BYTES = 2 << 30
"""A file of weights holds at most this, and memory one file while it is written."""


class HFFolder:
    """Weights of a LlamaForCausalLM, read as transformers reads them, or refused where the folder contradicts itself."""

    format, padded = "Hugging Face folder", True

    def __init__(self, folder: Path):
        self.folder = folder
        if (folder / ADAPTER).is_file():
            raise DataError(f"{folder} holds an adapter ({ADAPTER}), whose weights are to be added to the model's; merge them "
                            "first (merge_and_unload of peft), or move it away.")
        files, index = weight_files(folder)
        self._stored = stored(files)
        self.config = model_config(read_json(folder / CONFIG), folder / CONFIG)
        self._check_names()
        self._untie()
        self._check_index(index)
        self.dtype = lossless_dtype({NAMES[self._stored[tensor.hf][1]] for tensor in tensors(self.config)})
        self.config = replace(self.config, dtype=compute_dtype(self.dtype))
        say_unread(folder, files, index=index)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is such a folder."""
        values = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
        return "model_type" in values or "architectures" in values

    @staticmethod
    def has_weights(path: Path) -> bool:
        """Whether `path` holds weights in this format."""
        return (path / WEIGHTS).is_file() or (path / INDEX).is_file()

    def _check_names(self) -> None:
        """Every tensor of the model, in its shape and a dtype of weights, and no other."""
        wanted = {tensor.hf: tensor.stored_shape(self.config) for tensor in tensors(self.config)}
        if HEAD_TENSOR.hf in self._stored:  # also of a tied model
            wanted[HEAD_TENSOR.hf] = HEAD_TENSOR.stored_shape(self.config)
        for name in self._stored.keys() - wanted.keys():
            if not name.endswith(IDLE):
                raise DataError(f"{self.folder} holds {name}, {self._foreign(name)}.")
        if missing := [name for name in wanted if name not in self._stored]:
            why = "is tie_word_embeddings missing there, or a file" if missing == [HEAD_TENSOR.hf] else "is a file missing"
            raise DataError(f"{self.folder} lacks {len(missing)} of {len(wanted)} tensors that {CONFIG} asks for, first "
                            f"{missing[0]}; {why}?")
        for name, shape in wanted.items():
            file, dtype, found = self._stored[name]
            if found != shape:
                raise DataError(f"{name} in {file} has the shape {found}, and {CONFIG} asks for {shape}.")
            if dtype not in NAMES:
                raise DataError(f"{name} in {file} is {dtype}; weights should be one of {', '.join(NAMES)}.")

    def _foreign(self, name: str) -> str:
        """What to say of a tensor that the config does not ask for."""
        layers = self.config.num_layers
        if (layer := LAYER.match(name)) and int(layer[1]) >= layers:
            return (f"a tensor of layer {layer[1]}, and num_hidden_layers = {layers} in {CONFIG} ends at layer {layers - 1}; one "
                    "of the two is another model's")
        if name.endswith(QUANTISED):
            return "which belongs to quantised weights; only float32, bfloat16 and float16 ones are read"
        return "which a LLaMA does not have; it cannot be read without it"

    def _untie(self) -> None:
        """A tied config, and a head in the files that is not the embedding: the head is kept, as transformers keeps it."""
        if not self.config.tied_embeddings or HEAD_TENSOR.hf not in self._stored:
            return
        if not np.array_equal(self._array(EMBEDDING_TENSOR.hf), self._array(HEAD_TENSOR.hf)):
            self.config = replace(self.config, tied_embeddings=False)
            LOG.warning("%s: %s says tie_word_embeddings, but %s is not the embedding; it is kept as a head of its own.",
                        self.folder, CONFIG, HEAD_TENSOR.hf)

    def _check_index(self, index: dict[str, str] | None) -> None:
        """Every tensor of the model lies where the index says."""
        for name in (tensor.hf for tensor in tensors(self.config)) if index is not None else ():
            file = self._stored[name][0].name
            if index.get(name) != file:
                raise DataError(f"{name} lies in {file} of {self.folder}, and {INDEX} says {index.get(name, 'nothing of it')}; "
                                "files of two models are mixed: get them again.")

    def _array(self, name: str) -> np.ndarray:
        """A tensor as it is stored."""
        file = self._stored[name][0]
        try:
            with safe_open(file, framework="np") as weights:  # closed again: what was mapped leaves memory
                return weights.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{name} in {file} cannot be read ({error}); get the file again.") from None

    def read(self, tensor: Tensor) -> np.ndarray:
        """As of every source."""
        name = f"{tensor.hf} in {self._stored[tensor.hf][0]}"
        return to_ours(require_finite(self._array(tensor.hf), name), tensor, self.config)

    def tokenizer(self) -> Tokenizer:
        """As of every source."""
        return load_tokenizer(self.folder)


def stored(files: list[Path]) -> dict[str, tuple[Path, str, tuple[int, ...]]]:
    """(file, dtype, shape) of every tensor by name; raises DataError where two files hold one."""
    found: dict[str, tuple[Path, str, tuple[int, ...]]] = {}
    for file in files:
        for name, dtype, shape in header(file):
            if name in found and not name.endswith(IDLE):
                raise DataError(f"{name} lies in both {found[name][0].name} and {file.name} of {file.parent}; files of two "
                                "models are mixed: get them again.")
            found[name] = file, dtype, shape
    return found


def header(file: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of the tensors in a file; raises DataError where it is damaged."""
    try:
        with safe_open(file, framework="np") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            return [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()]
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is not a whole safetensors file ({str(error)[:200]}); get it again.") from None


def weight_files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The safetensors files of a folder and, where it names them, the index (tensor -> file); raises DataError.

    As transformers does it, WEIGHTS goes before an index, which an earlier save may have left.
    """
    if (folder / WEIGHTS).is_file():
        return [inside(folder, WEIGHTS)], None
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder} holds neither {WEIGHTS} nor {INDEX}; weights in other formats are not read.")
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{folder / INDEX} has no weight_map from tensors to files; get it again.")
    return [inside(folder, name) for name in sorted(set(names.values()))], names


def say_unread(folder: Path, files: list[Path], *, index: dict[str, str] | None) -> None:
    """Log the names of other weights that lie beside those that are read."""
    read = {file.name for file in files} | ({INDEX} if index is not None else set())
    beside = sorted(file.name for file in folder.iterdir() if OTHER.fullmatch(file.name) and file.name not in read)
    beside.sort(key=INDEX.__ne__)  # the index first: it says the most
    if beside:
        LOG.warning("%s: %s is read; not read, though it lies there: %s.", folder, INDEX if index is not None else WEIGHTS,
                    ", ".join([*beside[:MOST_NAMED], *([f"{len(beside) - MOST_NAMED} more"] if beside[MOST_NAMED:] else [])]))


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder; raises DataError where it is absent or leads outside.

    The links of a Hugging Face cache lead from a snapshot to the blobs of the same model; these are inside.
    """
    file, home = folder / name, folder.resolve()
    home = home.parent.parent if home.parent.name == "snapshots" else home
    if not Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder)) or not file.resolve().is_relative_to(home):
        raise DataError(f"{name} leads outside of {folder}; a folder of weights should hold them itself.")
    if not file.is_file():
        raise DataError(f"{folder} names {name}, which is not there; get the missing file.")
    return file


def write_hf(folder: Path, config: ModelConfig, dtype: np.dtype, weights: Iterable[tuple[Tensor, np.ndarray]],
             tokenizer: Tokenizer | None) -> None:
    """A folder for `AutoModelForCausalLM.from_pretrained`; `weights` are all tensors in our axes, in order.

    Memory holds one file of SHARD_BYTES at most, and the tensor that comes next.
    """
    shards = plan(config, dtype)
    names = [WEIGHTS] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors"
                                               for n in range(1, len(shards) + 1)]
    source = iter(weights)
    for name, shard in zip(names, shards, strict=True):
        part = {}
        for wanted in shard:
            tensor, ours = next(source)
            if tensor != wanted:
                raise DataError(f"the weights come in another order: {tensor.hf} where {wanted.hf} should be.")
            part[tensor.hf] = from_ours(ours, tensor, config)
        save_file(part, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(folder.stat().st_mode & 0o666)  # the library lets nobody else read it
        del part
    if len(shards) > 1:
        index = {tensor.hf: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(size(tensor, config, dtype) for shard in shards for tensor in shard)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    write_json(folder / CONFIG, hf_settings(config, dtype.name, tokenizer))
    if tokenizer is not None:
        write_json(folder / "generation_config.json", generation(tokenizer))
        for name, data in hf_files(tokenizer).items():
            (folder / name).write_bytes(data)


def plan(config: ModelConfig, dtype: np.dtype) -> list[list[Tensor]]:
    """Tensors in order, cut into files of at most SHARD_BYTES each."""
    shards: list[list[Tensor]] = [[]]
    room = SHARD_BYTES
    for tensor in tensors(config):
        room -= size(tensor, config, dtype)
        if room < 0 and shards[-1]:
            shards.append([])
            room = SHARD_BYTES - size(tensor, config, dtype)
        shards[-1].append(tensor)
    return shards


def size(tensor: Tensor, config: ModelConfig, dtype: np.dtype) -> int:
    """Bytes of a tensor."""
    return int(np.prod(tensor.shape(config))) * dtype.itemsize


def write_json(file: Path, values: dict[str, Any]) -> None:
    """As people read it."""
    file.write_text(json.dumps(values, indent=2) + "\n")
