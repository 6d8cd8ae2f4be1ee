"""What the compiled step is made of, and what is refused before it is compiled."""

import re
from dataclasses import replace
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from llama_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.errors import ConfigError
from llama_jax.model.accounting import parameter_count
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.rules import AXES, spec
from llama_jax.training.compiled import build, check_config_on_mesh
from tests.training.test_step import packed_batch

CONFIG = Config(
    model=ModelConfig(vocab_size=496, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48, max_length=320),
    compute=ComputeConfig(dtype="float32", remat="linear", loss_chunk=64),
    data=DataConfig(sequence_length=320), optimizer=OptimizerConfig(warmup_steps=1, peak_lr=1e-2),
    training=TrainingConfig(num_steps=4, batch_size=4),
)


def lowered(config: Config, devices: int = 1):
    program = build(config, mesh := make_mesh(config.mesh, jax.devices()[:devices]))
    with jax.set_mesh(mesh):
        return program.train_step.lower(program.abstract_state, program.abstract_batch)


def test_what_travels_and_what_never_exists():
    text = lowered(replace(CONFIG, mesh=MeshConfig(1, 2, 2, 2)), 8).compile().as_text()
    gathered = re.findall(r"= \(?(\w+\[[\d,]*\]).* (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert gathered and not [shape for shape in gathered if "496" in shape], "logits stay on the device that has their words"
    assert not re.search(r"\[[\d,]*(?:320|160),320\]", text), "no T x T weights, nor a slice of them"
    assert "f32[2,80,32]" in text, "2 of 4 rows, a quarter of 320 tokens: the residual stream is split over both axes"


def test_depth_does_not_change_the_program():
    """80 layers are the program of 8: one loop, longer. So is the time to compile it."""
    few, many = (lowered(replace(CONFIG, model=replace(CONFIG.model, num_layers=layers))).as_text() for layers in (8, 80))
    assert len(many) < 1.01 * len(few)


def temporaries(steps: int, *, rows: int, mesh: MeshConfig = CONFIG.mesh, devices: int = 1) -> int:
    """Bytes that a train step of `steps` micro-batches of `rows` rows needs beside its state, on each device."""
    config = replace(CONFIG, model=WIDE, data=DataConfig(sequence_length=16), mesh=mesh,
                     training=replace(CONFIG.training, batch_size=rows * steps, accumulation_steps=steps))
    return lowered(config, devices).compile().memory_analysis().temp_size_in_bytes


WIDE = replace(CONFIG.model, dim=256, ffn_dim=512)
"""Gradients of this model are larger than its activations."""


def test_accumulation_holds_one_set_of_gradients():
    assert temporaries(4, rows=4) < temporaries(1, rows=4) + 0.5 * 4 * parameter_count(WIDE)


@pytest.mark.parametrize("mesh", [MeshConfig(4, 2), pytest.param(MeshConfig(1, 4, 2), marks=pytest.mark.slow)], ids=str)
def test_accumulation_over_devices_costs_the_same_memory_for_any_number_of_micro_batches(mesh):
    assert temporaries(8, rows=8, mesh=mesh, devices=8) < 1.01 * temporaries(2, rows=8, mesh=mesh, devices=8)


def states_after(config: Config, steps: int = 3):
    program = build(config, mesh := make_mesh(MeshConfig(1), jax.devices()[:1]))
    with jax.set_mesh(mesh):
        state = program.init()
        for n in range(steps):
            state, _ = program.train_step(state, packed_batch(n))
    return state


SMALL = replace(CONFIG, model=replace(CONFIG.model, vocab_size=64), data=DataConfig(sequence_length=16),
                training=replace(CONFIG.training, batch_size=8))


def test_offloaded_activations_give_the_same_parameters():
    policies = [replace(SMALL.compute, remat=remat) for remat in ("linear", "offload")]
    kept, offloaded = (states_after(replace(SMALL, compute=compute)) for compute in policies)
    chex.assert_trees_all_close(kept.params, offloaded.params, atol=1e-6)


def test_moments_in_bfloat16():
    wide = states_after(SMALL)
    narrow = states_after(replace(SMALL, optimizer=replace(SMALL.optimizer, moment_dtype="bfloat16")))
    for state, dtype in ((wide, jnp.float32), (narrow, jnp.bfloat16)):
        moments = [x.dtype for x in jax.tree.leaves(state.opt_state) if x.ndim]
        assert len(moments) == 2 * len(jax.tree.leaves(state.params)) and set(moments) == {jnp.dtype(dtype)}
    assert {x.dtype for x in jax.tree.leaves(narrow.params)} == {jnp.dtype(jnp.float32)}
    chex.assert_trees_all_close(narrow.params, wide.params, atol=2e-3)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (narrow.params, wide.params)), strict=True))


