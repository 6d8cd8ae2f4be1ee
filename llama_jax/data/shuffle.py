"""A random order of any length, worked out for one place at a time: nothing is stored, nothing comes before."""

from functools import lru_cache

import numpy as np

ROUNDS = 8
MASK = (1 << 64) - 1


@lru_cache(maxsize=1024)
def keys_of(*parts: int) -> tuple[int, ...]:
    """One 64-bit key a round, which depend on all `parts`; numpy promises to keep them."""
    return tuple(map(int, np.random.SeedSequence(parts).generate_state(ROUNDS, np.uint64)))


def shuffled(place: int, size: int, keys: tuple[int, ...]) -> int:
    """What stands at `place` of a permutation of range(size).

    A Feistel network permutes the next power of 4; what falls outside of range(size) is permuted on until it is inside.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for key in keys:
            left, right = right, left ^ (_mixed(right, key) & low)
        place = left << half | right
        if place < size:
            return place


def _mixed(x: int, key: int) -> int:
    """Bits of x and key, well stirred (the finalizer of SplitMix64)."""
    x = (x * 0x9E3779B97F4A7C15 + key) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31
