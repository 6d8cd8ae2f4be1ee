"""A random order of any length, worked out for one place at a time: nothing is stored, nothing comes before."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

ROUNDS = 8
MASK = (1 << 64) - 1
CHUNK = 1 << 16
"""Places worked out at one time."""


@lru_cache(maxsize=1024)
def permutation_keys(*parts: int) -> tuple[int, ...]:
    """One 64-bit key a round, which depend on all `parts`; numpy promises to keep them."""
    return tuple(map(int, np.random.SeedSequence(parts).generate_state(ROUNDS, np.uint64)))


def permuted(place: int, size: int, *, keys: tuple[int, ...]) -> int:
    """What stands at `place` of a permutation of range(size).

    A Feistel network permutes the next power of 4; what falls outside of range(size) is permuted on until it is inside.
    """
    half = _half_bits(size)
    while True:
        place = _permuted(place, half, keys=keys)
        if place < size:
            return place


def first_permuted(count: int, size: int, *, keys: tuple[int, ...]) -> Iterator[np.ndarray]:
    """What stands at the first `count` places of the same permutation, as int64 arrays of at most CHUNK, in order."""
    half = _half_bits(size)
    for begin in range(0, count, CHUNK):
        values = _permuted(np.arange(begin, min(begin + CHUNK, count), dtype=np.uint64), half, keys=keys)
        while (outside := values >= size).any():
            values[outside] = _permuted(values[outside], half, keys=keys)
        yield values.astype(np.int64)


def _half_bits(size: int) -> int:
    return max((size - 1).bit_length() + 1, 2) // 2


def _permuted(place: int | np.ndarray, half: int, *, keys: tuple[int, ...]) -> int | np.ndarray:
    """The Feistel network over 2 * half bits, for one place or a uint64 array of them."""
    low = (1 << half) - 1
    left, right = place >> half, place & low
    for key in keys:
        left, right = right, left ^ (_mixed(right, key) & low)
    return left << half | right


def _mixed(x: int | np.ndarray, key: int) -> int | np.ndarray:
    """Bits of x and key, well stirred (the finalizer of SplitMix64)."""
    x = (x * 0x9E3779B97F4A7C15 + key) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31
