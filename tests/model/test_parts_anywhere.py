"""Every part of the model with 1 to 5 leading dimensions and two dtypes, under jit, vmap and grad, as on flattened rows.

The tests' climate makes any broadcasting of ranks an error (tests/conftest.py).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.model.attention import Attention
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import NORMS
from llama_jax.model.positions import POSITIONS, position_encoding
from llama_jax.ops.feedforward import FEEDFORWARDS

T, D = 5, 16
SETTINGS = {"rope3d": {"rope_chunk": 3}, "shaw": {"relative_clip": 2}}
ENCODINGS = {name: position_encoding(ModelConfig(position=name, **SETTINGS.get(name, {})))
             for name in POSITIONS if name not in ("sinusoidal", "learned")}  # which leave attention as `none` does
PARTS = {
    **NORMS,
    **{f"feedforward {kind}": partial(FeedForward, 24, kind=kind, use_bias=True) for kind in FEEDFORWARDS},
    **{f"attention {name}": partial(Attention, 4, 2, use_bias=True, position=encoding) for name, encoding in ENCODINGS.items()},
}
"""Name -> a function of the fields dtype and param_dtype that makes the module."""
FAST = {("rmsnorm", "bfloat16"), ("layernorm", "float32"), ("feedforward swiglu", "float32"), ("feedforward gelu", "bfloat16"),
        ("attention rope", "float32")}
"""Parts and dtypes that are tested everywhere; the others where slow tests run."""
LEADING = [(8,), (2, 4), (2, 1, 4), (2, 2, 1, 2), (1, 2, 2, 1, 2)]
TOLERANCE = {"float32": 2e-6, "bfloat16": 2**-6}
"""Of the largest output or gradient: a few roundings of float32, two of bfloat16's 8 bits. (The gradient of a bias on keys is
zero, the sum of larger numbers, since softmax does not see it.)"""


def own_shape(part: str) -> tuple[int, ...]:
    """The last axes, which a part treats as one thing."""
    return (T, D) if part.startswith("attention") else (D,)


def numbers(seed: int, shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def params_of(part: str, param_dtype: str = "float32"):
    """Random ones, so that scales are not 1, biases not 0 and attention not uniform."""
    x = jnp.zeros((1, *own_shape(part)))
    shapes = jax.eval_shape(PARTS[part](param_dtype=param_dtype).init, jax.random.key(0), x)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    return jax.tree.unflatten(structure, [0.5 * numbers(n, leaf.shape, leaf.dtype) for n, leaf in enumerate(leaves)])


def same(found, wanted, dtype: str):
    size = max(1, *(np.abs(np.float64(leaf)).max() for leaf in jax.tree.leaves(wanted)))

    def check(a, b):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=0, atol=TOLERANCE[dtype] * size)

    jax.tree.map(check, found, wanted)


@pytest.mark.parametrize("part, dtype", [
    pytest.param(part, dtype, marks=() if (part, dtype) in FAST else pytest.mark.slow) for part in PARTS for dtype in TOLERANCE])
def test_any_leading_dimensions_under_jit_vmap_and_grad(part, dtype):
    own, params, apply = own_shape(part), params_of(part), PARTS[part]().apply

    def outputs_and_gradients(params, x, toward):
        """The output, and the gradients of sum(output * toward) for parameters and inputs."""
        out, pull = jax.vjp(lambda params, x: apply({"params": params}, x), params, x)
        return out, *pull(toward)

    alone, mapped = jax.jit(outputs_and_gradients), jax.jit(jax.vmap(outputs_and_gradients, in_axes=(None, 0, 0)))
    x, toward = (numbers(seed, (*LEADING[0], *own), dtype) for seed in (7, 8))
    flat_out, d_params, flat_d_x = alone(params, x, toward)
    assert flat_out.dtype == dtype and np.isfinite(np.float32(flat_out)).all()
    assert all(leaf.dtype == jnp.float32 and np.any(leaf) for leaf in jax.tree.leaves(d_params))
    for leading in LEADING:
        x, toward, out, d_x = (y.reshape(*leading, *own) for y in (x, toward, flat_out, flat_d_x))
        same(alone(params, x, toward), (out, d_params, d_x), dtype)
        if len(leading) in (1, 4):  # the first axis by vmap, the others inside
            out_of_rows, d_params_of_rows, d_x_of_rows = mapped(params, x, toward)
            d_params_of_rows = jax.tree.map(lambda leaf: leaf.sum(0), d_params_of_rows)
            same((out_of_rows, d_params_of_rows, d_x_of_rows), (out, d_params, d_x), dtype)


@pytest.mark.parametrize("part", PARTS)
def test_rows_do_not_see_each_other(part):
    """Flattened or not: the gradient of one row's output is zero on all others."""
    own, params = own_shape(part), params_of(part)
    x = numbers(7, (2, 3, *own), "float32")
    d_x = jax.jit(jax.grad(lambda x: PARTS[part]().apply({"params": params}, x)[1, 2].sum()))(x)
    others = np.ones((2, 3), bool)
    others[1, 2] = False
    assert not np.any(d_x[others]) and np.any(d_x[1, 2])


def output_and_gradients(module, params, x):
    out, pull = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
    return out, pull(jnp.ones_like(out))


@pytest.mark.parametrize("param_dtype", TOLERANCE)
@pytest.mark.parametrize("dtype", [None, *TOLERANCE])
@pytest.mark.parametrize("part", PARTS)
def test_dtypes_are_those_of_the_fields(part, dtype, param_dtype):
    """Parameters and their gradients in param_dtype, outputs in dtype or that of the input, whose gradient has its own dtype."""
    module = PARTS[part](dtype=dtype, param_dtype=param_dtype)
    for given in TOLERANCE:
        x = jax.ShapeDtypeStruct((2, 3, *own_shape(part)), given)
        params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {param_dtype}
        y, (d_params, d_x) = jax.eval_shape(partial(output_and_gradients, module), params, x)
        assert y.shape == x.shape and y.dtype == (dtype or given) and d_x.dtype == given
        assert {leaf.dtype.name for leaf in jax.tree.leaves(d_params)} == {param_dtype}


@pytest.mark.parametrize("part", PARTS)
def test_parameters_in_bfloat16_are_the_same_numbers(part):
    """A part whose parameters are stored in bfloat16 computes what it does with these numbers in float32."""
    params = params_of(part, "bfloat16")
    x = numbers(7, (2, *own_shape(part)), "float32")
    stored = jax.jit(PARTS[part](param_dtype="bfloat16").apply)({"params": params}, x)
    as_float32 = jax.tree.map(lambda p: p.astype("float32"), params)
    np.testing.assert_allclose(stored, jax.jit(PARTS[part]().apply)({"params": as_float32}, x), rtol=1e-6, atol=1e-6)
