"""A new kind of norm, feed-forward or position encoding is registered in one table and one Literal; all else follows.

The kinds exist in these tests alone: what counts, plans, decays, quantizes, caches, saves and loads a model does not know them.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from llama_jax.cli.load_model import load_model
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
from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import ConfigError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.loading import abstract_params
from llama_jax.formats.open import open_source
from llama_jax.inference.decode import forward_over_cache
from llama_jax.inference.params import decoding_params
from llama_jax.model.accounting import parameter_count, train_flops_per_token
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer
from llama_jax.model.initializers import ones
from llama_jax.model.norms import NORMS
from llama_jax.model.positions import POSITIONS, PositionEncoding, described_by_position
from llama_jax.model.tree import decay_mask, parameters
from llama_jax.ops.attention import BACKENDS, choose
from llama_jax.ops.bias import Bias
from llama_jax.ops.feedforward import FEEDFORWARDS, FeedForwardKind
from llama_jax.parallel.mesh import make_mesh
from llama_jax.plan.fleet import parse_machine
from llama_jax.plan.layouts import configured_layout
from llama_jax.training.compiled import attention_spec, build
from tests.golden.small import FLOAT32
from tests.training.test_step import packed_batch

SMALL = ModelConfig(vocab_size=64, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48, max_length=32)


class CentredNorm(nn.Module):
    """Subtract the mean, divide by the standard deviation, scale by two parameters."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x):
        first = self.param("first", ones("features"), (x.shape[-1],), jnp.float32)
        second = self.param("second", ones("features"), (x.shape[-1],), jnp.float32)
        x_float = x.astype(jnp.float32)
        x_float -= x_float.mean(-1, keepdims=True)
        x_float *= jax.lax.rsqrt(jnp.square(x_float).mean(-1, keepdims=True) + self.eps)
        return (x_float * jnp.expand_dims(first * second, tuple(range(x.ndim - 1)))).astype(x.dtype)


@dataclass(frozen=True)
class Sloped(PositionEncoding):
    """No rotation: scores fall with the distance between tokens."""

    def in_attention(self, tables, *, num_heads: int, **parameters) -> Bias:
        return Bias(slopes_N=2.0 ** -jnp.arange(1.0, num_heads + 1), positions_BT=tables)


KINDS = {"norm": "centred", "feedforward": "squared", "position": "sloped"}


@pytest.fixture
def registered(monkeypatch):
    """The two places of each kind: its table, and the Literal of its field."""
    monkeypatch.setitem(NORMS, "centred", CentredNorm)
    monkeypatch.setitem(FEEDFORWARDS, "squared", FeedForwardKind(("w_in",), lambda x: jnp.square(jax.nn.relu(x))))
    monkeypatch.setitem(POSITIONS, "sloped", lambda config: Sloped())
    for field, name in KINDS.items():
        known = get_args(ModelConfig.__annotations__[field])
        monkeypatch.setitem(ModelConfig.__annotations__, field, Literal[(*known, name)])
    yield
    parameters.cache_clear()


@pytest.fixture(params=[*KINDS, "all"])
def config(request, registered) -> ModelConfig:
    choices = {field: {field: name} for field, name in KINDS.items()} | {"all": KINDS}
    return replace(SMALL, **choices[request.param])


def run_of(config: ModelConfig, mesh: MeshConfig) -> Config:
    return Config(model=config, compute=replace(FLOAT32, loss_chunk=8), data=DataConfig(sequence_length=16), mesh=mesh,
                  optimizer=OptimizerConfig(warmup_steps=1, peak_lr=1e-2),
                  training=TrainingConfig(num_steps=4, batch_size=16, accumulation_steps=2))


def states_after_three_steps(config: ModelConfig, mesh: MeshConfig, devices: int):
    run = run_of(config, mesh)
    program = build(run, real := make_mesh(mesh, jax.devices()[:devices]))
    with jax.set_mesh(real):
        state = program.init()
        for n in range(3):
            state, metrics = program.train_step(state, packed_batch(n, batch=16))
    return run, state, float(metrics["loss"])


def test_it_is_counted_decayed_and_described(config):
    tree = Transformer(config).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert parameter_count(config) == sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(
        lambda leaf: leaf.shape, abstract_params(config), is_leaf=lambda leaf: hasattr(leaf, "sharding"))
    shrunk = decay_mask(config)(tree)["layers"]
    assert shrunk["feedforward"] == dict.fromkeys(shrunk["feedforward"], True)
    assert shrunk["attention_norm"] == dict.fromkeys(shrunk["attention_norm"], False)
    fewer = len(FEEDFORWARDS["swiglu"].projections) - len(FEEDFORWARDS[config.feedforward].projections)
    matrices = fewer * SMALL.dim * SMALL.ffn_dim * SMALL.num_layers
    assert train_flops_per_token(SMALL, 16) - train_flops_per_token(config, 16) == 6 * matrices


