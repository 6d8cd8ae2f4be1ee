"""A layer's cache: what is written lies where it should, and attention over it is attention over the tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops.attention import attend
from llama_jax.ops.decode import _write_heads, _write_rows, attend_over_cache, write_to_cache
from llama_jax.ops.masks import Mask

B, S, T, H = 3, 12, 4, 8
LENGTHS = np.array([0, 5, 8], np.int32)


def random(*shape: int, seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_new_tokens_lie_behind_what_a_row_holds():
    held, new = random(B, 2, S, H, seed=0), random(B, T, 2, H, seed=1)
    wanted = np.array(held)
    for b, length in enumerate(LENGTHS):
        wanted[b, :, length : length + T] = np.swapaxes(new[b], 0, 1)
    for write_them in (_write_rows, _write_heads):
        np.testing.assert_array_equal(write_them(held, new.swapaxes(1, 2), LENGTHS), wanted)
    np.testing.assert_array_equal(write_to_cache(held, new, lengths_B=LENGTHS), wanted)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_attention_over_a_cache_is_attention_over_the_tokens(K):
    """What lies in free slots is never seen, however large."""
    q, k, v = random(B, S, 4, H, seed=0), random(B, S, K, H, seed=1), random(B, S, K, H, seed=2)
    whole = attend(q, k, v, Mask(), "reference")
    for b, length in enumerate(LENGTHS):
        free = jnp.full((1, K, S, H), 1e4)
        caches = []
        for x in (k, v):
            held = write_to_cache(free, x[b : b + 1, :length], lengths_B=np.zeros(1, np.int32))
            caches.append(write_to_cache(held, x[b : b + 1, length : length + T], lengths_B=LENGTHS[b : b + 1]))
        got = attend_over_cache(q[b : b + 1, length : length + T], *caches, lengths_B=LENGTHS[b : b + 1])
        np.testing.assert_allclose(got[0], whole[b, length : length + T], atol=1e-5)
