"""Meta folders: params.json and consolidated.NN.pth, one file per model-parallel shard, read and written."""

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig, Verification
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.json_object import read_json_object
from llama_jax.formats.base import (
    EMBEDDING_TENSOR,
    HEAD_TENSOR,
    compute_for,
    lossless_dtype,
    require_finite,
)
from llama_jax.formats.mapping import TABLE, Tensor, from_ours, reorder_rotary_rows, tensors, to_ours
from llama_jax.formats.params_json import config_from_meta, config_to_meta
from llama_jax.formats.torchfile import TorchFile, TorchWriter
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.bpe import Tiktoken
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer

_PARAMS_FILE = "params.json"
_SHARD_FILE = re.compile(r"consolidated\.(\d+)\.pth")

_IGNORED_TENSOR = "rope.freqs"
"""Rotary frequencies that old files store; they are computed from the config."""

_COPY_TOLERANCE = (1e-2, 1e-3)
"""Relative and absolute difference between the copies of one norm in the files of a model; the first file's is read."""

_ShardShapes = dict[str, tuple[tuple[int, ...], np.dtype]]
"""(shape, dtype) of the tensors in one file by name."""


class MetaFolder:
    """The weights of a Meta folder; raises DataError where it is damaged, contradicts itself or holds no LLaMA."""

    format, padded = "Meta folder", True

    def __init__(self, folder: Path, *, verify: Verification = "full"):
        """Open the folder; a tensor is always compared with its zip's checksum, whatever `verify` says."""
        del verify
        self.folder = folder
        self._files = [TorchFile(path) for path in _find_shards(folder)]
        shapes = [file.shapes() for file in self._files]
        values = read_json_object(folder / _PARAMS_FILE)
        self.dtype = lossless_dtype({dtype for shard in shapes for name, (_, dtype) in shard.items() if name != _IGNORED_TENSOR})
        self._embedding_split = _split_of_embedding(shapes, values.get("dim"), folder=folder)
        tied = self._is_tied(shapes)
        gate = Tensor(next(weight for weight in TABLE if weight.ours.endswith("w_gate")))
        self.config = config_from_meta(
            values,
            folder / _PARAMS_FILE,
            vocab_size=self._whole_shape(shapes, EMBEDDING_TENSOR)[0],
            ffn_dim=self._whole_shape(shapes, gate)[0],
            tied=tied,
        )
        self.compute = compute_for(self.dtype)
        self._check_tensors(shapes)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is a Meta folder, by its files' names."""
        return (path / _PARAMS_FILE).is_file() and any(_SHARD_FILE.fullmatch(entry.name) for entry in path.iterdir())

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        """Read one tensor, as WeightSource says."""
        stored = self._join(tensor)
        if check_finite:
            require_finite(stored, f"{tensor.meta} in {self.folder}")
        if tensor.weight.rotary:
            stored = reorder_rotary_rows(stored, tensor.heads(self.config), to="halves")
        return to_ours(stored, tensor, config=self.config)

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer, as WeightSource says; LLaMA 1 has one for all sizes, in the folder above theirs."""
        return load_tokenizer(self.folder if holds_tokenizer(self.folder) else self.folder.resolve().parent)

    def _is_tied(self, shapes: list[_ShardShapes]) -> bool:
        """Whether there is no head or it equals the embedding; params.json does not say it."""
        if not any(HEAD_TENSOR.meta in shard for shard in shapes):
            return True
        if self._whole_shape(shapes, EMBEDDING_TENSOR) != self._whole_shape(shapes, HEAD_TENSOR):
            return False
        embedding = hashlib.sha256(self._join(EMBEDDING_TENSOR).view(np.uint8)).digest()
        head = hashlib.sha256(self._join(HEAD_TENSOR).view(np.uint8)).digest()  # hashes, so that memory holds one of them
        return embedding == head

    def _check_tensors(self, shapes: list[_ShardShapes]) -> None:
        """Raise DataError unless every shard holds every tensor of the model in its shape, and no other."""
        if self.config.num_layers > len(shapes[0]):  # said before the names of so many tensors are made
            raise DataError(f"{self.folder} holds {len(shapes[0])} tensors, and {_PARAMS_FILE} asks for "
                            f"{self.config.num_layers:,} layers; is a file missing?")
        wanted = {tensor.meta: tensor for tensor in tensors(self.config)}
        ignored = {_IGNORED_TENSOR}
        if self.config.tied_embeddings:
            ignored.add(HEAD_TENSOR.meta)
        for file, shard in zip(self._files, shapes, strict=True):
            if unknown := sorted(shard.keys() - wanted.keys() - ignored):
                raise DataError(f"{file.path} holds {unknown[0]}, which a LLaMA of {self.config.num_layers} layers does not "
                                "have.")
        for name, tensor in wanted.items():
            found, asked = self._whole_shape(shapes, tensor), tensor.stored_shape(self.config)
            if found != asked:
                raise DataError(f"{name} in {self.folder} has the shape {found} over {len(shapes)} file(s), and {_PARAMS_FILE} "
                                f"asks for {asked}; is a file missing?")

    def _split(self, tensor: Tensor) -> str:
        return self._embedding_split if tensor == EMBEDDING_TENSOR else tensor.weight.split

    def _whole_shape(self, shapes: list[_ShardShapes], tensor: Tensor) -> tuple[int, ...]:
        return _shape_over_shards(shapes, tensor, split=self._split(tensor), folder=self.folder)

    def _join(self, tensor: Tensor) -> np.ndarray:
        """A tensor as it is stored, put together from all shards; raises DataError where copies of it differ."""
        split = self._split(tensor)
        parts = [file.read(tensor.meta) for file in self._files]
        if len(parts) > 1 and split:
            dtype = lossless_dtype({part.dtype for part in parts})
            return np.concatenate([part.astype(dtype, copy=False) for part in parts], axis=_axis_of(split))
        for file, part in zip(self._files, parts, strict=True):
            if not np.allclose(part.astype(np.float32), parts[0].astype(np.float32), *_COPY_TOLERANCE, equal_nan=True):
                raise DataError(f"{tensor.meta} of {self.folder} should be the same in every file, and is another in "
                                f"{file.path.name} than in {self._files[0].path.name}; files of two models are mixed: get them "
                                "again.")
        return np.ascontiguousarray(parts[0])


def _find_shards(folder: Path) -> list[Path]:
    """consolidated.00.pth, 01 ...; raises DataError where one of them is missing or leads outside of the folder."""
    numbers = {int(match[1]): entry for entry in folder.iterdir() if (match := _SHARD_FILE.fullmatch(entry.name))}
    if missing := sorted(set(range(max(numbers))) - numbers.keys()):
        raise DataError(f"{folder} lacks consolidated.{missing[0]:02d}.pth, which belongs to the {max(numbers) + 1} files of "
                        "this model; get the missing file.")
    for file in numbers.values():
        if not file.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{file.name} leads outside of {folder}; a folder of weights should hold them itself.")
    return [numbers[number] for number in sorted(numbers)]


def _axis_of(split: str) -> int:
    """The axis of a stored (out, in) matrix that is cut."""
    return 0 if split == "out" else 1


def _shape_over_shards(shapes: list[_ShardShapes], tensor: Tensor, *, split: str, folder: Path) -> tuple[int, ...]:
    """The shape of a tensor over all shards; raises DataError where one of them lacks it or the parts do not fit."""
    parts = []
    for number, shard in enumerate(shapes):
        if tensor.meta not in shard:
            raise DataError(f"consolidated.{number:02d}.pth in {folder} lacks {tensor.meta}, which {_PARAMS_FILE} asks for.")
        parts.append(shard[tensor.meta][0])
    if len(set(parts)) > 1 or (split and len(parts[0]) != 2):
        raise DataError(f"{tensor.meta} in {folder} has the shapes {parts}, which do not fit together.")
    if not split:
        return parts[0]
    axis = _axis_of(split)
    shape = list(parts[0])
    shape[axis] = sum(part[axis] for part in parts)
    return tuple(shape)


def _split_of_embedding(shapes: list[_ShardShapes], dim: int | None, *, folder: Path) -> str:
    """How the embedding is divided over shards: by columns, "in" (LLaMA 1 and 2), or by rows, "out" (Llama 3)."""
    for split in ("in", "out"):
        if _shape_over_shards(shapes, EMBEDDING_TENSOR, split=split, folder=folder)[1] == dim:
            return split
    name = EMBEDDING_TENSOR.meta
    raise DataError(f"{name} in {folder} has the shape {shapes[0][name][0]} in each of {len(shapes)} file(s), and {_PARAMS_FILE} "
                    f"says dim {dim!r}; is a file missing?")


def write_meta(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: np.dtype,
    weights: Iterable[tuple[Tensor, np.ndarray]],
    tokenizer: Tokenizer | None,
    shards: int = 1,
) -> None:
    """Write params.json and `shards` files of weights.

    `weights` are all tensors of the model in this project's axes, in the order of `tensors(config)`. A tied embedding is
    written as the head too, since Meta's code reads one. Raises ConfigError for a model that the format cannot hold.
    """
    settings = config_to_meta(config)
    # Meta's code for Llama 3 divides the embedding by rows, its code for LLaMA 1 and 2 by columns
    embedding_split = "out" if isinstance(tokenizer, Tiktoken) else "in"
    splits = {tensor: embedding_split if tensor == EMBEDDING_TENSOR else tensor.weight.split for tensor in tensors(config)}
    if config.tied_embeddings:
        splits[HEAD_TENSOR] = HEAD_TENSOR.weight.split
    shapes = {tensor.meta: _shard_shape(tensor, config, split=split, shards=shards) for tensor, split in splits.items()}
    with ExitStack() as stack:
        files = [stack.enter_context(TorchWriter(folder / f"consolidated.{number:02d}.pth", shapes, dtype=dtype))
                 for number in range(shards)]

        def write(tensor: Tensor, stored: np.ndarray) -> None:
            split = splits[tensor]
            parts = np.split(stored, shards, _axis_of(split)) if split else [stored] * shards
            for file, part in zip(files, parts, strict=True):
                file.write(tensor.meta, part)

        for tensor, ours in weights:
            stored = from_ours(ours, tensor, config=config)
            if tensor.weight.rotary:
                stored = reorder_rotary_rows(stored, tensor.heads(config), to="neighbours")
            write(tensor, stored)
            if tensor == EMBEDDING_TENSOR and config.tied_embeddings:
                write(HEAD_TENSOR, stored)
    (folder / _PARAMS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(folder)


def _shard_shape(tensor: Tensor, config: ModelConfig, *, split: str, shards: int) -> tuple[int, ...]:
    """The shape of a tensor in each file; raises ConfigError where it cannot be divided."""
    shape = list(tensor.stored_shape(config))
    if split:
        axis = _axis_of(split)
        if shape[axis] % shards:
            raise ConfigError(f"{tensor.meta} of shape {tuple(shape)} cannot be divided into {shards} Meta shards; choose "
                              "another meta_shards.")
        shape[axis] //= shards
    return tuple(shape)
