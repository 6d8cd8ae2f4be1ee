"""Every architecture obeys the same laws (`tests.model.variants` says which there are).

Where numbers alone matter, functions run op by op: ops are compiled once for all models, and each model then takes a tenth of the
time that a compiled program of its own would. One model is compiled, and where slow tests run some of every kind.
"""

import re
from dataclasses import replace
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import jaxprs_in_params

from llama_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from llama_jax.errors import ConfigError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.config_json import config_to_hf
from llama_jax.formats.loading import abstract_params, load_params
from llama_jax.formats.open import open_source
from llama_jax.formats.params_json import config_to_meta
from llama_jax.formats.saving import save
from llama_jax.inference.decode import forward_over_cache, prefill
from llama_jax.inference.generate import generate
from llama_jax.inference.params import DecodingParams, decoding_params
from llama_jax.inference.sampling import Sampling
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.ops.linear import linear
from llama_jax.parallel.mesh import make_mesh
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import attention_of, configured_layout
from llama_jax.scoring.likelihood import token_loglikelihood
from llama_jax.scoring.prefix_trees import PackedRow, build_prefix_trees, tree_batches
from llama_jax.training.compiled import build
from tests.golden.small import FLOAT32
from tests.model.variants import CASES, PATH, SMALL, all_cases, model_of, of_each, other_fast, some_cases, some_fast
from tests.training.test_step import packed_batch

TOKENS = np.random.default_rng(1).integers(3, SMALL["vocab_size"], (12, 12)).astype(np.int32)
TOKENS[1::2, :6] = TOKENS[::2, :6]
"""As many rows as each has tokens; every two begin alike."""


@pytest.fixture
def op_by_op(monkeypatch):
    """Nothing is compiled but single ops, which all models share."""
    # flax traces the initialiser of every parameter at every call, to compare shapes: zeros have the shape too
    monkeypatch.setattr(nn.initializers, "normal", lambda std: lambda key, shape, dtype: jnp.zeros(shape, dtype))
    with jax.disable_jit():
        yield


@cache
def decoding_params_of(name: str) -> DecodingParams:
    """A case's parameters, layers apart."""
    return decoding_params(*model_of(name))


