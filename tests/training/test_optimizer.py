"""The paper's schedule, decay and clipping."""

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import OptimizerConfig
from llama_jax.training.optimizer import decayed, learning_rate, make_optimizer


def test_schedule_at_its_corners():
    rate = learning_rate(OptimizerConfig(peak_lr=3e-4, warmup_steps=2000), 10_000)
    assert float(rate(0)) == 0.0
    assert float(rate(1000)) == pytest.approx(1.5e-4)
    assert float(rate(2000)) == pytest.approx(3e-4)
    assert float(rate(6000)) == pytest.approx(3e-4 * (0.1 + 0.9 * 0.5), rel=1e-5)
    assert float(rate(10_000)) == pytest.approx(3e-5, rel=1e-5)


def params():
    return {"embedding": jnp.ones((2, 2)), "head": jnp.ones((2, 2)), "final_norm": {"scale": jnp.ones(2)},
            "layers": {"attention": {"wq": jnp.ones((1, 2, 1, 2))}, "attention_norm": {"scale": jnp.ones((1, 2))}}}


def test_norms_and_embeddings_are_not_decayed():
    assert decayed(params()) == {
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
