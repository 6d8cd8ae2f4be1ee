"""The chunked loss equals optax on full logits, and never holds them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama_jax.training.loss import next_token_loss


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