@pytest.mark.parametrize("config", ["all", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS)], indirect=True)
def test_it_trains_over_eight_devices_as_on_one_and_comes_back_from_a_checkpoint(config, tmp_path):
    run, state, loss = states_after_three_steps(config, MeshConfig(data=1), 1)
    _, spread, spread_loss = states_after_three_steps(config, MeshConfig(2, 2, 2, 1), 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), jax.device_get(spread.params), state.params)
    assert spread_loss == pytest.approx(loss, rel=1e-4)
    checkpoints = Checkpoints(tmp_path / "checkpoints", run.checkpoint)
    checkpoints.save(3, state, config=run)
    checkpoints.close()
    source = open_source(tmp_path)
    assert source.config == config
    again = Checkpoints(tmp_path / "checkpoints")
    jax.tree.map(np.testing.assert_array_equal, again.restore_params(3, abstract_params(config)), state.params)
    again.close()


@pytest.mark.parametrize("int8", [False, True])
def test_cached_equals_uncached(config, int8):
    model = Transformer(config, FLOAT32)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 64, (2, 20)), jnp.int32)
    params = model.init(jax.random.key(0), ids)["params"]  # matrices larger than at the start, so that attention matters
    params = jax.tree.map(lambda x, is_matrix: 4 * x if is_matrix else x, params, decay_mask(config)(params))
    decoding = decoding_params(model, params, int8=int8)
    whole = decoding.next_logits(forward_over_cache(model, decoding, tokens_BT=ids)[0])
    cache, parts = Cache.empty(config, dtype="float32", rows=2, slots=32), []
    for begin, end in ((0, 7), (7, 8), (8, 20)):
        h_BTD, keys_values = forward_over_cache(model, decoding, tokens_BT=ids[:, begin:end], cache=cache)
        cache = cache.updated(keys_values, cache.lengths_B + (end - begin))
        parts.append(decoding.next_logits(h_BTD))
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=5e-5)
    exact = model.apply({"params": params}, ids)
    assert np.abs(whole - exact).mean() < (0.1 * exact.std() if int8 else 1e-5)


def test_it_is_planned(config):
    layout = configured_layout(replace(run_of(config, MeshConfig(data=8)), compute=ComputeConfig()), parse_machine("h100:8"))
    assert layout.memory.weights == 4 * parameter_count(config) and layout.cost.seconds > 0
    assert layout.attention == ("cudnn" if described_by_position(config) <= BACKENDS["cudnn"].knows else "chunked")


def test_a_bias_is_known_or_refused_by_name(registered):
    """Every backend that computes it agrees; those that cannot say so, and auto passes them over."""
    config = replace(SMALL, position="sloped")
    spec = attention_spec(run_of(config, MeshConfig(data=1)), make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    assert {"bias.slopes_N", "bias.positions_BT"} <= spec.described and choose("auto", spec)[0] == "chunked"
    batch, logits = packed_batch(0), []
    params = Transformer(config, FLOAT32).init(jax.random.key(0), batch.tokens)["params"]
    params = jax.tree.map(lambda x: 4 * x, params)
    for name in BACKENDS:
        model = Transformer(config, replace(FLOAT32, attention=name))
        if spec.described <= BACKENDS[name].knows:
            logits.append(model.apply({"params": params}, batch.tokens, batch.positions, batch.segment_ids))
            continue
        with pytest.raises(ConfigError, match=rf"{name} cannot serve: it knows no .*scores lowered in proportion to distance"):
            model.apply({"params": params}, batch.tokens)
    assert len(logits) == 2
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
    unsloped = Transformer(SMALL, FLOAT32).apply({"params": params}, batch.tokens, batch.positions, batch.segment_ids)
    assert np.abs(unsloped - logits[0]).max() > 1e-2


def test_commands_load_it_and_other_formats_refuse_it(config, tmp_path, tokenizer):
    """Also where its parameters are those of a LLaMA, so that no name or shape tells."""
    config = replace(config, vocab_size=512)
    params = Transformer(config, FLOAT32).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", CheckpointConfig())
    checkpoints.save(1, {"params": params}, config=Config(model=config, data=DataConfig(sequence_length=32)))
    checkpoints.close()
    tokenizer.save(tmp_path / "run")
    model, loaded, _ = load_model(str(tmp_path / "run"), 1)
    assert model.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, decoding_params(model, params))
    for to in ("hf", "meta"):
        with pytest.raises(ConfigError, match=r"cannot express this model \(.*model\.(norm|feedforward|position) .*; only a run"):
            convert_weights(open_source(tmp_path / "run"), tmp_path / to, to)
        assert not (tmp_path / to).exists()
