"""A layer's cache: what is written lies where it should, and attention over it is attention over the tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops.attention import attend
from llama_jax.ops.decode import attend_cached, write, write_heads, write_rows
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
    for write_them in (write_rows, write_heads):
        np.testing.assert_array_equal(write_them(held, new.swapaxes(1, 2), LENGTHS), wanted)
    np.testing.assert_array_equal(write(held, new, LENGTHS), wanted)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_attention_over_a_cache_is_attention_over_the_tokens(K):
    """What lies in free slots is never seen, however large."""
    q, k, v = random(B, S, 4, H, seed=0), random(B, S, K, H, seed=1), random(B, S, K, H, seed=2)
    whole = attend(q, k, v, Mask(), "reference")
    for b, length in enumerate(LENGTHS):
        free = jnp.full((1, K, S, H), 1e4)
        caches = [write(write(free, x[b : b + 1, :length], np.zeros(1, np.int32)), x[b : b + 1, length : length + T],
                        LENGTHS[b : b + 1]) for x in (k, v)]
        got = attend_cached(q[b : b + 1, length : length + T], *caches, LENGTHS[b : b + 1])
        np.testing.assert_allclose(got[0], whole[b, length : length + T], atol=1e-5)
