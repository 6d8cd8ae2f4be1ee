"""`linear` is einsum with float32 accumulation, forward and backward."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops.linear import add_bias, linear

SHAPES = [("BTD,DF->BTF", (2, 5, 8), (8, 12), 1), ("BTD,DNH->BTNH", (2, 5, 8), (8, 3, 4), 1),
          ("BTNH,NHD->BTD", (2, 5, 3, 4), (3, 4, 8), 2)]


@pytest.mark.parametrize(("equation", "x_shape", "w_shape", "contract"), SHAPES)
def test_equals_einsum(equation, x_shape, w_shape, contract):
    x, w = jax.random.normal(jax.random.key(0), x_shape), jax.random.normal(jax.random.key(1), w_shape)
    out, pull = jax.vjp(lambda x, w: linear(x, w, contract=contract), x, w)
    wanted, pull_wanted = jax.vjp(lambda x, w: jnp.einsum(equation, x, w), x, w)
    cotangent = jax.random.normal(jax.random.key(2), out.shape)
    chex.assert_trees_all_close((out, pull(cotangent)), (wanted, pull_wanted(cotangent)), atol=1e-5)


def test_bfloat16_products_accumulate_in_float32():
    ones = jnp.ones((1, 4096), jnp.bfloat16)
    assert float(linear(ones, jnp.ones((4096, 1)))[0, 0]) == 4096.0  # bfloat16 sums stall at 256
    gradient = jax.grad(lambda w: linear(ones.T, w).astype(jnp.float32).sum())(jnp.ones((1, 1)))
    assert gradient.dtype == jnp.float32 and float(gradient[0, 0]) == 4096.0


def test_the_weight_gradient_is_not_rounded_to_bfloat16():
    x = jnp.array([[1.0, 257.0]], jnp.bfloat16)
    gradient = jax.grad(lambda w: linear(x, w).astype(jnp.float32).sum())(jnp.ones((2, 1)))
    np.testing.assert_array_equal(gradient[:, 0], x[0].astype(jnp.float32))
    assert linear(x, jnp.ones((2, 1)), out_dtype=jnp.float32).dtype == jnp.float32


def test_a_bias_is_added_and_its_gradient_summed_in_float32():
    """Over 4,096 rows in bfloat16, whose own sums have three digits at most."""
    x, g = (jnp.asarray(np.random.default_rng(n).random((4, 1024, 8)), jnp.bfloat16) for n in (0, 1))
    bias = jnp.asarray(np.random.default_rng(2).random(8), jnp.float32)
    out, pull = jax.vjp(add_bias, x, bias)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, jnp.asarray(np.float32(x) + np.float32(bias), jnp.bfloat16))
    np.testing.assert_allclose(pull(g)[1], np.float64(g).sum((0, 1)), rtol=1e-5)
