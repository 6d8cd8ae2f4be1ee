"""The parts of llama_jax inside a flax.nnx model, through nnx's bridge for Linen modules.

`nnx.bridge.ToNNX` wraps a Linen module; its parameters become `nnx.Param`s, which nnx's transforms and optimizers treat as their
own. A Linen module learns the width of its input when it first sees one, so `nnx.bridge.lazy_init` runs the model once.
`rope_tables`, `rotate` and `attend` are functions of arrays and need no bridge. The task is that of examples/lift.py: to predict
the next value of a sine wave of unknown frequency and phase.

    python examples/nnx.py

prints

    wk of our Attention, (64, 2, 16), is an nnx.Param
    wo of our Attention, (4, 16, 64), is an nnx.Param
    wq of our Attention, (64, 4, 16), is an nnx.Param
    wv of our Attention, (64, 2, 16), is an nnx.Param
    step   0  mean squared error 0.3891
    step 100  mean squared error 0.0214
    step 200  mean squared error 0.0134
    step 300  mean squared error 0.0129
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from llama_jax import Attention, FeedForward, Mask, RMSNorm, attend, rope_tables, rotate

B, T, D, N, H = 64, 32, 64, 4, 16


class MyAttention(nnx.Module):
    """An nnx attention layer, (B, T, D) -> (B, T, D), with our positions and our kernels."""

    def __init__(self, rngs: nnx.Rngs):
        self.q, self.k, self.v = (nnx.LinearGeneral(D, (N, H), rngs=rngs) for _ in range(3))
        self.out = nnx.LinearGeneral((N, H), D, axis=(-2, -1), rngs=rngs)

    def __call__(self, x_BTD):
        tables = rope_tables(jnp.arange(T), head_dim=H, theta=100.0)
        q_BTNH, k_BTNH = rotate(self.q(x_BTD), tables), rotate(self.k(x_BTD), tables)
        return self.out(attend(q_BTNH, k_BTNH, self.v(x_BTD), Mask(), "auto"))


class Forecaster(nnx.Module):
    """Values of waves (B, T) -> the next value at every step (B, T)."""

    def __init__(self, rngs: nnx.Rngs):
        def ours(module):
            return nnx.bridge.ToNNX(module, rngs=rngs)

        self.embed, self.readout = nnx.Linear(1, D, rngs=rngs), nnx.Linear(D, 1, rngs=rngs)
        self.layers = nnx.List([MyAttention(rngs), ours(FeedForward(ffn_dim=2 * D, kind="geglu")),
                                ours(Attention(num_heads=N, num_kv_heads=2))])
        self.norms, self.last_norm = nnx.List([ours(RMSNorm()) for _ in self.layers]), ours(RMSNorm(eps=1e-6))

    def __call__(self, wave_BT):
        x_BTD = self.embed(wave_BT[..., None])
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x_BTD = x_BTD + layer(norm(x_BTD))
        return self.readout(self.last_norm(x_BTD))[..., 0]


def waves(key):
    """Sine waves of random frequency and phase, (B, T + 1)."""
    frequency, phase = jax.random.uniform(key, (2, B, 1))
    return jnp.sin((0.2 + 0.8 * frequency) * jnp.arange(T + 1)[None] + 2 * jnp.pi * phase)


@nnx.jit
def step(model, optimizer, key):
    """One update of the model in place; returns the mean squared error before it."""
    wave = waves(key)
    loss, gradients = nnx.value_and_grad(lambda model: jnp.mean(jnp.square(model(wave[:, :-1]) - wave[:, 1:])))(model)
    optimizer.update(model, gradients)
    return loss


def main():
    model = nnx.bridge.lazy_init(Forecaster(nnx.Rngs(0)), waves(jax.random.key(1))[:, :-1])
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for path, param in nnx.to_flat_state(nnx.state(model.layers[2], nnx.Param)):
        print(f"{'.'.join(path)} of our Attention, {param.shape}, is an nnx.{type(param).__name__}")
    for n, key in enumerate(jax.random.split(jax.random.key(2), 301)):
        loss = step(model, optimizer, key)
        if n % 100 == 0:
            print(f"step {n:3}  mean squared error {loss:.4f}")


if __name__ == "__main__":
    main()