@cache
def logits_and_influence(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of TOKENS, (B, T, V), which every other way to compute them has to give, and what each token matters, (B = T, T).

    Row t of the second: absolute gradients of the logits at t by the embeddings of all tokens of row t.
    """
    model, params = model_of(name)[0].clone(layers_apart=True), decoding_params_of(name).tree
    weights = np.random.default_rng(2).standard_normal(SMALL["vocab_size"]).astype(np.float32)
    x_BTD = model.apply({"params": params}, jnp.asarray(TOKENS), method=Transformer.embed)
    logits, pull = jax.vjp(lambda x_BTD: model.apply({"params": params}, x_BTD), x_BTD)
    [gradients] = pull(jnp.asarray(np.eye(len(TOKENS), dtype=np.float32)[:, :, None] * weights))
    return np.asarray(logits), np.abs(gradients).sum(-1)


@some_fast
def test_finite_and_causal_by_gradient(name, op_by_op):
    logits, influence = logits_and_influence(name)
    assert logits.dtype == np.float32 and logits.shape == (*TOKENS.shape, SMALL["vocab_size"])
    assert np.isfinite(logits).all() and np.isfinite(influence).all()
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones_like(influence, bool)))


@all_cases
def test_other_formats_name_what_they_cannot_hold(name):
    config = CASES[name]
    unknown = [field for field in ("norm", "norm_position", "feedforward", "position")
               if getattr(config, field) != getattr(ModelConfig, field)]
    if not unknown:
        assert config_to_hf(config, "float32")["num_hidden_layers"] == config.num_layers
        return
    fields = " .*".join(rf"model\.{field}" for field in unknown)
    with pytest.raises(ConfigError, match=rf"config.json of Hugging Face cannot express this model \(.*{fields} .*; only a run"):
        config_to_hf(config, "float32")
    with pytest.raises(ConfigError, match=r"cannot express this (model|rope scaling) \(.*model\."):
        config_to_meta(config)


@some_fast
def test_packed_equals_separate(name, op_by_op):
    """Each row holds the beginnings of two others."""
    model, params = model_of(name)
    wanted = logits_and_influence(name)[0]

    def packed(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[:, :5], np.roll(x, 1, axis=0)[:, :7]], axis=1)

    numbers = np.broadcast_to(np.arange(12, dtype=np.int32), TOKENS.shape)
    inputs = (packed(x) for x in (TOKENS, numbers, numbers.T))  # positions are columns, documents rows
    np.testing.assert_allclose(model.apply({"params": params}, *map(jnp.asarray, inputs)), packed(wanted), atol=1e-4)


@some_fast
def test_cached_equals_uncached_in_rows_of_any_length(name, op_by_op):
    model, decoding, wanted = model_of(name)[0], decoding_params_of(name), logits_and_influence(name)[0]
    rows, counts_B = np.arange(12), np.arange(12) % 8 + 1
    cache, logits = prefill(model, decoding, tokens_BT=jnp.asarray(TOKENS), counts_B=jnp.asarray(counts_B), slots=16)
    np.testing.assert_allclose(logits, wanted[rows, counts_B - 1], atol=1e-4)
    for _ in range(2):  # two more tokens of each row, and two more
        places = rows[:, None], counts_B[:, None] + np.array([[0, 1]])
        h_BTD, keys_values = forward_over_cache(model, decoding, tokens_BT=jnp.asarray(TOKENS[places]), cache=cache)
        np.testing.assert_allclose(decoding.next_logits(h_BTD), wanted[places], atol=1e-4)
        counts_B, cache = counts_B + 2, cache.updated(keys_values, cache.lengths_B + 2)


@of_each(CASES, fast=some_cases())
def test_decoding_in_8_bits_is_close(name, op_by_op):
    model, params = model_of(name)
    decoding, wanted = decoding_params(model, params, int8=True), logits_and_influence(name)[0]
    logits = decoding.next_logits(forward_over_cache(model, decoding, tokens_BT=jnp.asarray(TOKENS))[0])
    assert 1e-6 < np.abs(logits - wanted).mean() < 0.1 * wanted.std()


@some_fast
def test_prefix_trees_equal_separate(name, op_by_op):
    """Each tree is a row: six tokens that two texts share, then three of each, which do not see each other."""
    model, params = model_of(name)
    requests = [(row[:6].tolist(), row[6:10].tolist()) for row in TOKENS]
    rows = [PackedRow(12, [tree]) for tree in build_prefix_trees(requests, max_tokens=12)]
    [batch] = tree_batches(rows, requests, batch_tokens=TOKENS.size, row_multiple=len(TOKENS))
    assert len(rows) == len(TOKENS) / 2 and not any(row.free for row in rows)
    arrays = map(jnp.asarray, (batch.tokens_BT, batch.positions_BT, batch.ends_BT))
    h_BTD = model.apply({"params": params}, *arrays, method=lambda model, tokens, positions, ends:
                        model.hidden(tokens, positions, ends_BT=ends))
    logits = linear(h_BTD, head_matrix(params)).reshape(TOKENS.size, -1)
    for number, wanted in enumerate(logits_and_influence(name)[0]):
        np.testing.assert_allclose(logits[batch.where_M[batch.scored[number]]], wanted[5:9], atol=1e-4)


def matmul_flops(jaxpr) -> int:
    """FLOPs of all matrix products in a traced function, a loop's as often as it goes round."""
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(matmul_flops(inner) for inner in jaxprs_in_params(equation.params))
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * int(np.prod([left[axis] for axis in contracted]))
    return total


@all_cases
def test_parameters_and_flops_are_counted(name):
    config, T = CASES[name], 12
    model = Transformer(config, replace(FLOAT32, attention="reference"))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert parameter_count(config) == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, model_of(name)[1])
    jaxpr = jax.make_jaxpr(lambda params, tokens: model.apply({"params": params}, tokens))(shapes, TOKENS[:1]).jaxpr
    masked_half = config.num_layers * 2 * T * T * config.num_heads * config.head_size  # which the reference computes too
    assert matmul_flops(jaxpr) - masked_half == T * train_flops_per_token(config, T) / 3


@cache
def loss_and_gradients(name: str, compute: ComputeConfig):
    """A loss and its gradients by all parameters, compiled; in rows of two documents that are two tiles long."""
    model, params = model_of(name)
    model, index = model.clone(compute=compute), np.broadcast_to(np.arange(80), (2, 80))
    inputs = np.random.default_rng(3).integers(0, SMALL["vocab_size"], (2, 80)), index % 50, index // 50
    return jax.jit(jax.value_and_grad(lambda params: jnp.square(model.apply({"params": params}, *inputs)).mean()))(params)


@pytest.mark.parametrize("change", [{"scan_layers": False, "remat": "linear"}, {"attention": "reference", "remat": "full"}],
                         ids=str)
@other_fast
def test_how_it_is_computed_changes_nothing(name, change):
    assert FLOAT32.scan_layers and FLOAT32.remat == "none"
    wanted = loss_and_gradients(name, replace(FLOAT32, attention="chunked"))
    got = loss_and_gradients(name, replace(FLOAT32, **{"attention": "chunked"} | change))
    chex.assert_trees_all_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert max(float(jnp.abs(gradient).max()) for gradient in jax.tree.leaves(got[1])) > 0.1


