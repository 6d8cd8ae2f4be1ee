"""The fingerprint of a model: a hash of every bit of every parameter, of the architecture and of the tokenizer.

Two models with equal fingerprints answer every request alike, so that answers on disk may be used again. The fingerprint
decides whether an evaluation goes on from a folder or refuses it.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from llama_jax.config.compare import different_from_default
from llama_jax.formats.mapping import Tensor
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters, unflatten
from llama_jax.parallel.checksums import array_checksums, slice_checksum
from llama_jax.tokenizer.base import Tokenizer

_VERSION = "3"
"""Begins every fingerprint. It is raised whenever the same model would answer the same request otherwise (another way of
sampling tokens or of truncating texts), so that answers of earlier versions are not taken for this one's. Version 1 hashed the
norms and one embedding column only; version 2 hashed all fields of the config, so that a new field changed it."""


def model_fingerprint(model: Transformer, params: Any, *, tokenizer: Tokenizer) -> str:
    """Hash of all parameters (name, shape, dtype and bits of each), the architecture, the compute dtype and the tokenizer.

    It is the same on every mesh, and for the same weights in every format.
    """
    return _fingerprint(model, parameter_checksums(params), tokenizer=tokenizer)


def _fingerprint(model: Transformer, checksums: Iterable[tuple], *, tokenizer: Tokenizer, int8: bool = False) -> str:
    rules = [tokenizer.sha256, tokenizer.bos_id, list(tokenizer.begin), list(tokenizer.eos_ids)]
    seen = sha256(f"{different_from_default(model.config)} {model.compute.dtype} {rules}{' int8' * int8}".encode())
    for name, shape, dtype, *sums in checksums:
        seen.update(f"{name} {shape} {dtype} {sums}\n".encode())
    return f"{_VERSION}-{seen.hexdigest()}"


def parameter_checksums(params: Any) -> list[tuple[str, tuple[int, ...], str, int, int]]:
    """(name, shape, dtype, and both checksums) of every parameter, see `array_checksums`."""
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.flatten_with_path(params)[0]}
    return [(name, array.shape, array.dtype, *array.whole) for name, array in array_checksums(arrays).items()]


class FingerprintWhileReading:
    """The fingerprint of a model of which only one tensor exists in float32 at a time (`read_for_inference`)."""

    def __init__(self):
        self._sums: dict[str, list[tuple[Array, Array]]] = {}

    def add(self, tensor: Tensor, array: Array) -> None:
        """Add a tensor: its layer's part of a parameter, or all of it."""
        layer = tensor.layer if tensor.weight.stacked else None
        self._sums.setdefault(tensor.weight.ours, []).append(slice_checksum(array.astype(jnp.float32), layer))

    def fingerprint(self, model: Transformer, *, tokenizer: Tokenizer, int8: bool = False) -> str:
        """What `model_fingerprint` gives for the whole tree in float32; another one for matrices that are quantized to 8 bits."""
        whole = {name: np.asarray(jax.device_get(sums), np.uint64).sum(0) % (1 << 32) for name, sums in self._sums.items()}
        named = {name: (leaf.shape, "float32", *map(int, whole[name])) for name, leaf in parameters(model.config).items()}
        paths = jax.tree.flatten_with_path(unflatten(named), is_leaf=lambda x: isinstance(x, tuple))[0]
        return _fingerprint(model, [(jax.tree_util.keystr(path), *values) for path, values in paths], tokenizer=tokenizer,
                            int8=int8)
