"""Memory per device by arithmetic, against numbers derived by hand."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from llama_jax.config.presets import PRESETS
from llama_jax.model.accounting import parameter_count
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters
from llama_jax.plan.memory import estimate_memory, layer_activations
from llama_jax.training.optimizer import make_optimizer
from llama_jax.training.step import init_state
from tests.plan.shipped import ONE, shipped_config
from tests.training.test_optimizer import OTHERS


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_models(name):
    model = Transformer(PRESETS[name])
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    described = parameters(PRESETS[name])
    assert [leaf.shape for leaf in jax.tree.leaves(tree)] == [leaf.shape for leaf in described.values()]
    assert all(len(leaf.axes) == len(leaf.shape) for leaf in described.values())
    assert sum(math.prod(leaf.shape) for leaf in described.values()) == parameter_count(PRESETS[name])


@pytest.mark.parametrize("name, value", OTHERS.items())
def test_moments_are_what_the_optimizer_keeps(name, value):
    """Every option of the optimizer that changes its state changes the plan too."""
    config = shipped_config("tiny")
    config = replace(config, optimizer=replace(config.optimizer, **{name: value}))
    state = jax.eval_shape(partial(init_state, Transformer(config.model), make_optimizer(config.optimizer, 100), seed=0))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.opt_state, state.step)))
    assert estimate_memory(config, ONE, attention="chunked", kind="gpu").moments == size


def test_memory_by_hand():
    config = shipped_config("7b")
    norms = (2 * 32 + 1) * 4096
    memory = estimate_memory(config, ONE | {"fsdp": 8}, attention="cudnn", kind="gpu")
    assert memory.weights == 4 * ((6_738_415_616 - norms) // 8 + norms)
    assert memory.moments == 2 * memory.weights + 12  # three counters of the optimizer and the step
    assert memory.batch == 5 * 4 * 2048 // 8 * 2048
    one_row = replace(config, training=replace(config.training, accumulation_steps=256))
    kept = {remat: layer_activations(one_row, ONE | {"fsdp": 8}, remat=remat) for remat in ("full", "linear")}
    assert kept == {"full": 2048 * 4096 * 2, "linear": 2048 * 2 * (5 * 4096 + 2 * 11_008)}
    halves = layer_activations(one_row, ONE | {"fsdp": 8, "tensor": 2}, remat="linear")
    assert halves == kept["linear"] // 2  # heads, width and the tokens of the stream all lie over tensor
    assert memory.total == memory.state + memory.gradients + memory.activations + memory.workspace + memory.batch
