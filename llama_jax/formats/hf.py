"""Hugging Face folders of a LlamaForCausalLM: config.json and safetensors, in one file or several, read and written."""

import json
import logging
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llama_jax.config import ModelConfig, Verification
from llama_jax.errors import DataError
from llama_jax.files.json_object import read_json_object
from llama_jax.formats.base import (
    EMBEDDING_TENSOR,
    HEAD_TENSOR,
    STORED_DTYPES,
    compute_for,
    lossless_dtype,
    require_finite,
)
from llama_jax.formats.config_json import config_from_hf, config_to_hf
from llama_jax.formats.mapping import Tensor, from_ours, tensors, to_ours
from llama_jax.formats.safetensors_files import (
    IGNORED_SUFFIX,
    INDEX_FILE,
    WEIGHTS_FILE,
    checksums_as_metadata,
    find_tensors,
    find_weight_files,
    warn_of_unread_weights,
)
from llama_jax.formats.sums import is_chosen
from llama_jax.formats.tokenizer_export import hf_generation_config, hf_tokenizer_files
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer

LOG = logging.getLogger(__name__)

SHARD_BYTES = 2 << 30
"""Largest size of a file of weights, and so of what memory holds while one is written."""

_CONFIG_FILE, _ADAPTER_FILE = "config.json", "adapter_config.json"

_DTYPES = {"F32": STORED_DTYPES["float32"], "BF16": STORED_DTYPES["bfloat16"], "F16": STORED_DTYPES["float16"]}
"""The dtypes that weights may have, by safetensors' names."""
_LAYER_PREFIX = re.compile(r"model\.layers\.(\d+)\.")
_QUANTISED_SUFFIXES = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".weight_packed",
                       ".absmax", ".quant_map", ".SCB")
"""How tensors of GPTQ, AWQ, FP8, compressed-tensors and bitsandbytes weights are called."""


class HFFolder:
    """The weights of a Hugging Face folder, read as transformers reads them.

    Raises DataError where the folder is damaged, contradicts itself or holds something else than a LLaMA.
    """

    format, padded = "Hugging Face folder", True

    def __init__(self, folder: Path, *, verify: Verification = "full"):
        self.folder, self._verify = folder, verify
        if (folder / _ADAPTER_FILE).is_file():
            raise DataError(f"{folder} holds an adapter ({_ADAPTER_FILE}), whose weights are to be added to the model's; merge "
                            "them first (merge_and_unload of peft), or move it away.")
        files, index = find_weight_files(folder)
        self._stored = find_tensors(files)
        self.config = config_from_hf(read_json_object(folder / _CONFIG_FILE), folder / _CONFIG_FILE)
        self._check_tensors()
        self._untie_if_heads_differ()
        if index is not None:
            self._check_index(index)
        self.dtype = lossless_dtype({_DTYPES[self._stored[tensor.hf].dtype] for tensor in tensors(self.config)})
        self.compute = compute_for(self.dtype)
        warn_of_unread_weights(folder, files, index=index)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is a Hugging Face folder, by its config.json."""
        values = read_json_object(path / _CONFIG_FILE) if (path / _CONFIG_FILE).is_file() else {}
        return "model_type" in values or "architectures" in values

    @staticmethod
    def has_weights(path: Path) -> bool:
        """Whether `path` holds weights in safetensors files."""
        return (path / WEIGHTS_FILE).is_file() or (path / INDEX_FILE).is_file()

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        """Read one tensor, as WeightSource says."""
        stored = self._stored[tensor.hf]
        array = stored.read(tensor.hf, verify=is_chosen(self._verify))
        if check_finite:
            require_finite(array, f"{tensor.hf} in {stored.file}")
        return to_ours(array, tensor, config=self.config)

    def tokenizer(self) -> Tokenizer:
        """Load the folder's tokenizer, as WeightSource says."""
        return load_tokenizer(self.folder)

    def _check_tensors(self) -> None:
        """Raise DataError unless every tensor of the model is there in its shape and a dtype of weights, and no other is."""
        if self.config.num_layers > len(self._stored):  # said before the names of so many tensors are made
            raise DataError(f"{self.folder} holds {len(self._stored)} tensors, and {_CONFIG_FILE} asks for "
                            f"{self.config.num_layers:,} layers; is a file missing?")
        wanted = {tensor.hf: tensor.stored_shape(self.config) for tensor in tensors(self.config)}
        if HEAD_TENSOR.hf in self._stored:  # a model with tied embeddings may store its head too
            wanted[HEAD_TENSOR.hf] = HEAD_TENSOR.stored_shape(self.config)
        for name in self._stored.keys() - wanted.keys():
            if not name.endswith(IGNORED_SUFFIX):
                raise DataError(f"{self.folder} holds {name}, {self._why_unwanted(name)}.")
        if missing := [name for name in wanted if name not in self._stored]:
            why = "is tie_word_embeddings missing there, or a file" if missing == [HEAD_TENSOR.hf] else "is a file missing"
            raise DataError(f"{self.folder} lacks {len(missing)} of {len(wanted)} tensors that {_CONFIG_FILE} asks for, first "
                            f"{missing[0]}; {why}?")
        for name, shape in wanted.items():
            stored = self._stored[name]
            if stored.shape != shape:
                raise DataError(f"{name} in {stored.file} has the shape {stored.shape}, and {_CONFIG_FILE} asks for {shape}.")
            if stored.dtype not in _DTYPES:
                raise DataError(f"{name} in {stored.file} is {stored.dtype}; weights should be one of {', '.join(_DTYPES)}.")

    def _why_unwanted(self, name: str) -> str:
        """The clause of an error message on a tensor that the config does not ask for."""
        layers = self.config.num_layers
        if (layer := _LAYER_PREFIX.match(name)) and int(layer[1]) >= layers:
            return (f"a tensor of layer {layer[1]}, and num_hidden_layers = {layers} in {_CONFIG_FILE} ends at layer "
                    f"{layers - 1}; one of the two is another model's")
        if name.endswith(_QUANTISED_SUFFIXES):
            return "which belongs to quantised weights; only float32, bfloat16 and float16 ones are read"
        return "which a LLaMA does not have; it cannot be read without it"

    def _untie_if_heads_differ(self) -> None:
        """Where a config says tied but a head is stored that is not the embedding, keep the head, as transformers does."""
        if not self.config.tied_embeddings or HEAD_TENSOR.hf not in self._stored:
            return
        embedding, head = (self._stored[tensor.hf].read(tensor.hf) for tensor in (EMBEDDING_TENSOR, HEAD_TENSOR))
        if not np.array_equal(embedding, head):
            self.config = replace(self.config, tied_embeddings=False)
            LOG.warning("%s: %s says tie_word_embeddings, but %s is not the embedding; it is kept as a head of its own.",
                        self.folder, _CONFIG_FILE, HEAD_TENSOR.hf)

    def _check_index(self, index: dict[str, str]) -> None:
        """Raise DataError unless every tensor of the model lies where the index says."""
        for tensor in tensors(self.config):
            file = self._stored[tensor.hf].file.name
            if index.get(tensor.hf) != file:
                told = index.get(tensor.hf, "nothing of it")
                raise DataError(f"{tensor.hf} lies in {file} of {self.folder}, and {INDEX_FILE} says {told}; files of two "
                                "models are mixed: get them again.")