def run_of(model: ModelConfig, mesh: MeshConfig) -> Config:
    """A run of a few steps; Adam's epsilon keeps gradients that are zero but for rounding from mattering."""
    return Config(model=model, compute=replace(FLOAT32, loss_chunk=8), data=DataConfig(sequence_length=16), mesh=mesh,
                  optimizer=OptimizerConfig(warmup_steps=1, peak_lr=1e-2, eps=1e-3),
                  training=TrainingConfig(num_steps=30, batch_size=16, accumulation_steps=2))


def trained(run: Config, devices: int, *, steps: int):
    """The state after some steps on a mesh of fake devices, and the loss of each."""
    program = build(run, mesh := make_mesh(run.mesh, jax.devices()[:devices]))
    with jax.set_mesh(mesh):
        state, losses = program.init(), []
        for n in range(steps):
            state, metrics = program.train_step(state, packed_batch(n % 2, batch=16))
            losses.append(float(metrics["loss"]))
    return state, losses


@other_fast
def test_eight_devices_equal_one(name):
    """Over every axis that its kv heads allow: heads are exchanged for tokens, or, where they do not divide, keys gathered."""
    config = CASES[name]
    mesh = MeshConfig(1, 2, 2, 2) if config.num_kv_heads > 1 else MeshConfig(2, 2, 1, 2)
    state, losses = trained(run_of(config, MeshConfig(1)), 1, steps=3)
    spread, spread_losses = trained(run_of(config, mesh), 8, steps=3)
    np.testing.assert_allclose(spread_losses, losses, rtol=1e-4)
    chex.assert_trees_all_close(jax.device_get(spread.params), jax.device_get(state.params), rtol=1e-3, atol=1e-4)


@other_fast
def test_it_comes_back_bit_for_bit(name, tmp_path):
    model, params = model_of(name)
    save(tmp_path / "saved", model, params)
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", CheckpointConfig())
    checkpoints.save(1, {"params": params}, config=run_of(CASES[name], MeshConfig(1)))
    checkpoints.close()
    for folder in ("saved", "run"):
        source = open_source(tmp_path / folder)
        assert source.config == CASES[name]
        jax.tree.map(np.testing.assert_array_equal, load_params(source, abstract_params(source.config)), params)


@other_fast
def test_generated_text_is_the_likeliest_and_the_same_alone(name, tokenizer):
    """And scores of what has been generated are its log-probabilities."""
    model, params = model_of(name)
    greedy, prompts = Sampling(max_new_tokens=4, temperature=0.0), [TOKENS[row, :row].tolist() for row in (1, 9, 4)]
    results = generate(model, params, tokenizer, prompts, greedy)
    requests = [(prompt, list(got.tokens)) for prompt, got in zip(prompts, results, strict=True)]
    assert all(len(tokens) == 4 for _, tokens in requests)
    for scored, got in zip(token_loglikelihood(model, params, requests), results, strict=True):
        np.testing.assert_allclose(scored.token_logprobs, got.logprobs, atol=1e-4)
        assert scored.is_greedy
    [alone] = generate(model, params, tokenizer, prompts[2], greedy)
    assert alone.tokens == results[2].tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", PATH)
def test_training_lowers_the_loss(name):
    _, losses = trained(run_of(PATH[name], MeshConfig(1)), 1, steps=24)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("machine, fused", [("h100:8", "cudnn"), ("v5e:8", "splash")])
@all_cases
def test_it_is_planned_around_kernels_that_do_not_know_it(name, machine, fused):
    fleet, config = parse_machine(machine), CASES[name]
    run = replace(run_of(config, MeshConfig(8)), compute=ComputeConfig(), data=DataConfig(sequence_length=128))
    layout = configured_layout(run, fleet)
    assert layout.memory.weights == 4 * parameter_count(config) and layout.memory.total > 0 and layout.cost.seconds > 0
    attention, why = attention_of(run, layout.mesh, machine=fleet.machine)
    unknown = {"shaw": "vectors added to keys by distance", "alibi": "scores lowered in proportion"}.get(config.position)
    assert layout.attention == attention == ("chunked" if unknown else fused)
    if not unknown:
        assert why == f"the fused kernel for {fleet.machine.title}"
        return
    reason = rf"{fused}.*: it knows no .*{unknown}.* \(bias\.\w+\).*, which chunked and reference can serve"
    assert re.search(reason, why)
    with pytest.raises(ConfigError, match=reason.replace("serve", r"serve; auto picks one that can\.$")):
        configured_layout(replace(run, compute=ComputeConfig(attention=fused)), fleet)
