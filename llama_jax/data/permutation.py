"""A stateless pseudo-random permutation of range(size): a Feistel network computes any single place of it.

Nothing is stored, and no place depends on one before it, so that a run can resume at any row of a shuffled epoch at no cost.
It is written here rather than taken from a library because the order of a resumed run must never change with a version.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

_ROUNDS = 8
_MASK = (1 << 64) - 1
_CHUNK = 1 << 16
"""Places that `first_permuted` computes at one time."""


@lru_cache(maxsize=1024)
def permutation_keys(*parts: int) -> tuple[int, ...]:
    """A key of 64 bits for each round of the network, derived from all `parts`, of which each is a nonnegative integer.

    numpy guarantees that `SeedSequence` gives the same bits in every version.
    """
    return tuple(map(int, np.random.SeedSequence(parts).generate_state(_ROUNDS, np.uint64)))


def permuted(place: int, size: int, *, keys: tuple[int, ...]) -> int:
    """The number at `place` of the permutation of range(size) that `keys` select.

    The Feistel network permutes the numbers below the next power of 4. A result outside range(size) is permuted again until it
    is inside (cycle walking), so that the whole remains a permutation.
    """
    half = _half_bits(size)
    while True:
        place = _feistel(place, half, keys=keys)
        if place < size:
            return place


def place_of(number: int, size: int, *, keys: tuple[int, ...]) -> int:
    """The place at which the permutation has `number`: the inverse of `permuted`."""
    half = _half_bits(size)
    low = (1 << half) - 1
    while True:
        left, right = number >> half, number & low
        for key in reversed(keys):
            left, right = right ^ (_mix(left, key) & low), left
        number = left << half | right
        if number < size:
            return number


def first_permuted(count: int, size: int, *, keys: tuple[int, ...], start: int = 0) -> Iterator[np.ndarray]:
    """The numbers at the first `count` places from `start` on, in order, as int64 arrays of at most 2^16."""
    half, end = _half_bits(size), start + count
    for begin in range(start, end, _CHUNK):
        values = _feistel(np.arange(begin, min(begin + _CHUNK, end), dtype=np.uint64), half, keys=keys)
        while (outside := values >= size).any():
            values[outside] = _feistel(values[outside], half, keys=keys)
        yield values.astype(np.int64)


def _half_bits(size: int) -> int:
    """Bits of each half of the network for permutations of range(size)."""
    return max((size - 1).bit_length() + 1, 2) // 2


def _feistel(place: int | np.ndarray, half: int, *, keys: tuple[int, ...]) -> int | np.ndarray:
    """The Feistel network over 2 * half bits, for one place or a uint64 array of places."""
    low = (1 << half) - 1
    left, right = place >> half, place & low
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & low)
    return left << half | right


def _mix(x: int | np.ndarray, key: int) -> int | np.ndarray:
    """The round function: a hash of x and key, by the finalizer of the generator SplitMix64."""
    x = (x * 0x9E3779B97F4A7C15 + key) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31
