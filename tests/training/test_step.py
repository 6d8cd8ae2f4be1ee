"""Properties of the train step: accumulation = one batch, 8 devices = 1 on every mesh, the paper's optimizer = torch's."""

import itertools
import math
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.batch import Batch
from llama_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.data.batches import batch_of_tokens
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.compiled import build
from llama_jax.training.optimizer import make_optimizer
from llama_jax.training.step import TrainState, init_state, make_train_step, micro_batches
from tests.golden.small import CONFIGS, FLOAT32, PEAK_LR, STEPS, WARMUP, golden, random_params, random_rows

MODEL = ModelConfig(vocab_size=64, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48, max_length=32)


def batch_of(rows: np.ndarray) -> Batch:
    T = rows.shape[1] - 1
    return Batch(rows[:, :-1], rows[:, 1:], np.tile(np.arange(T, dtype=np.int32), (len(rows), 1)),
                 np.zeros((len(rows), T), np.int32), np.ones((len(rows), T), np.float32))


def packed_batch(seed: int, batch: int = 8, length: int = 16) -> Batch:
    """Rows with documents that begin with BOS = 1, so that weights, segments and positions are uneven."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, MODEL.vocab_size, (batch, length + 1)).astype(np.int32)
    return batch_of_tokens(np.where(rng.random(rows.shape) < np.linspace(0.02, 0.4, batch)[:, None], 1, rows), bos_id=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_fifty_steps_follow_torch_adamw(name):
    config = CONFIGS[name]
    model = Transformer(config, replace(FLOAT32, loss_chunk=32))
    optimizer = make_optimizer(OptimizerConfig(peak_lr=PEAK_LR, warmup_steps=WARMUP), STEPS)
    params = jax.tree.map(jnp.asarray, random_params(config, 0))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
    step = jax.jit(make_train_step(model, optimizer, TrainingConfig()))
    losses = []
    for n in range(STEPS):
        state, metrics = step(state, batch_of(random_rows(config, 1000 + n)))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, golden()[f"{name}_losses"], atol=1e-3)
    assert losses[-1] < losses[0] - 1.0, "it learns"
    assert int(state.step) == STEPS


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_accumulation_equals_one_batch(count):
    model, batch = Transformer(MODEL, FLOAT32), packed_batch(0)
    assert len(set(batch.weights.reshape(count, -1).sum(1))) > 1, "micro-batches of different weight"
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 10)
    state = init_state(model, optimizer, seed=0)

    def run(accumulation_steps):
        config = TrainingConfig(accumulation_steps=accumulation_steps)
        step = jax.jit(make_train_step(model, optimizer, config))
        after, metrics = step(step(state, batch)[0], batch)
        return after.params, metrics

    chex.assert_trees_all_close(run(count), run(1), rtol=1e-4, atol=2e-6)


def test_micro_batches_keep_each_devices_rows_in_place():
    batch = Batch(*[np.arange(8)[:, None]] * 5)
    np.testing.assert_array_equal(micro_batches(batch, 2).tokens[..., 0], [[0, 2, 4, 6], [1, 3, 5, 7]])


MESHES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=4) if math.prod(shape) == 8 and shape[2] <= 2]
"""Every shape of 8 devices whose tensor axis divides two kv heads."""

COVERING = [(8, 1, 1, 1), (1, 4, 2, 1), (2, 2, 1, 2), (1, 2, 2, 2), (1, 1, 1, 8)]
"""Some of them: each axis alone and with others, heads exchanged for tokens ((2, 2, 1, 2)) and keys gathered (the last two)."""


def trained_on(mesh_config: MeshConfig, devices: int):
    config = Config(model=MODEL, compute=replace(FLOAT32, loss_chunk=8), data=DataConfig(sequence_length=16), mesh=mesh_config,
                    optimizer=OptimizerConfig(warmup_steps=2, peak_lr=1e-2),
                    training=TrainingConfig(num_steps=4, batch_size=16, accumulation_steps=2))
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    program = build(config, mesh)
    with jax.set_mesh(mesh):
        state, losses = program.init(), []
        for n in range(3):
            state, metrics = program.train_step(state, packed_batch(n, batch=16))
            losses.append(float(metrics["loss"]))
        evaluated = program.eval_step(state.params, packed_batch(9, batch=16))
    return state, losses, jax.device_get(evaluated)


@pytest.fixture(scope="module")
def on_one_device():
    state, losses, evaluated = trained_on(MeshConfig(data=1), 1)
    return jax.device_get(state.params), losses, evaluated


@pytest.mark.parametrize("shape", [*COVERING, *(pytest.param(shape, marks=pytest.mark.slow) for shape in MESHES
                                                if shape not in COVERING)], ids=str)
def test_eight_devices_equal_one(shape, on_one_device):
    state, losses, evaluated = trained_on(MeshConfig(*shape), 8)
    chex.assert_trees_all_close((jax.device_get(state.params), losses, evaluated), on_one_device, rtol=1e-4, atol=1e-5)
    _, fsdp, tensor, sequence = shape
    wq = state.params["layers"]["attention"]["wq"]
    assert wq.addressable_shards[0].data.size == wq.size // (fsdp * tensor * sequence)
    moment = jax.tree.leaves(state.opt_state)[1:]
    assert any(m.shape == wq.shape and m.sharding == wq.sharding for m in moment), "moments lie as their parameters"


@pytest.mark.slow
def test_eight_kv_heads_over_eight_tensor_devices():
    config = Config(model=replace(MODEL, dim=64, num_heads=8, num_kv_heads=8), data=DataConfig(sequence_length=16),
                    optimizer=OptimizerConfig(warmup_steps=1), mesh=MeshConfig(1, 1, 8),
                    training=TrainingConfig(num_steps=4, batch_size=8))

    def loss(devices, mesh_config):
        program = build(config, mesh := make_mesh(mesh_config, jax.devices()[:devices]))
        with jax.set_mesh(mesh):
            return float(program.train_step(program.init(), packed_batch(0))[1]["loss"])

    assert loss(8, MeshConfig(1, 1, 8)) == pytest.approx(loss(1, MeshConfig(1, 1, 1)), abs=1e-5)
