"""Derivatives of every order and mode inside `every_derivative`, and what is said outside of it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llama_jax
from llama_jax.config import MeshConfig, ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.loss import next_token_loss
from tests.golden.small import FLOAT32

SMALL = ModelConfig(vocab_size=32, dim=16, num_layers=2, num_heads=2, num_kv_heads=1, ffn_dim=24, max_length=16)
TOKENS_BT = jax.random.randint(jax.random.key(1), (4, 9), 0, 32)
KINDS = {"llama": {}, "shaw": {"position": "shaw", "relative_clip": 3}, "vanilla": {
    "norm": "layernorm", "norm_position": "post", "feedforward": "gelu", "use_bias": True, "position": "sinusoidal"}}


def loss_and_params(config: ModelConfig, *, scan: bool = True, remat: str = "none"):
    model = Transformer(config, replace(FLOAT32, scan_layers=scan, remat=remat))
    params = jax.tree.map(lambda x: 4 * x, model.init(jax.random.key(0), TOKENS_BT)["params"])

    def loss(params):
        h_BTD = model.apply({"params": params}, TOKENS_BT[:, :-1], method="hidden")
        return next_token_loss(h_BTD, head_matrix(params), TOKENS_BT[:, 1:], jnp.ones((4, 8)), z_loss=1e-2)[0] / 32

    return loss, params


def direction(params):
    """A random direction in which every parameter moves in proportion to its size."""
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape) * (jnp.abs(x) + 0.01), params)


def inner(a, b) -> float:
    return sum(float(jnp.vdot(x, y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def distance(a, b) -> float:
    """Length of the difference of two trees, as part of the length of the second."""
    difference = jax.tree.map(jnp.subtract, jax.device_get(a), jax.device_get(b))
    return (inner(difference, difference) / inner(b, b)) ** 0.5


@pytest.mark.parametrize("kind", ["llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "llama")])
def test_forward_mode_is_the_gradient_along_a_direction(kind):
    loss, params = loss_and_params(replace(SMALL, **KINDS[kind]))
    v = direction(params)
    outside = jax.jit(jax.grad(loss))(params)
    with llama_jax.every_derivative():
        _, along = jax.jit(lambda params, v: jax.jvp(loss, (params,), (v,)))(params, v)
        inside = jax.jit(jax.grad(loss))(params)
    assert float(along) == pytest.approx(inner(outside, v), rel=1e-4)
    assert distance(inside, outside) < 1e-5


@pytest.mark.parametrize("kind, scan, remat", [
    ("llama", True, "none"), pytest.param("shaw", False, "linear", marks=pytest.mark.slow),
    pytest.param("vanilla", True, "full", marks=pytest.mark.slow)])
def test_hessian_vector_product_is_the_difference_of_gradients(kind, scan, remat):
    loss, params = loss_and_params(replace(SMALL, **KINDS[kind]), scan=scan, remat=remat)
    v = direction(params)
    with llama_jax.every_derivative():
        product = jax.jit(lambda params, v: jax.jvp(jax.grad(loss), (params,), (v,))[1])(params, v)
        reverse = jax.jit(lambda params, v: jax.grad(lambda params: sum(map(
            jnp.vdot, jax.tree.leaves(jax.grad(loss)(params)), jax.tree.leaves(v))))(params))(params, v)
    step = 1e-3
    gradient = jax.jit(jax.grad(loss))
    up, down = (gradient(jax.tree.map(lambda x, d, sign=sign: x + sign * step * d, params, v)) for sign in (1, -1))
    assert distance(product, reverse) < 1e-4
    assert distance(product, jax.tree.map(lambda a, b: (a - b) / (2 * step), up, down)) < 1e-2


@pytest.mark.slow
def test_over_a_mesh_too():
    loss, params = loss_and_params(replace(SMALL, num_kv_heads=2))
    v = direction(params)
    with llama_jax.every_derivative():
        alone = jax.jit(lambda params, v: jax.jvp(jax.grad(loss), (params,), (v,))[1])(params, v)
        with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2, 1))):
            spread = jax.jit(lambda params, v: jax.jvp(jax.grad(loss), (params,), (v,))[1])(params, v)
    assert distance(spread, alone) < 1e-4


def test_outside_jax_names_the_custom_vjp_and_a_backend_inside_is_refused_by_name():
    loss, params = loss_and_params(SMALL)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(loss, (params,), (params,))
    q = jnp.ones((1, 4, 2, 8))
    with llama_jax.every_derivative(), pytest.raises(ConfigError, match="chunked cannot serve: it has gradients alone"):
        llama_jax.attend(q, q, q, llama_jax.Mask(), "chunked")


def test_parameters_are_the_same_inside():
    model = Transformer(SMALL, FLOAT32)
    with llama_jax.every_derivative():
        inside = model.init(jax.random.key(0), TOKENS_BT)
    jax.tree.map(np.testing.assert_array_equal, inside, model.init(jax.random.key(0), TOKENS_BT))
