"""Relative vectors (Shaw et al. 2018) and ALiBi (Press et al. 2022) in every backend against loops over pairs in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops import chunked
from llama_jax.ops.bias import Bias, alibi_slopes
from llama_jax.ops.chunked import attend_chunked
from llama_jax.ops.decode import attend_over_cache
from llama_jax.ops.masks import Mask
from llama_jax.ops.reference import attend_reference
from tests.ops.naive import alibi_attention, relative_attention

H = 8
BACKENDS = {"reference": attend_reference, "chunked": attend_chunked, "tiles": partial(attend_chunked, chunk=8),
            "uneven tiles": partial(attend_chunked, chunk=7)}


def numbers(seed: int, *shape: int) -> np.ndarray:
    return (0.5 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def rows_of(B: int, T: int, N: int, K: int, *, documents: bool):
    """Queries, keys, values, the output's gradient, documents and positions (B, T), which start at 0 in each document."""
    arrays = [numbers(n, B, T, heads, H) for n, heads in enumerate((N, K, K, N))]
    if not documents:
        return *arrays, np.zeros((B, T), np.int32), np.tile(np.arange(T, dtype=np.int32), (B, 1))
    starts = np.random.default_rng(9).random((B, T)) < 3 / T
    starts[:, 0] = True
    begins = np.maximum.accumulate(np.where(starts, np.arange(T), 0), axis=1)
    return *arrays, np.cumsum(starts, axis=1, dtype=np.int32), (np.arange(T) - begins).astype(np.int32)


def check(found, wanted, what=""):
    """To 1e-6, of the largest number where that is above 1: gradients of keys and vectors are sums over all queries."""
    tolerance = 1e-6 * max(1, np.abs(wanted).max())
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=0, atol=tolerance, err_msg=what)


def compare_with_loops(attention, *, B, T, N, K, R, documents, first=None, count=None):
    q, k, v, d_out, ids, positions = rows_of(B, T, N, K, documents=documents)
    begin, end = (0, T) if first is None else (first, first + count)
    q, d_out = q[:, begin:end], d_out[:, begin:end]
    keys_RH, values_RH = numbers(5, R, H), numbers(6, R, H)
    wanted, gradients = relative_attention(q, k, v, keys_RH=keys_RH, values_RH=values_RH, d_out=d_out, first=begin,
                                           positions_BS=positions, documents_BS=ids)
    mask = Mask(jnp.asarray(ids)) if documents else Mask()

    @jax.jit
    def run(q, k, v, keys_RH, values_RH):
        def output(q, k, v, keys_RH, values_RH):
            bias = Bias(relative_keys_RH=keys_RH, relative_values_RH=values_RH,
                        positions_BT=jnp.asarray(positions) if documents else None)
            return attention(q, k, v, mask, bias=bias, first=None if first is None else jnp.int32(first))

        out, pull = jax.vjp(output, q, k, v, keys_RH, values_RH)
        return out, pull(jnp.asarray(d_out))

    out, found = run(q, k, v, keys_RH, values_RH)
    check(out, wanted, "output")
    for name, ours, theirs in zip(gradients._fields, found, gradients, strict=True):
        assert np.abs(theirs).max() > 1e-3 or (name == "keys_RH" and R == 1), "a gradient of zero shows nothing"
        check(ours, theirs, f"gradient of {name}")


