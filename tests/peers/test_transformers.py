"""Live comparison with transformers' LlamaForCausalLM; skipped where torch or transformers is absent."""

import jax
import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.model.decoder import Transformer
from tests.golden.small import CONFIGS, FLOAT32, golden, random_params, random_rows

pytestmark = pytest.mark.peers
pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.golden.make_transformers import hf_logits, hf_losses  # noqa: E402

LIVE = {
    **CONFIGS,
    "mqa": ModelConfig(vocab_size=200, dim=48, num_layers=2, num_heads=6, num_kv_heads=1, ffn_dim=80, max_length=128,
                       rope_theta=123.0),
}


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("seed", [5, 6])
def test_logits(name, seed):
    config = LIVE[name]
    params, tokens = random_params(config, seed), random_rows(config, seed, 2, 60)[:, :-1]
    ours = jax.jit(Transformer(config, FLOAT32).apply)({"params": params}, tokens)
    np.testing.assert_allclose(ours, hf_logits(config, params, tokens), atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_values_are_what_the_script_makes_today(name):
    config = CONFIGS[name]
    params = random_params(config, 0)
    np.testing.assert_allclose(golden()[f"{name}_losses"], hf_losses(config, params), atol=1e-4)
    np.testing.assert_allclose(golden()[f"{name}_logits"], hf_logits(config, params, random_rows(config, 1)[:, :-1]),
                               atol=1e-5)


def test_the_schedule_is_transformers_cosine_one_update_earlier():
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    from llama_jax.config import OptimizerConfig
    from llama_jax.training.optimizer import learning_rate

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_with_min_lr_schedule_with_warmup(optimizer, 7, 50, min_lr_rate=0.1).lr_lambdas[0]
    ours = learning_rate(OptimizerConfig(peak_lr=1.0, warmup_steps=7), 50)
    np.testing.assert_allclose([float(ours(n)) for n in range(51)], [theirs(n) for n in range(51)], atol=1e-6)
    assert optimizer.param_groups[0]["lr"] == theirs(0) == 0.0  # their first update has the value at 0, ours the one at 1
