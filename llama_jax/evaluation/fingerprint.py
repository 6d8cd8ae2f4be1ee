"""A fingerprint of a model: every bit of every parameter, the architecture and the tokenizer in one short text.

Two models with equal fingerprints answer every request alike, so that answers kept on disk may be used again. It decides
whether an evaluation goes on from a folder or refuses it.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from llama_jax.config.compare import different_from_default
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer

_VERSION = "3"
"""Begins every fingerprint. To be raised whenever the same model would answer the same request otherwise (another way of
drawing tokens or of cutting texts), so that answers of earlier programs are not taken for this one's. Fingerprints of
version 1 were bare hashes of the norms and one embedding column; those of version 2 held all fields of the config, so that a
new field changed them."""

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
"""By bytes per element."""


def model_fingerprint(model: Transformer, params: Any, *, tokenizer: Tokenizer) -> str:
    """Hash of all parameters (name, shape, dtype and bits of each), the architecture, the compute dtype and the tokenizer.

    The same on every mesh, and for the same weights in any format of folder.
    """
    rules = [tokenizer.sha256, tokenizer.bos_id, list(tokenizer.begin), list(tokenizer.eos_ids)]
    seen = sha256(f"{different_from_default(model.config)} {model.compute.dtype} {rules}".encode())
    for name, shape, dtype, *sums in parameter_checksums(params):
        seen.update(f"{name} {shape} {dtype} {sums}\n".encode())
    return f"{_VERSION}-{seen.hexdigest()}"


def parameter_checksums(params: Any) -> list[tuple[str, tuple[int, ...], str, int, int]]:
    """(name, shape, dtype, and two 32-bit checksums) of every parameter, computed where it lies, without copies.

    A checksum is the sum modulo 2^32 of a hash of each element's bits and place. The order of its terms does not matter,
    hence not how an array is split over devices, and a change of one element always changes it.
    """
    leaves, _ = jax.tree.flatten_with_path(params)
    arrays = [jnp.asarray(leaf) for _, leaf in leaves]
    places = [array.sharding for array in arrays]
    computed = jax.jit(lambda arrays: list(map(_checksum, arrays, places)))(arrays)
    return [(jax.tree_util.keystr(path), array.shape, str(array.dtype), int(first), int(second))
            for (path, _), array, (first, second) in zip(leaves, arrays, jax.device_get(computed), strict=True)]


def _checksum(array: Array, place: Sharding) -> tuple[Array, Array]:
    """Both checksums of an array, each device summing what it holds: XLA's partitioner would gather the array first."""
    if not isinstance(place, NamedSharding):
        return _sums(array, [0] * array.ndim)
    axes = [(names,) if isinstance(names, str) else names or () for names in place.spec]
    axes += [()] * (array.ndim - len(axes))
    split = tuple(name for names in axes for name in names)

    def of_part(part: Array) -> tuple[Array, Array]:
        starts = [lax.axis_index(names) * size if names else 0 for names, size in zip(axes, part.shape, strict=True)]
        return lax.psum(_sums(part, starts), split)

    return jax.shard_map(of_part, mesh=place.mesh, in_specs=place.spec, out_specs=PartitionSpec(), check_vma=False)(array)


def _sums(part: Array, starts: Sequence[int | Array]) -> tuple[Array, Array]:
    """Checksums of a part of an array, whose first element has the indices `starts` in the whole."""
    hashes = lax.bitcast_convert_type(part, _UNSIGNED[part.dtype.itemsize]).astype(jnp.uint32)
    for axis, (size, start) in enumerate(zip(part.shape, starts, strict=True)):
        index = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(start).astype(jnp.uint32)
        hashes += lax.broadcast_in_dim(_mixed(index * jnp.uint32(0x9E3779B1) + jnp.uint32(axis + 1)), part.shape, (axis,))
    first = _mixed(hashes)
    second = _mixed(first ^ jnp.uint32(0x27D4EB2F))
    zero = jnp.uint32(0)
    # both sums in one reduction, which XLA fuses with the hashing; two would each write the hashes to memory on CPU
    return lax.reduce((first, second), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), range(part.ndim))


def _mixed(x: Array) -> Array:
    """A permutation of the 32-bit numbers in which every bit of x changes all others (MurmurHash3's finalizer)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