@pytest.mark.parametrize("documents", [False, True], ids=["one text", "documents"])
@pytest.mark.parametrize(("N", "K"), [(2, 2), (6, 2)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_shaw_is_its_equation(backend, N, K, documents):
    compare_with_loops(BACKENDS[backend], B=2, T=24, N=N, K=K, R=5, documents=documents)


@pytest.mark.parametrize("R", [1, 2, 24, 40])
@pytest.mark.parametrize("backend", ["reference", "tiles"])
def test_shaw_with_any_clip(backend, R):
    """Down to one vector for all distances, and up to more than there are distances."""
    compare_with_loops(BACKENDS[backend], B=1, T=24, N=2, K=1, R=R, documents=False)


@pytest.mark.parametrize("documents", [False, True], ids=["one text", "documents"])
@pytest.mark.parametrize("first", [0, 16])
@pytest.mark.parametrize("backend", ["reference", "chunked", "uneven tiles"])
def test_shaw_on_a_slice_of_a_row(backend, first, documents):
    compare_with_loops(BACKENDS[backend], B=2, T=24, N=4, K=2, R=5, documents=documents, first=first, count=8)


@pytest.mark.parametrize("documents", [False, True], ids=["one text", "documents"])
@pytest.mark.parametrize("backend", ["chunked", "tiles", "uneven tiles"])
def test_shaw_with_online_softmax(backend, documents, monkeypatch):
    """Rows that are longer than SHORT are read tile by tile; here all are."""
    monkeypatch.setattr(chunked, "SHORT", 0)
    compare_with_loops(BACKENDS[backend], B=2, T=24, N=4, K=2, R=5, documents=documents)


@pytest.mark.parametrize("chunk", [None, 96])
def test_shaw_in_long_rows(chunk):
    """More tokens than SHORT, in several tiles that do not divide them."""
    T = chunked.SHORT + 18
    compare_with_loops(partial(attend_chunked, chunk=chunk), B=1, T=T, N=2, K=1, R=17, documents=True)


@pytest.mark.parametrize("heads", [(8, 2), (6, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("documents", [False, True], ids=["one text", "documents"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_alibi_is_its_equation(backend, documents, heads):
    q, k, v, _, ids, positions = rows_of(2, 17, *heads, documents=documents)
    slopes = alibi_slopes(heads[0])
    wanted = alibi_attention(q, k, v, slopes_N=np.float64(slopes), positions_BS=positions, documents_BS=ids)
    mask = Mask(jnp.asarray(ids)) if documents else Mask()
    bias = Bias(slopes, positions_BT=jnp.asarray(positions) if documents else None)
    check(jax.jit(partial(BACKENDS[backend], mask=mask, bias=bias))(q, k, v), wanted)


def test_decode_steps_are_the_equations():
    """Five tokens over a cache that holds the others, with free slots behind them."""
    q, k, v, d_out, ids, positions = rows_of(2, 21, 6, 3, documents=False)
    keys_RH, values_RH, slopes = numbers(5, 4, H), numbers(6, 4, H), alibi_slopes(6)
    k_BKSH, v_BKSH = (jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, 6), (0, 0)), constant_values=7) for x in (k, v))
    cached = jax.jit(partial(attend_over_cache, q[:, -5:], k_BKSH, v_BKSH, lengths_B=jnp.full(2, 16)))
    wanted, _ = relative_attention(q, k, v, keys_RH=keys_RH, values_RH=values_RH, d_out=d_out, positions_BS=positions,
                                   documents_BS=ids)
    check(cached(bias=Bias(relative_keys_RH=keys_RH, relative_values_RH=values_RH)), wanted[:, -5:])
    wanted = alibi_attention(q, k, v, slopes_N=np.float64(slopes), positions_BS=positions, documents_BS=ids)
    check(cached(bias=Bias(slopes)), wanted[:, -5:])


def sizes(jaxpr):
    """Numbers of elements of all arrays that a program computes, also inside loops and functions."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from sizes(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(("backend", "per_pair"), [("reference", 2), ("chunked", 0.99)])
def test_nobody_stores_a_vector_for_every_pair(backend, per_pair):
    """Forward and backward: the reference has one number for every pair and head, the blockwise backend not even one."""
    T, N, R = 4 * chunked.SHORT, 2, 17
    rows = jax.ShapeDtypeStruct((1, T, N, H), jnp.float32)
    vectors, slopes = jax.ShapeDtypeStruct((R, H), jnp.float32), jax.ShapeDtypeStruct((N,), jnp.float32)

    def loss(q, k, v, keys_RH, values_RH, slopes_N):
        bias = Bias(slopes_N, keys_RH, values_RH)
        return jnp.square(BACKENDS[backend](q, k, v, Mask(), bias=bias)).sum()

    program = jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4)))(rows, rows, rows, vectors, vectors, slopes)
    assert max(sizes(program.jaxpr)) <= per_pair * T * T


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_flow_into_the_vectors_alone(backend):
    q, k, v, *_ = rows_of(1, 24, 2, 1, documents=False)
    bias = Bias(alibi_slopes(2), numbers(5, 4, H), numbers(6, 4, H))
    d = jax.jit(jax.grad(lambda bias: jnp.square(BACKENDS[backend](q, k, v, Mask(), bias=bias)).sum()))(bias)
    assert not np.any(d.slopes_N) and np.all(d.relative_keys_RH) and np.all(d.relative_values_RH)
