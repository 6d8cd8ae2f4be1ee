"""The chunked loss equals optax on full logits, and never holds them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama_jax.config import MeshConfig
from llama_jax.errors import ConfigError
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.loss import next_token_loss

MESHES = {"one device": lambda: make_mesh(MeshConfig(1), jax.devices()[:1]), "eight": lambda: make_mesh(MeshConfig(2, 1, 2, 2))}


def case(B=3, T=12, D=8, V=20):
    keys = jax.random.split(jax.random.key(0), 4)
    h, head = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (D, V))
    return h, head, jax.random.randint(keys[2], (B, T), 0, V), jax.random.bernoulli(keys[3], 0.7, (B, T)).astype(float)


@pytest.mark.parametrize("chunk", [1, 7, 12, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_equals_full_logits(chunk, z_loss):
    h, head, targets, weights = case()

    def plain(h, head):
        logits = h @ head
        nll = jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, targets))
        return 3.0 * (nll + z_loss * jnp.sum(weights * jax.nn.logsumexp(logits, -1) ** 2)), nll

    def ours(h, head):
        total, nll = next_token_loss(h, head, targets, weights, z_loss=z_loss, chunk=chunk)
        return 3.0 * total, nll

    def gradients(loss):
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(h, head)

    chex.assert_trees_all_close(gradients(ours), gradients(plain), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(jax.jit(ours)(h, head), plain(h, head), rtol=1e-5)


def test_large_logits_do_not_overflow():
    h, head, targets, weights = case()
    total, _ = next_token_loss(h * 1000, head, targets, weights)
    grads = jax.grad(lambda h: next_token_loss(h * 1000, head, targets, weights)[0])(h)
    assert np.isfinite(total) and np.isfinite(grads).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_full_logits_in_memory(dtype):
    B, T, D, V = 2, 256, 16, 4096
    shapes = (jax.ShapeDtypeStruct((B, T, D), dtype), jax.ShapeDtypeStruct((D, V), jnp.float32),
              jax.ShapeDtypeStruct((B, T), jnp.int32), jax.ShapeDtypeStruct((B, T), jnp.float32))

    def temporaries(chunk):
        gradient = jax.grad(lambda *args: next_token_loss(*args, chunk=chunk)[0], argnums=(0, 1))
        return jax.jit(gradient).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    logits = B * T * V * 4
    assert temporaries(64) < logits / 2
    assert temporaries(B * T) >= logits


@pytest.mark.parametrize("of_total, of_nll", [(1.0, 0.0), (0.0, 1.0), (2.0, -3.0)])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("kind", MESHES)
def test_both_sums_have_gradients_for_all_three_arrays(of_total, of_nll, z_loss, kind):
    h, head, targets, _ = case(B=4, V=24)
    weights = jax.random.uniform(jax.random.key(4), targets.shape).at[:, :2].set(0.0)

    def plain(h, head, weights):
        logits = h @ head
        nll = jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, targets))
        return of_total * (nll + z_loss * jnp.sum(weights * jax.nn.logsumexp(logits, -1) ** 2)) + of_nll * nll

    def ours(h, head, weights):
        total, nll = next_token_loss(h, head, targets, weights, z_loss=z_loss, chunk=16)
        return of_total * total + of_nll * nll

    wanted, got = (jax.jit(jax.grad(f, argnums=(0, 1, 2))) for f in (plain, ours))
    wanted = wanted(h, head, weights)
    assert all(np.abs(gradient).max() > 0.1 for gradient in wanted)
    with jax.set_mesh(MESHES[kind]()):
        chex.assert_trees_all_close(jax.device_get(got(h, head, weights)), wanted, rtol=1e-5, atol=1e-5)


def test_the_second_sum_costs_nothing_where_nobody_asks_for_its_gradient():
    h, head, targets, weights = case()

    def products(has_aux: bool) -> int:
        def loss(h, head):
            total, nll = next_token_loss(h, head, targets, weights, z_loss=1e-2, chunk=16)
            return (total, nll) if has_aux else total + nll

        return str(jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1), has_aux=has_aux))(h, head)).count("dot_general")

    assert 2 * products(True) == products(False)


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int32, jnp.bfloat16])
def test_weights_of_any_dtype(dtype):
    h, head, targets, weights = case()
    chex.assert_trees_all_equal(next_token_loss(h, head, targets, weights.astype(dtype)),
                                next_token_loss(h, head, targets, weights))


@pytest.mark.parametrize("target", [-1, -100, 20, 10**6])
@pytest.mark.parametrize("kind", MESHES)
def test_a_target_that_is_no_token_is_not_a_token(target, kind):
    """Its loss would be log Z. Without weight it counts for nothing, and has no gradient."""
    h, head, targets, _ = case(B=4)
    bad = targets.at[1, 3].set(target)
    with jax.set_mesh(MESHES[kind]()):
        loss = jax.jit(jax.value_and_grad(lambda weights, targets: next_token_loss(h, head, targets, weights)[0]))
        assert np.isnan(loss(jnp.ones(targets.shape), bad)[0])
        weights = jnp.ones(targets.shape).at[1, 3].set(0.0)
        (value, gradient), (same, other) = loss(weights, bad), loss(weights, targets)
        assert value == same and gradient[1, 3] == 0 and np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient.at[1, 3].set(0), other.at[1, 3].set(0))


@pytest.mark.parametrize("wrong", [
    {"targets": lambda x: x[:1]}, {"weights": lambda x: x[:1]}, {"weights": lambda x: x[:, :1]}, {"targets": lambda x: x * 1.0},
    {"head": lambda x: x[:4]}, {"h": lambda x: x[0]}, dict.fromkeys(("h", "targets", "weights"), lambda x: x[:0]),
], ids=lambda wrong: "-".join(wrong))
def test_arrays_that_do_not_fit_are_named(wrong):
    """One row of targets or weights was taken for every row."""
    arrays = dict(zip(("h", "head", "targets", "weights"), case(), strict=True))
    with pytest.raises(ConfigError, match=r"the loss wants h \(B, T, D\), a head \(D, V\), integer targets"):
        next_token_loss(*(wrong.get(name, lambda x: x)(array) for name, array in arrays.items()))
