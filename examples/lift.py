"""RMSNorm, rotary positions and attention of llama_jax inside a Flax (Linen) model of another project.

The model is no language model: it reads a sine wave of unknown frequency and phase value by value, and predicts the next value at
every step. Its projections are its own. Between them stand `RMSNorm`, a module with one number as its field, and the functions
`rope_tables`, `rotate` and `attend`, which take arrays; the last block lets the module `Attention` do all of that.

    python examples/lift.py

prints

    step   0  mean squared error 1.4336
    step 100  mean squared error 0.0414
    step 200  mean squared error 0.0208
    step 300  mean squared error 0.0164
    error after 1 value 0.1813, after 32 values 0.0081
    positions from 1000 on change the predictions by at most 1e-05
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from llama_jax import Attention, Mask, RMSNorm, attend, rope_tables, rotate

B, T, D, N, H = 64, 32, 64, 4, 16


class MyAttention(nn.Module):
    """Another project's attention layer, (B, T, D) -> (B, T, D), with our positions and our kernels."""

    @nn.compact
    def __call__(self, x_BTD, first_position):
        q_BTNH, k_BTNH, v_BTNH = (nn.DenseGeneral((N, H), name=name)(x_BTD) for name in ("q", "k", "v"))
        tables = rope_tables(first_position + jnp.arange(T), head_dim=H, theta=100.0)
        q_BTNH, k_BTNH = rotate(q_BTNH, tables), rotate(k_BTNH, tables)
        return nn.DenseGeneral(D, axis=(-2, -1), name="out")(attend(q_BTNH, k_BTNH, v_BTNH, Mask(), "auto"))


class Forecaster(nn.Module):
    """Values of waves (B, T) -> the next value at every step (B, T)."""

    @nn.compact
    def __call__(self, wave_BT, first_position=0):
        x_BTD = nn.Dense(D)(wave_BT[..., None])
        x_BTD = x_BTD + MyAttention()(RMSNorm()(x_BTD), first_position)
        x_BTD = x_BTD + nn.Dense(D)(nn.tanh(nn.Dense(2 * D)(RMSNorm()(x_BTD))))
        x_BTD = x_BTD + Attention(num_heads=N, num_kv_heads=2)(RMSNorm(eps=1e-6)(x_BTD))
        return nn.Dense(1)(RMSNorm()(x_BTD))[..., 0]


def waves(key):
    """Sine waves of random frequency and phase, (B, T + 1)."""
    frequency, phase = jax.random.uniform(key, (2, B, 1))
    return jnp.sin((0.2 + 0.8 * frequency) * jnp.arange(T + 1)[None] + 2 * jnp.pi * phase)


def main():
    model = Forecaster()
    params = model.init(jax.random.key(0), waves(jax.random.key(1))[:, :-1])["params"]
    optimizer = optax.adam(3e-3)

    def error(params, key):
        """Squared error of the predictions at every step, as a mean over waves (T,)."""
        wave = waves(key)
        return jnp.mean(jnp.square(model.apply({"params": params}, wave[:, :-1]) - wave[:, 1:]), axis=0)

    @jax.jit
    def step(params, state, key):
        loss, gradients = jax.value_and_grad(lambda params: error(params, key).mean())(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(params)
    for n, key in enumerate(jax.random.split(jax.random.key(2), 301)):
        params, state, loss = step(params, state, key)
        if n % 100 == 0:
            print(f"step {n:3}  mean squared error {loss:.4f}")

    of_step = error(params, jax.random.key(3))
    print(f"error after 1 value {of_step[0]:.4f}, after {T} values {of_step[-1]:.4f}")
    wave = waves(jax.random.key(4))[:, :-1]
    moved = model.apply({"params": params}, wave, first_position=1000) - model.apply({"params": params}, wave)
    print(f"positions from 1000 on change the predictions by at most {jnp.abs(moved).max():.0e}")


if __name__ == "__main__":
    main()
