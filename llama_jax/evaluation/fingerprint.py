"""The fingerprint of a model: a hash of every bit of every parameter, of the architecture and of the tokenizer.

Two models with equal fingerprints answer every request alike, so that answers on disk may be used again. The fingerprint
decides whether an evaluation goes on from a folder or refuses it.
"""

from hashlib import sha256
from typing import Any

import jax

from llama_jax.config.compare import different_from_default
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.checksums import array_checksums
from llama_jax.tokenizer.base import Tokenizer

_VERSION = "3"
"""Begins every fingerprint. It is raised whenever the same model would answer the same request otherwise (another way of
sampling tokens or of truncating texts), so that answers of earlier versions are not taken for this one's. Version 1 hashed the
norms and one embedding column only; version 2 hashed all fields of the config, so that a new field changed it."""


def model_fingerprint(model: Transformer, params: Any, *, tokenizer: Tokenizer) -> str:
    """Hash of all parameters (name, shape, dtype and bits of each), the architecture, the compute dtype and the tokenizer.

    It is the same on every mesh, and for the same weights in every format.
    """
    rules = [tokenizer.sha256, tokenizer.bos_id, list(tokenizer.begin), list(tokenizer.eos_ids)]
    seen = sha256(f"{different_from_default(model.config)} {model.compute.dtype} {rules}".encode())
    for name, shape, dtype, *sums in parameter_checksums(params):
        seen.update(f"{name} {shape} {dtype} {sums}\n".encode())
    return f"{_VERSION}-{seen.hexdigest()}"


def parameter_checksums(params: Any) -> list[tuple[str, tuple[int, ...], str, int, int]]:
    """(name, shape, dtype, and both checksums) of every parameter, see `array_checksums`."""
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.flatten_with_path(params)[0]}
    return [(name, array.shape, array.dtype, *array.whole) for name, array in array_checksums(arrays).items()]
