"""Products with matrices of 16 and 8 bits: the numbers of the widened matrix, and on CPU no widened copy of it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from llama_jax.ops.linear import linear, quantize
from llama_jax.parallel.vocabulary import look_up

module = importlib.import_module("llama_jax.ops.linear")


@pytest.mark.parametrize("shape, contract", [((8, 6), 1), ((12, 3, 4), 1), ((3, 4, 8), 2), ((7, 64), 1), ((1, 5), 1)])
@pytest.mark.parametrize("rows", [(), (1,), (2, 5)], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products(monkeypatch, shape, contract, rows, dtype):
    """In blocks of 16 values, and a single vector as two rows."""
    monkeypatch.setattr(module, "WIDENED", 16)
    packed = quantize(jax.random.normal(jax.random.key(0), shape), contract=contract)
    back = (packed.values * jnp.expand_dims(packed.scales, tuple(range(contract)))).astype(dtype)
    x = jax.random.normal(jax.random.key(1), (*rows, *shape[:contract])).astype(dtype)
    wanted = np.tensordot(np.asarray(x, np.float64), np.asarray(back, np.float64), contract)
    limit = 1e-5 if dtype == jnp.float32 else 0.05  # its scales multiply the sum, and back's were rounded to 8 bits
    np.testing.assert_allclose(linear(x, back, contract=contract, out_dtype=jnp.float32), wanted, atol=1e-4)
    got = linear(x, packed, contract=contract, out_dtype=jnp.float32)
    np.testing.assert_allclose(got, wanted, atol=limit * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_a_loop_over_tokens_keeps_no_widened_matrices(kind):
    D = 512
    matrices = [jnp.ones((D, D), jnp.bfloat16) for _ in range(4)]
    matrices = [quantize(w) for w in matrices] if kind == "int8" else matrices

    def tokens(matrices, x):
        def one(_, x):
            for w in matrices:
                x = linear(x, w)
            return x
        return lax.fori_loop(0, 8, one, x)

    compiled = jax.jit(tokens).lower(matrices, jnp.ones((1, D), jnp.bfloat16)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * D * D, "less than one matrix in bfloat16"


def test_rows_of_a_table_in_two_bytes():
    table = jax.random.normal(jax.random.key(0), (5, 4)).astype(jnp.bfloat16)
    ids = jnp.array([[0, 4, 5, -1]])

    def looked_up(table):
        return look_up(table, ids, dtype=jnp.bfloat16)

    rows = looked_up(table)
    np.testing.assert_array_equal(rows[0, :2], table[jnp.array([0, 4])])
    assert jnp.isnan(rows[0, 2:]).all()
    gradient = jax.grad(lambda table: (looked_up(table)[0, :2].astype(jnp.float32) * 3).sum())(table)
    np.testing.assert_array_equal(gradient, np.array([[3], [0], [0], [0], [3]]) * np.ones((1, 4)))
    _, tangent = jax.jvp(looked_up, (table,), (jnp.ones_like(table),))
    np.testing.assert_array_equal(tangent[0, :2], np.ones((2, 4)))
