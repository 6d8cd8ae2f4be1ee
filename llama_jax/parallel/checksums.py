"""Checksums of arrays, computed on the devices that hold them: every bit and its place count, and sharding does not.

They find damage (of a disk, of memory, of a copy) and tell models apart; they do not stand against forgery.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
_HOST_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
"""Unsigned integers by bytes per element."""
_BLOCK = 1 << 15
"""Elements that the host hashes at a time."""

_GOLDEN_RATIO = 0x9E3779B1
"""2^32 divided by the golden ratio, a prime: spreads consecutive indices over the 32-bit numbers (xxHash's PRIME32_1)."""
_SECOND_HASH = 0x27D4EB2F
"""Makes the second checksum's hash from the first's (xxHash's PRIME32_4)."""
_MURMUR_MIX_1, _MURMUR_MIX_2 = 0x85EBCA6B, 0xC2B2AE35
"""Multipliers of MurmurHash3's 32-bit finalizer."""


class ArrayChecksum(NamedTuple):
    """Shape, dtype and checksums of one array."""

    shape: tuple[int, ...]
    dtype: str
    parts: tuple[tuple[int, int], ...]
    """Two 32-bit checksums of every index of the first axis, where the array is stacked; else one pair, of the whole array."""

    @property
    def whole(self) -> tuple[int, int]:
        """Both checksums of the whole array: the parts' sums modulo 2^32, since the hash of an element knows all its indices."""
        first, second = zip(*self.parts, strict=True)
        return sum(first) % (1 << 32), sum(second) % (1 << 32)


def array_checksums(arrays: Mapping[str, Any], *, stacked: Sequence[str] = ()) -> dict[str, ArrayChecksum]:
    """The checksums of arrays by name, computed on their devices without a copy of them.

    A checksum is the sum modulo 2^32 of a hash of each element's bits and indices. Addition commutes, so it does not depend on
    how an array is split over devices and processes; the hash is a permutation, so a change of one element always changes it.

    Args:
        arrays: arrays of elements of 1, 2 or 4 bytes, of jax or numpy.
        stacked: names of those whose first axis is over layers, and which get a pair of checksums for each.
    """
    held = {name: jnp.asarray(array) for name, array in arrays.items()}
    sums = jax.device_get([_checksum(array, array.sharding, stacked=name in stacked) for name, array in held.items()])
    return {name: ArrayChecksum(array.shape, array.dtype.name, _pairs(pair))
            for (name, array), pair in zip(held.items(), sums, strict=True)}


def slice_checksum(array: Array, layer: int | None = None) -> tuple[Array, Array]:
    """Both checksums of an array on its devices, of slice `layer` of a stacked array if it is that; they are not waited for.

    The sums of all slices, modulo 2^32, are the stacked array's.
    """
    return _checksum(array, array.sharding, layer=None if layer is None else jnp.uint32(layer))


def host_checksum(array: np.ndarray, *, layer: int | None = None) -> tuple[int, int]:
    """Both checksums of an array in host memory, of one axis or more; of slice `layer` of a stacked array if it is that.

    numpy computes them in blocks that stay in a core's cache: nothing is compiled, and little memory is taken.
    """
    whole = array if layer is None else array[None]
    starts = [layer or 0, *[0] * (whole.ndim - 1)]
    of_axes = [_mixed_indices(size, start, axis=axis)
               for axis, (size, start) in enumerate(zip(whole.shape, starts, strict=True))]
    of_rows = np.zeros(1, np.uint32)
    for of_axis in of_axes[:-1]:
        of_rows = np.add.outer(of_rows, of_axis).reshape(-1)
    columns = whole.shape[-1]
    bits = np.ascontiguousarray(whole).view(_HOST_UNSIGNED[whole.dtype.itemsize]).reshape(-1, columns)
    sums, block = [0, 0], max(1, _BLOCK // max(columns, 1))
    hashes, scratch = np.empty((2, min(block, len(bits)), columns), np.uint32)
    for begin in range(0, len(bits), block):
        part = bits[begin : begin + block]
        mixed, free = hashes[: len(part)], scratch[: len(part)]
        np.add(part, of_axes[-1][None], out=mixed)
        mixed += of_rows[begin : begin + block, None]
        for number, salt in enumerate((0, _SECOND_HASH)):
            mixed ^= np.uint32(salt)
            _mix_in_place(mixed, free)
            sums[number] += int(mixed.sum(dtype=np.uint64))
    return sums[0] % (1 << 32), sums[1] % (1 << 32)


def _mixed_indices(size: int, start: int, *, axis: int) -> np.ndarray:
    mixed = (np.arange(size, dtype=np.uint32) + np.uint32(start)) * np.uint32(_GOLDEN_RATIO) + np.uint32(axis + 1)
    _mix_in_place(mixed, np.empty_like(mixed))
    return mixed


def _mix_in_place(x: np.ndarray, scratch: np.ndarray) -> None:
    """`_mix` in numpy."""
    for shift, multiplier in ((16, _MURMUR_MIX_1), (13, _MURMUR_MIX_2), (16, 1)):
        np.right_shift(x, np.uint32(shift), out=scratch)
        x ^= scratch
        if multiplier > 1:
            x *= np.uint32(multiplier)


def _pairs(sums: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[int, int], ...]:
    first, second = (np.atleast_1d(part).tolist() for part in sums)
    return tuple(zip(first, second, strict=True))


@partial(jax.jit, static_argnames=("sharding", "stacked"))  # a parameter and its moments, which look alike, share a program
def _checksum(array: Array, sharding: Sharding, *, stacked: bool = False, layer: Array | None = None) -> tuple[Array, Array]:
    """Both checksums of an array, or as slice `layer` of a stacked one. Each device sums its own shard: XLA's partitioner would
    gather the array first."""
    def sum_part(part: Array, starts: Sequence[int | Array], *, layer: Array | None) -> tuple[Array, Array]:
        if layer is not None:
            part, starts = part[None], [layer, *starts]
        return _checksum_of_part(part, starts, stacked=stacked)

    if not isinstance(sharding, NamedSharding):
        return sum_part(array, [0] * array.ndim, layer=layer)
    axes = [(names,) if isinstance(names, str) else names or () for names in sharding.spec]
    axes += [()] * (array.ndim - len(axes))
    all_axes = tuple(name for names in axes for name in names)

    def sum_shard(shard: Array, layer: Array | None) -> tuple[Array, Array]:
        starts = [lax.axis_index(names) * size if names else 0 for names, size in zip(axes, shard.shape, strict=True)]
        return lax.psum(sum_part(shard, starts, layer=layer), all_axes)

    summed = jax.shard_map(sum_shard, mesh=sharding.mesh, in_specs=(sharding.spec, PartitionSpec()), out_specs=PartitionSpec(),
                           check_vma=False)
    return summed(array, layer)


def _checksum_of_part(part: Array, starts: Sequence[int | Array], *, stacked: bool) -> tuple[Array, Array]:
    """Checksums of a part of an array whose first element has the indices `starts` in the whole array.

    Where it is `stacked`, they are two vectors over its first axis, which is not divided.
    """
    hashes = lax.bitcast_convert_type(part, _UNSIGNED[part.dtype.itemsize]).astype(jnp.uint32)
    for axis, (size, start) in enumerate(zip(part.shape, starts, strict=True)):
        index = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(start).astype(jnp.uint32)
        mixed_index = _mix(index * jnp.uint32(_GOLDEN_RATIO) + jnp.uint32(axis + 1))
        hashes += lax.broadcast_in_dim(mixed_index, part.shape, (axis,))
    first = _mix(hashes)
    second = _mix(first ^ jnp.uint32(_SECOND_HASH))
    zero = jnp.uint32(0)
    # both sums in one reduction, which XLA fuses with the hashing; two reductions would each write the hashes to memory on CPU
    return lax.reduce((first, second), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), range(int(stacked), part.ndim))


def _mix(x: Array) -> Array:
    """A permutation of the 32-bit numbers in which every bit of x changes all others (MurmurHash3's finalizer)."""
    x = (x ^ (x >> 16)) * jnp.uint32(_MURMUR_MIX_1)
    x = (x ^ (x >> 13)) * jnp.uint32(_MURMUR_MIX_2)
    return x ^ (x >> 16)
