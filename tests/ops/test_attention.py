"""Laws of the attention backends: all equal the reference, none sees the future, tiles skip what is masked."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import ConfigError
from llama_jax.ops.attention import attend, choose
from llama_jax.ops.chunked import attend_chunked
from llama_jax.ops.masks import Mask
from llama_jax.ops.xla import attend_reference

HEADS = {"mha": (4, 4), "gqa": (4, 2), "mqa": (4, 1)}


def inputs(N, K, T=40, B=2, H=8, segments=True):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (B, T, n, H)) for key, n in zip(keys, (N, K, K), strict=True))
    starts = jax.random.bernoulli(jax.random.key(1), 0.15, (B, T))
    return q, k, v, Mask(jnp.cumsum(starts, axis=1, dtype=jnp.int32) if segments else None)


def float64_attention(q, k, v, segments):
    """Every query against every key it may see, one at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    B, T, N, H = q.shape
    for b, t, n in itertools.product(range(B), range(T), range(N)):
        seen = [s for s in range(t + 1) if segments is None or segments[b, s] == segments[b, t]]
        kv = n // (N // k.shape[2])
        scores = np.array([q[b, t, n] @ k[b, s, kv] for s in seen]) / np.sqrt(H)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = (weights / weights.sum()) @ v[b, seen, kv]
    return out


def test_mask_is_drawn_as_it_is_described():
    mask = Mask(jnp.array([[1, 1, 2, 2, 2]]))
    drawn = np.array([[1, 0, 0, 0, 0],
                      [1, 1, 0, 0, 0],
                      [0, 0, 1, 0, 0],
                      [0, 0, 1, 1, 0],
                      [0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(mask.materialize(5)[0], drawn)
    np.testing.assert_array_equal(Mask().materialize(5)[0], np.tril(np.ones((5, 5))))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("backend", [attend_reference, attend_chunked])
def test_backends_equal_float64(heads, segments, backend):
    q, k, v, mask = inputs(*HEADS[heads], T=11, segments=segments)
    ids = None if mask.segment_ids_BT is None else np.asarray(mask.segment_ids_BT)
    np.testing.assert_allclose(backend(q, k, v, mask), float64_attention(q, k, v, ids), atol=1e-5)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("chunk", [8, 16, 40])  # 16 does not divide 40: the last tile is padded
def test_chunked_equals_reference_forward_and_backward(heads, segments, chunk):
    q, k, v, mask = inputs(*HEADS[heads], segments=segments)
    cotangent = jax.random.normal(jax.random.key(2), q.shape)

    @partial(jax.jit, static_argnums=0)
    def run(backend):
        out, pull = jax.vjp(backend, q, k, v)
        return out, pull(cotangent)

    chex.assert_trees_all_close(
        run(lambda q, k, v: attend_chunked(q, k, v, mask, chunk=chunk)),
        run(lambda q, k, v: attend_reference(q, k, v, mask)),
        atol=1e-5, rtol=1e-5,
    )


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_no_query_depends_on_later_keys(impl):
    q, k, v, mask = inputs(4, 2, segments=False, T=12)

    @jax.jit
    def gradients(t):
        return jax.grad(lambda k, v: attend(q, k, v, mask, impl)[:, t].sum(), argnums=(0, 1))(k, v)

    for t in (0, 5, 11):
        dk, dv = gradients(t)
        assert float(jnp.abs(dk[:, t + 1:]).sum() + jnp.abs(dv[:, t + 1:]).sum()) == 0.0
        assert float(jnp.abs(dv[:, : t + 1]).min()) > 0.0


def test_masked_tiles_are_never_computed():
    q, k, v, mask = inputs(4, 2, segments=False, T=32)
    late = jnp.arange(32)[None, :, None, None] >= 16

    def poisoned(backend):
        """Late keys are NaN for early queries, early queries are NaN for late keys: 0 * NaN would show."""
        bad_k, bad_v = (jnp.where(late, jnp.nan, x) for x in (k, v))
        out = backend(q, bad_k, bad_v, mask)[:, :16]
        bad_q = jnp.where(late, q, jnp.nan)
        grads = jax.grad(lambda k, v: backend(bad_q, k, v, mask)[:, 16:].sum(), argnums=(0, 1))(k, v)
        return out, [grad[:, 16:] for grad in grads]

    tiles = jax.tree.leaves(poisoned(partial(attend_chunked, chunk=8)))
    assert all(np.isfinite(x).all() for x in tiles)
    assert all(np.isnan(x).any() for x in jax.tree.leaves(poisoned(attend_reference))), "the poison works"


def test_chunked_has_no_square_buffer():
    T = 1024
    q = jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)

    def loss(q, backend):
        return backend(q, q, q, Mask()).sum()

    def compiled(backend):
        return jax.jit(jax.grad(lambda q: loss(q, backend))).lower(q).compile()

    assert f"{T},{T}" not in compiled(attend_chunked).as_text()
    assert f"{T},{T}" in compiled(attend_reference).as_text()
    small, large = (compiled(b).memory_analysis().temp_size_in_bytes for b in (attend_chunked, attend_reference))
    assert small < large / 4


def test_bfloat16_stays_close_to_float32():
    q, k, v, mask = inputs(4, 2)
    exact = attend_reference(q, k, v, mask)
    for backend in (attend_reference, attend_chunked):
        half = backend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask)
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=3e-2)


def test_the_door_says_what_it_picks():
    assert choose("auto")[0] == "chunked"
    assert choose("reference") == ("reference", "asked for")
    with pytest.raises(ConfigError, match="known: auto, reference, chunked"):
        choose("flash")
