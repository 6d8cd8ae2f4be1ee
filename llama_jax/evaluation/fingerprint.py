"""The fingerprint of a model: a hash of every bit of every parameter, of the architecture and of the tokenizer.

Two models with equal fingerprints answer every request alike, so that answers on disk may be used again. The fingerprint
decides whether an evaluation goes on from a folder or refuses it.
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
"""Begins every fingerprint. It is raised whenever the same model would answer the same request otherwise (another way of
sampling tokens or of truncating texts), so that answers of earlier versions are not taken for this one's. Version 1 hashed the
norms and one embedding column only; version 2 hashed all fields of the config, so that a new field changed it."""

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
"""Unsigned integers by bytes per element."""

_GOLDEN_RATIO = 0x9E3779B1
"""2^32 divided by the golden ratio, a prime: spreads consecutive indices over the 32-bit numbers (xxHash's PRIME32_1)."""
_SECOND_HASH = 0x27D4EB2F
"""Makes the second checksum's hash from the first's (xxHash's PRIME32_4)."""
_MURMUR_MIX_1, _MURMUR_MIX_2 = 0x85EBCA6B, 0xC2B2AE35
"""Multipliers of MurmurHash3's 32-bit finalizer."""


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
    """(name, shape, dtype, and two 32-bit checksums) of every parameter, computed on its devices without a copy of it.

    A checksum is the sum modulo 2^32 of a hash of each element's bits and indices. Addition commutes, so it does not depend on
    how an array is split over devices; the hash is a permutation, so a change of one element always changes it.
    """
    leaves, _ = jax.tree.flatten_with_path(params)
    arrays = [jnp.asarray(leaf) for _, leaf in leaves]
    shardings = [array.sharding for array in arrays]
    computed = jax.jit(lambda arrays: list(map(_checksum, arrays, shardings)))(arrays)
    return [(jax.tree_util.keystr(path), array.shape, str(array.dtype), int(first), int(second))
            for (path, _), array, (first, second) in zip(leaves, arrays, jax.device_get(computed), strict=True)]


def _checksum(array: Array, sharding: Sharding) -> tuple[Array, Array]:
    """Both checksums of an array. Each device sums its own shard: XLA's partitioner would gather the array first."""
    if not isinstance(sharding, NamedSharding):
        return _checksum_of_part(array, [0] * array.ndim)
    axes = [(names,) if isinstance(names, str) else names or () for names in sharding.spec]
    axes += [()] * (array.ndim - len(axes))
    all_axes = tuple(name for names in axes for name in names)

    def sum_shard(shard: Array) -> tuple[Array, Array]:
        starts = [lax.axis_index(names) * size if names else 0 for names, size in zip(axes, shard.shape, strict=True)]
        return lax.psum(_checksum_of_part(shard, starts), all_axes)

    summed = jax.shard_map(sum_shard, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=PartitionSpec(), check_vma=False)
    return summed(array)


def _checksum_of_part(part: Array, starts: Sequence[int | Array]) -> tuple[Array, Array]:
    """Checksums of a part of an array whose first element has the indices `starts` in the whole array."""
    hashes = lax.bitcast_convert_type(part, _UNSIGNED[part.dtype.itemsize]).astype(jnp.uint32)
    for axis, (size, start) in enumerate(zip(part.shape, starts, strict=True)):
        index = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(start).astype(jnp.uint32)
        mixed_index = _mix(index * jnp.uint32(_GOLDEN_RATIO) + jnp.uint32(axis + 1))
        hashes += lax.broadcast_in_dim(mixed_index, part.shape, (axis,))
    first = _mix(hashes)
    second = _mix(first ^ jnp.uint32(_SECOND_HASH))
    zero = jnp.uint32(0)
    # both sums in one reduction, which XLA fuses with the hashing; two reductions would each write the hashes to memory on CPU
    return lax.reduce((first, second), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), range(part.ndim))


def _mix(x: Array) -> Array:
    """A permutation of the 32-bit numbers in which every bit of x changes all others (MurmurHash3's finalizer)."""
    x = (x ^ (x >> 16)) * jnp.uint32(_MURMUR_MIX_1)
    x = (x ^ (x >> 13)) * jnp.uint32(_MURMUR_MIX_2)
    return x ^ (x >> 16)
