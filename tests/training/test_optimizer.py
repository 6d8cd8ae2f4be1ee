"""The paper's schedule, decay and clipping."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ModelConfig, OptimizerConfig
from llama_jax.errors import ConfigError
from llama_jax.model.tree import decay_mask
from llama_jax.training.optimizer import learning_rate, make_optimizer


def test_schedule_at_its_corners():
    rate = learning_rate(OptimizerConfig(peak_lr=3e-4, warmup_steps=2000), 10_000)
    assert float(rate(0)) == 0.0
    assert float(rate(1000)) == pytest.approx(1.5e-4)
    assert float(rate(2000)) == pytest.approx(3e-4)
    assert float(rate(6000)) == pytest.approx(3e-4 * (0.1 + 0.9 * 0.5), rel=1e-5)
    assert float(rate(10_000)) == pytest.approx(3e-5, rel=1e-5)


def rates_used(config: OptimizerConfig, num_steps: int) -> np.ndarray:
    """What the optimizer multiplies with, read from its updates: with zero gradients only decay at rate 1 is left."""
    optimizer = make_optimizer(replace(config, weight_decay=1.0), num_steps)
    one = {"head": jnp.ones(())}
    update = jax.jit(lambda state: optimizer.update({"head": jnp.zeros(())}, state, one))
    state, rates = optimizer.init(one), []
    for _ in range(num_steps):
        updates, state = update(state)
        rates.append(-float(updates["head"]))
    return np.array(rates)


@pytest.mark.parametrize("ratio", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("warmup, num_steps", [(0, 10), (1, 10), (4, 10), (9, 10), (0, 2), (1, 2)])
def test_every_update_trains_and_the_last_uses_the_final_ratio(warmup, num_steps, ratio):
    rates = rates_used(OptimizerConfig(peak_lr=0.5, warmup_steps=warmup, final_lr_ratio=ratio), num_steps)
    peak_at = max(warmup, 1)  # counted from 1
    np.testing.assert_allclose(rates[:peak_at], 0.5 * np.arange(1, peak_at + 1) / peak_at, rtol=1e-6)
    falling = np.arange(num_steps - peak_at + 1) / (num_steps - peak_at)
    np.testing.assert_allclose(rates[peak_at - 1:], 0.5 * (ratio + (1 - ratio) * 0.5 * (1 + np.cos(np.pi * falling))),
                               rtol=1e-5, atol=1e-7)
    assert rates[0] > 0 and rates[-1] == pytest.approx(0.5 * ratio, rel=1e-6, abs=0)


def test_a_run_of_one_update_uses_its_final_rate():
    assert rates_used(OptimizerConfig(peak_lr=0.5, warmup_steps=0), 1) == pytest.approx([0.05])


def test_the_schedule_is_the_rate_of_an_update_by_its_number():
    """What metrics.jsonl says of a step is what that step was multiplied with."""
    config = OptimizerConfig(peak_lr=0.5, warmup_steps=3)
    logged = [float(learning_rate(config, 12)(step)) for step in range(1, 13)]
    np.testing.assert_allclose(rates_used(config, 12), logged, rtol=1e-6)


OTHERS = {"peak_lr": 0.2, "warmup_steps": 3, "final_lr_ratio": 0.5, "beta1": 0.5, "beta2": 0.5, "eps": 0.1, "weight_decay": 0.3,
          "clip_norm": 0.5, "moment_dtype": "bfloat16"}
"""Another value of every field than `test_every_field_changes_the_updates` begins with."""


def test_every_field_changes_the_updates():
    assert {*OTHERS} == {field.name for field in fields(OptimizerConfig)}
    start = OptimizerConfig(peak_lr=0.1, warmup_steps=2, weight_decay=0.1)

    def after_five_updates(config: OptimizerConfig) -> np.ndarray:
        optimizer, w = make_optimizer(config, 6), {"head": jnp.array([1.0, -2.0])}
        state = optimizer.init(w)
        for n in range(5):
            updates, state = optimizer.update({"head": jnp.array([1.3 / (n + 1), 0.1 * n])}, state, w)
            w = {"head": w["head"] + updates["head"]}
        return np.asarray(w["head"])

    usual = after_five_updates(start)
    for name, value in OTHERS.items():
        assert np.abs(after_five_updates(replace(start, **{name: value})) - usual).max() > 1e-5, name


def params():
    return {"embedding": jnp.ones((2, 2)), "head": jnp.ones((2, 2)), "final_norm": {"scale": jnp.ones(2)},
            "layers": {"attention": {"wq": jnp.ones((1, 2, 1, 2))}, "attention_norm": {"scale": jnp.ones((1, 2))}}}


def test_norms_and_embeddings_are_not_decayed():
    assert decay_mask(ModelConfig())(params()) == {
        "embedding": False, "head": True, "final_norm": {"scale": False},
        "layers": {"attention": {"wq": True}, "attention_norm": {"scale": False}},
    }


def test_decay_alone_shrinks_matrices_alone():
    optimizer = make_optimizer(OptimizerConfig(peak_lr=0.1, warmup_steps=0, weight_decay=0.5), 10)
    p = params()
    zeros = {"embedding": jnp.zeros((2, 2)), "head": jnp.zeros((2, 2)), "final_norm": {"scale": jnp.zeros(2)},
             "layers": {"attention": {"wq": jnp.zeros((1, 2, 1, 2))}, "attention_norm": {"scale": jnp.zeros((1, 2))}}}
    updates, _ = optimizer.update(zeros, optimizer.init(p), p)
    np.testing.assert_allclose(updates["head"], -0.1 * 0.5)
    np.testing.assert_array_equal(updates["embedding"], 0.0)
    np.testing.assert_array_equal(updates["layers"]["attention_norm"]["scale"], 0.0)


def test_parameters_of_other_names_need_a_mask_of_their_own():
    other = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    with pytest.raises(ConfigError, match=r"the model has no parameter bias, .*decayed="):
        make_optimizer(OptimizerConfig(warmup_steps=0), 10).init(other)
    optimizer = make_optimizer(OptimizerConfig(peak_lr=0.1, warmup_steps=0, weight_decay=0.5), 10,
                               decayed=lambda params: {"kernel": True, "bias": False})
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, other), optimizer.init(other), other)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5)
    np.testing.assert_array_equal(updates["bias"], 0.0)
