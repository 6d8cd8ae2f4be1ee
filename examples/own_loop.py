"""A training loop of one's own around `Transformer`: jax, optax and a mesh, without the training code of llama_jax.

The model learns Tiny Shakespeare byte by byte, on eight devices, which here are parts of a CPU: four split the rows of a batch,
two split heads, feed-forward width and vocabulary. A mesh axis called "data", "fsdp", "tensor" or "sequence" shards the model as
llama_jax's own training does (docs/SCALE.md); on axes of other names your own shardings and the compiler decide.

    python examples/own_loop.py

prints

    step   0  loss 5.543 nats per byte
    step  50  loss 2.729 nats per byte
    step 100  loss 2.391 nats per byte
    step 150  loss 2.246 nats per byte
    step 200  loss 2.281 nats per byte
    each of 8 devices holds (2, 64, 96) of w_gate (2, 64, 192)
"""

import lzma
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax import Transformer
from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.tree import shardings_of

B, T, STEPS = 16, 64, 200
CONFIG = ModelConfig(vocab_size=256, dim=64, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=192, max_length=T)


def main():
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    model = Transformer(CONFIG, ComputeConfig(dtype="float32"))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.lion(optax.cosine_decay_schedule(2e-3, STEPS)))

    def init(key):
        params = model.init(key, jnp.zeros((1, T), jnp.int32))["params"]
        return params, optimizer.init(params)

    def loss(params, rows):
        """Mean negative log-likelihood of the next byte in nats, of rows (B, T + 1)."""
        logits_BTV = model.apply({"params": params}, rows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows[:, 1:]).mean()

    def step(params, state, rows):
        value, gradients = jax.value_and_grad(loss)(params, rows)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    play = lzma.decompress((resources.files("llama_jax.data") / "tinyshakespeare.txt.xz").read_bytes())
    bytes_ = np.frombuffer(play, np.uint8).astype(np.int32)
    rng = np.random.default_rng(0)
    shardings = shardings_of(CONFIG, mesh, tree=jax.eval_shape(init, jax.random.key(0)))  # of parameters and Lion's momentum
    with jax.set_mesh(mesh):
        params, state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        step = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*shardings, NamedSharding(mesh, P())))
        for n in range(STEPS + 1):
            starts = rng.integers(len(bytes_) - T, size=(B, 1))
            rows = jax.device_put(bytes_[starts + np.arange(T + 1)], NamedSharding(mesh, P("data")))
            params, state, value = step(params, state, rows)
            value = float(value)  # waits for the step: on parts of a CPU several steps at a time can lock each other out
            if n % 50 == 0:
                print(f"step {n:3}  loss {value:.3f} nats per byte")
    w_gate = params["layers"]["feedforward"]["w_gate"]
    print(f"each of {mesh.size} devices holds {w_gate.sharding.shard_shape(w_gate.shape)} of w_gate {w_gate.shape}")


if __name__ == "__main__":
    main()