def test_documents_need_not_be_kept_apart():
    together = replace(SMALL, training=replace(SMALL.training, separate_documents=False))
    loss = []
    for config in (SMALL, together):
        program = build(config, mesh := make_mesh(MeshConfig(1), jax.devices()[:1]))
        with jax.set_mesh(mesh):
            loss.append(float(program.eval_step(program.init().params, packed_batch(0))["nll"]))
    assert loss[0] != loss[1]


@pytest.mark.parametrize("change, mesh, sentence", [
    ({"data": DataConfig(sequence_length=318)}, MeshConfig(1, 2, 2, 2),
     "data.sequence_length = 318 does not divide by mesh.sequence x mesh.tensor = 4; choose a"),
    ({"model": replace(CONFIG.model, dim=36, num_heads=2)}, MeshConfig(1, 4, 1, 2),
     "model.dim = 36 does not divide by mesh.fsdp x mesh.sequence = 8"),
    ({"model": replace(CONFIG.model, num_kv_heads=1)}, MeshConfig(4, 1, 2, 1),
     "model.num_kv_heads = 1 does not divide by mesh.tensor = 2"),
    ({"training": replace(CONFIG.training, batch_size=6)}, MeshConfig(4, 1, 2, 1), "micro-batch of 6 sequences"),
    ({"compute": replace(CONFIG.compute, attention="cudnn")}, MeshConfig(8), "cudnn cannot serve: it needs an NVIDIA GPU"),
])
def test_what_does_not_fit_the_mesh_is_refused(change, mesh, sentence):
    config = replace(replace(CONFIG, training=replace(CONFIG.training, batch_size=8)), **change)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        build(config, make_mesh(mesh))


def test_offload_needs_pinned_memory():
    device = SimpleNamespace(device_kind="Toaster", addressable_memories=lambda: [SimpleNamespace(kind="device")])
    mesh = SimpleNamespace(shape=dict.fromkeys(AXES, 1), axis_names=AXES, axis_types=(AxisType.Auto,) * 4,
                           devices=np.array([device]))
    with pytest.raises(ConfigError, match=r"pinned host memory, which Toaster does not have \(it has device\); take linear"):
        check_config_on_mesh(replace(CONFIG, compute=replace(CONFIG.compute, remat="offload")), mesh)


def test_two_axes_of_an_array_on_one_mesh_axis_are_refused():
    with pytest.raises(ConfigError, match=r"the axes heads and mlp of one array both lie on mesh.tensor; RULES"):
        spec("heads", "mlp")


@pytest.mark.parametrize("attention", ["reference", "chunked"])
def test_what_is_not_training_does_not_inherit_its_backend(attention):
    """Samples are drawn by `Program.model`: the backend that serves training rows need not know other masks and lengths."""
    config = replace(CONFIG, compute=replace(CONFIG.compute, attention=attention))
    program = build(config, make_mesh(MeshConfig(1), jax.devices()[:1]))
    assert program.attention == f"{attention} (asked for)" and program.model.compute.attention == "auto"


def test_the_initial_parameters_may_have_a_seed_of_their_own():
    def head(**training) -> np.ndarray:
        config = replace(CONFIG, training=replace(CONFIG.training, **training))
        return np.asarray(build(config, make_mesh(config.mesh, jax.devices()[:1])).init().params["head"])

    np.testing.assert_array_equal(head(seed=3), head(seed=5, init_seed=3))
    assert not np.array_equal(head(seed=3), head(seed=3, init_seed=0))
