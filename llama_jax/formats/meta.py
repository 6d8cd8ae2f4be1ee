"""Meta folders: params.json and consolidated.NN.pth, one file a model-parallel shard, read and written."""

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import EMBEDDING_TENSOR, HEAD_TENSOR, compute_dtype, lossless_dtype, require_finite
from llama_jax.formats.config_json import meta_config, meta_settings, read_json
from llama_jax.formats.mapping import TABLE, Tensor, from_ours, tensors, to_ours, turn
from llama_jax.formats.torchfile import TorchFile, TorchWriter
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.bpe import Tiktoken
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer

PARAMS = "params.json"
FILE = re.compile(r"consolidated\.(\d+)\.pth")
IDLE = "rope.freqs"
"""A table that old files carry along."""

ROUNDING = (1e-2, 1e-3)
"""Relative and absolute difference that copies of one norm may have in the files of one model; the first file's are taken."""

Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


class MetaFolder:
    """Weights in the form of Meta's releases."""

    format, padded = "Meta folder", True

    def __init__(self, folder: Path):
        self.folder = folder
        self._files = [TorchFile(path) for path in shard_files(folder)]
        shapes = [file.shapes() for file in self._files]
        values = read_json(folder / PARAMS)
        self.dtype = lossless_dtype({dtype for shard in shapes for name, (_, dtype) in shard.items() if name != IDLE})
        self._vocab_split = vocabulary_split(shapes, values.get("dim"), folder)
        tied = self._is_tied(shapes)
        gate = next(weight for weight in TABLE if weight.ours.endswith("w_gate"))
        self.config = meta_config(
            values, folder / PARAMS, vocab_size=whole(shapes, EMBEDDING_TENSOR, self._vocab_split, folder)[0],
            ffn_dim=whole(shapes, Tensor(gate), "out", folder)[0], tied=tied, dtype=compute_dtype(self.dtype))
        self._check(shapes)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is such a folder."""
        return (path / PARAMS).is_file() and any(FILE.fullmatch(entry.name) for entry in path.iterdir())

    def _is_tied(self, shapes: list[Shapes]) -> bool:
        """The format cannot say it: a head that is absent, or the embedding once more."""
        if not any(HEAD_TENSOR.meta in shard for shard in shapes):
            return True
        if whole(shapes, EMBEDDING_TENSOR, self._vocab_split, self.folder) != whole(shapes, HEAD_TENSOR, "out", self.folder):
            return False
        one, other = (hashlib.sha256(self._joined(tensor).view(np.uint8)).digest() for tensor in (EMBEDDING_TENSOR, HEAD_TENSOR))
        return one == other

    def _check(self, shapes: list[Shapes]) -> None:
        """Every tensor of the model in every shard, in its shape, and no other."""
        wanted = {tensor.meta: tensor for tensor in tensors(self.config)}
        for number, shard in enumerate(shapes):
            idle = {HEAD_TENSOR.meta, IDLE} if self.config.tied_embeddings else {IDLE}
            if unknown := sorted(shard.keys() - wanted.keys() - idle):
                raise DataError(f"{self._files[number].path} holds {unknown[0]}, which a LLaMA of "
                                f"{self.config.num_layers} layers does not have.")
        for name, tensor in wanted.items():
            found, asked = whole(shapes, tensor, self._split(tensor), self.folder), tensor.stored_shape(self.config)
            if found != asked:
                raise DataError(f"{name} in {self.folder} has the shape {found} over {len(shapes)} file(s), and {PARAMS} "
                                f"asks for {asked}; is a file missing?")

    def _split(self, tensor: Tensor) -> str:
        return self._vocab_split if tensor == EMBEDDING_TENSOR else tensor.weight.split

    def _joined(self, tensor: Tensor) -> np.ndarray:
        """The tensor of all shards."""
        split = self._split(tensor)
        parts = [file.read(tensor.meta) for file in self._files]
        if len(parts) > 1 and split:
            return np.concatenate([part.astype(self.dtype, copy=False) for part in parts], axis=axis_of(split))
        for number, part in enumerate(parts):
            if not np.allclose(part.astype(np.float32), parts[0].astype(np.float32), *ROUNDING, equal_nan=True):
                raise DataError(f"{tensor.meta} of {self.folder} should be the same in every file, and is another in "
                                f"{self._files[number].path.name} than in {self._files[0].path.name}; files of two models are "
                                "mixed: get them again.")
        return np.ascontiguousarray(parts[0])

    def read(self, tensor: Tensor) -> np.ndarray:
        """As of every source."""
        stored = require_finite(self._joined(tensor), f"{tensor.meta} in {self.folder}")
        if tensor.weight.rotary:
            stored = turn(stored, tensor.heads(self.config), to="halves")
        return to_ours(stored, tensor, self.config)

    def tokenizer(self) -> Tokenizer:
        """As of every source; the first releases have one tokenizer for all sizes, beside their folders."""
        return load_tokenizer(self.folder if holds_tokenizer(self.folder) else self.folder.resolve().parent)


def shard_files(folder: Path) -> list[Path]:
    """consolidated.00.pth, 01 ...; raises DataError where one of the row is missing or leads outside."""
    numbers = {int(match[1]): entry for entry in folder.iterdir() if (match := FILE.fullmatch(entry.name))}
    if missing := sorted(set(range(max(numbers))) - numbers.keys()):
        raise DataError(f"{folder} lacks consolidated.{missing[0]:02d}.pth, which belongs to the {max(numbers) + 1} files of "
                        "this model; get the missing file.")
    for file in numbers.values():
        if not file.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{file.name} leads outside of {folder}; a folder of weights should hold them itself.")
    return [numbers[number] for number in sorted(numbers)]


def axis_of(split: str) -> int:
    """Which axis of (out, in) is cut."""
    return 0 if split == "out" else 1


def whole(shapes: list[Shapes], tensor: Tensor, split: str, folder: Path) -> tuple[int, ...]:
    """The shape of a tensor over all shards; raises DataError where one of them lacks it or they do not fit."""
    parts = []
    for number, shard in enumerate(shapes):
        if tensor.meta not in shard:
            raise DataError(f"consolidated.{number:02d}.pth in {folder} lacks {tensor.meta}, which {PARAMS} asks for.")
        parts.append(shard[tensor.meta][0])
    if len(set(parts)) > 1 or (split and len(parts[0]) != 2):
        raise DataError(f"{tensor.meta} in {folder} has the shapes {parts}, which do not fit together.")
    if not split:
        return parts[0]
    axis = axis_of(split)
    shape = list(parts[0])
    shape[axis] = sum(part[axis] for part in parts)
    return tuple(shape)


def vocabulary_split(shapes: list[Shapes], dim: int | None, folder: Path) -> str:
    """How the embedding is divided: by columns (LLaMA 1 and 2) or by rows (Llama 3)."""
    for split in ("in", "out"):
        if whole(shapes, EMBEDDING_TENSOR, split, folder)[1] == dim:
            return split
    name = EMBEDDING_TENSOR.meta
    raise DataError(f"{name} in {folder} has the shape {shapes[0][name][0]} in each of {len(shapes)} file(s), and {PARAMS} says "
                    f"dim {dim!r}; is a file missing?")


def write_meta(folder: Path, config: ModelConfig, dtype: np.dtype, weights: Iterable[tuple[Tensor, np.ndarray]],
               tokenizer: Tokenizer | None, shards: int = 1) -> None:
    """params.json and `shards` files; `weights` are all tensors in our axes, in order.

    Raises ConfigError for a model that the format cannot hold. A tied head is written out, since Meta's code reads one.
    """
    settings = meta_settings(config)
    vocab_split = "out" if isinstance(tokenizer, Tiktoken) else "in"  # Llama 3's code divides the embedding by rows
    splits = {tensor: vocab_split if tensor == EMBEDDING_TENSOR else tensor.weight.split for tensor in tensors(config)}
    if config.tied_embeddings:
        splits[HEAD_TENSOR] = HEAD_TENSOR.weight.split
    shapes = {tensor.meta: part_shape(tensor, split, config, shards) for tensor, split in splits.items()}
    with ExitStack() as stack:
        files = [stack.enter_context(TorchWriter(folder / f"consolidated.{number:02d}.pth", shapes, dtype))
                 for number in range(shards)]

        def write(tensor: Tensor, stored: np.ndarray) -> None:
            split = splits[tensor]
            parts = np.split(stored, shards, axis_of(split)) if split else [stored] * shards
            for file, part in zip(files, parts, strict=True):
                file.write(tensor.meta, part)

        for tensor, ours in weights:
            stored = from_ours(ours, tensor, config)
            write(tensor, turn(stored, tensor.heads(config), to="neighbours") if tensor.weight.rotary else stored)
            if tensor == EMBEDDING_TENSOR and config.tied_embeddings:
                write(HEAD_TENSOR, stored)
    (folder / PARAMS).write_text(json.dumps(settings, indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(folder)


def part_shape(tensor: Tensor, split: str, config: ModelConfig, shards: int) -> tuple[int, ...]:
    """Of one shard; raises ConfigError where the tensor cannot be divided."""
    shape = list(tensor.stored_shape(config))
    if split:
        axis = axis_of(split)
        if shape[axis] % shards:
            raise ConfigError(f"{tensor.meta} of shape {tuple(shape)} cannot be divided into {shards} Meta shards; choose "
                              "another --meta_shards.")
        shape[axis] //= shards
    return tuple(shape)