def write_hf(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: np.dtype,
    weights: Iterable[tuple[Tensor, np.ndarray]],
    tokenizer: Tokenizer | None,
) -> None:
    """Write a folder for `AutoModelForCausalLM.from_pretrained`.

    `weights` are all tensors of the model in this project's axes, in the order of `tensors(config)` and in `dtype`. Memory
    holds one file of SHARD_BYTES at most, and the tensor that comes next. Raises ConfigError for a model that the format cannot
    hold.
    """
    settings = config_to_hf(config, dtype.name)
    shards = _cut_into_shards(config, dtype)
    if len(shards) == 1:
        names = [WEIGHTS_FILE]
    else:
        names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    source = iter(weights)
    for name, shard in zip(names, shards, strict=True):
        part = {}
        for wanted in shard:
            tensor, ours = next(source)
            if tensor != wanted:
                raise DataError(f"the weights come in another order: {tensor.hf} where {wanted.hf} should be.")
            part[tensor.hf] = from_ours(ours, tensor, config=config)
        save_file(part, folder / name, metadata={"format": "pt"} | checksums_as_metadata(part))
        (folder / name).chmod(folder.stat().st_mode & 0o666)  # the library makes files that only their owner can read
        del part
    if len(shards) > 1:
        index = {tensor.hf: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(_size_of(tensor, config, dtype=dtype) for tensor in tensors(config))
        _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": index})
    if tokenizer is not None:
        generation = hf_generation_config(tokenizer)
        settings |= generation
        _write_json(folder / "generation_config.json", generation)
        for name, data in hf_tokenizer_files(tokenizer).items():
            (folder / name).write_bytes(data)
    _write_json(folder / _CONFIG_FILE, settings)


def _cut_into_shards(config: ModelConfig, dtype: np.dtype) -> list[list[Tensor]]:
    """The model's tensors in order, cut into files of at most SHARD_BYTES; a larger tensor has a file of its own."""
    shards: list[list[Tensor]] = [[]]
    left = SHARD_BYTES
    for tensor in tensors(config):
        size = _size_of(tensor, config, dtype=dtype)
        if size > left and shards[-1]:
            shards.append([])
            left = SHARD_BYTES
        shards[-1].append(tensor)
        left -= size
    return shards


def _size_of(tensor: Tensor, config: ModelConfig, *, dtype: np.dtype) -> int:
    """Bytes of a tensor."""
    return math.prod(tensor.shape(config)) * dtype.itemsize


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n")
