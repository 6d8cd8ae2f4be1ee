"""Eight bits: within half a step of the matrix, and the model that is made of them stays near itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.inference.decode import forward_over_cache
from llama_jax.inference.params import decoding_params
from llama_jax.model.decoder import Transformer
from llama_jax.ops.linear import linear, quantize
from llama_jax.scoring.likelihood import token_loglikelihood
from tests.golden.small import FLOAT32
from tests.golden.stories import load_llama2c


@pytest.mark.parametrize("shape, contract", [((8, 6), 1), ((8, 3, 4), 1), ((3, 4, 8), 2)])
def test_within_half_a_step(shape, contract):
    w = jax.random.normal(jax.random.key(0), shape).at[..., 0].set(0.0)
    packed = quantize(w, contract=contract)
    back = packed.values * jnp.expand_dims(packed.scales, tuple(range(contract)))
    step = jnp.expand_dims(packed.scales, tuple(range(contract)))
    assert packed.values.dtype == jnp.int8 and (jnp.abs(back - w) <= step * 0.5001).all()
    x = jax.random.normal(jax.random.key(1), (2, 5, *shape[:contract]))
    np.testing.assert_allclose(linear(x, packed, contract=contract), linear(x, back, contract=contract), atol=1e-5)


@pytest.mark.slow
def test_the_cost_on_a_real_model(shared_data):
    """stories260K on its own text: 0.005 nats per token at most."""
    config, params = load_llama2c(shared_data / "checkpoints/stories260K/stories260K.bin")
    params = jax.tree.map(jnp.asarray, params)
    ids = json.loads((shared_data / "checkpoints/stories260K/greedy.json").read_text())["tokens"]
    model = Transformer(config, FLOAT32)
    [exact] = token_loglikelihood(model, params, [(ids[:1], ids[1:])])
    weights = decoding_params(model, params, int8=True)
    h_BTD, _ = forward_over_cache(model, weights, tokens_BT=jnp.asarray([ids[:-1]]))
    logprobs = jax.nn.log_softmax(weights.next_logits(h_BTD[0]))[np.arange(len(ids) - 1), np.array(ids[1:])]
    assert abs(float(logprobs.mean()) - exact.logprob / (len(ids) - 1)) < 0.005
