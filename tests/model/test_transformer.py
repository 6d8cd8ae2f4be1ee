"""Properties of the model: causal, packed = separate, remat = none, scanned = unrolled; its initialisation and its counts."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ComputeConfig, MeshConfig, ModelConfig
from llama_jax.config.presets import PRESETS, path_to_llama
from llama_jax.errors import ConfigError
from llama_jax.model.accounting import parameter_count
from llama_jax.model.block import Block
from llama_jax.model.cache import Cache
from llama_jax.model.decoder import Transformer
from llama_jax.model.positions import position_encoding
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.parallel.mesh import make_mesh
from tests.golden.small import CONFIGS, FLOAT32, golden, random_params, random_rows

PAPER_COUNTS = {
    "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-33b": 32_528_943_616, "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496, "tinyllama-1b": 1_100_048_384,
}


@partial(jax.jit, static_argnums=0, static_argnames="compute")
def logits(config: ModelConfig, params, *inputs, compute: ComputeConfig = FLOAT32):
    return Transformer(config, compute).apply({"params": params}, *inputs)


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts(name):
    config = PRESETS[name]
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == parameter_count(config) == PAPER_COUNTS.get(name, count)


def test_every_paper_preset_is_counted():
    assert set(PRESETS) - set(PAPER_COUNTS) == {"tiny", *path_to_llama()}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["reference", "chunked"])
def test_logits_equal_transformers(name, attention):
    config = CONFIGS[name]
    ours = logits(config, random_params(config, 0), random_rows(config, 1)[:, :-1], compute=replace(FLOAT32, attention=attention))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, golden()[f"{name}_logits"], atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_causal_by_gradient(name):
    config = CONFIGS[name]
    params = jax.tree.map(jnp.asarray, random_params(config, 0))
    one_row = jnp.asarray(random_rows(config, 1)[:1, :10])

    def logits_of_embeddings(table_TD):
        """Each position looks up a row of its own, so that its gradient is its influence."""
        own = params | {"embedding": jnp.concatenate([table_TD, params["embedding"][10:]])}
        return logits(config, own, jnp.arange(10)[None])

    jacobian = jax.jit(jax.jacrev(lambda table: logits_of_embeddings(table)[0].sum(-1)))(params["embedding"][one_row[0]])
    influence = np.abs(jacobian).sum(-1)
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((10, 10), bool)))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["reference", "chunked"])
def test_packed_equals_separate(name, attention):
    config, compute = CONFIGS[name], replace(FLOAT32, attention=attention)
    params = random_params(config, 0)
    rows = random_rows(config, 2, batch=3, length=20)
    documents = [rows[0, :7], rows[1, :1], rows[2, :12]]
    packed = np.concatenate(documents)[None]
    positions = np.concatenate([np.arange(len(d)) for d in documents])[None]
    segments = np.concatenate([np.full(len(d), i) for i, d in enumerate(documents)])[None]
    separate = [logits(config, params, d[None], compute=compute)[0] for d in documents]
    together = logits(config, params, packed, positions, segments, compute=compute)[0]
    np.testing.assert_allclose(together, np.concatenate(separate), atol=1e-5)
    unseparated = logits(config, params, packed, compute=compute)[0]
    assert np.abs(unseparated - together).max() > 0.1, "without segments they do see each other"


def loss_and_gradients(config: ModelConfig, compute: ComputeConfig = FLOAT32):
    rows = random_rows(config, 3)

    def loss(params):
        values = jax.nn.log_softmax(logits(config, params, rows[:, :-1], compute=compute))
        return -jnp.take_along_axis(values, jnp.asarray(rows[:, 1:, None]), -1).mean()

    return jax.jit(jax.value_and_grad(loss))(random_params(config, 0))


@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "linear"}, {"scan_layers": False},
                                    {"scan_layers": False, "remat": "linear"}], ids=str)
def test_remat_and_unrolling_change_nothing(change):
    config = CONFIGS["gqa"]
    chex.assert_trees_all_close(loss_and_gradients(config, replace(FLOAT32, **change)), loss_and_gradients(config), rtol=1e-5,
                                atol=1e-6)


def test_remat_policies_save_what_they_say():
    config = replace(CONFIGS["mha"], num_layers=1)

    def saved_values(remat: str) -> int:
        """Numbers kept for the backward pass, parameters left out."""
        model = Transformer(config, replace(FLOAT32, scan_layers=False, remat=remat))
        params = random_params(config, 0)
        tokens = random_rows(config, 1)[:, :-1]
        _, pull = jax.vjp(lambda params: model.apply({"params": params}, tokens).sum(), params)
        return sum(leaf.size for leaf in jax.tree.leaves(pull)) - sum(leaf.size for leaf in jax.tree.leaves(params))

    none, linear, full = (saved_values(remat) for remat in ("none", "linear", "full"))
    assert full < linear < none
    tokens, c = random_rows(config, 1)[:, :-1].size, config
    kept = 2 * c.dim + 2 * c.num_kv_heads * c.head_size + 2 * c.ffn_dim  # q and wo's, k and v, gate and up
    assert linear - full == pytest.approx(tokens * kept, rel=0.25)


def test_initialisation():
    config = ModelConfig(vocab_size=512, dim=256, num_layers=4, num_heads=4, num_kv_heads=2, ffn_dim=512)
    params = jax.jit(Transformer(config).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    residual = 0.02 / np.sqrt(2 * 4)
    wanted = {"embedding": 0.02, "head": 0.02, "wq": 0.02, "wk": 0.02, "wv": 0.02, "wo": residual, "w_gate": 0.02,
              "w_up": 0.02, "w_down": residual}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        assert leaf.dtype == jnp.float32
        name = path[-1].key
        if name == "scale":
            np.testing.assert_array_equal(leaf, 1.0)
        else:
            assert float(leaf.std()) == pytest.approx(wanted[name], rel=0.02), name
            assert abs(float(leaf.mean())) < wanted[name] / 50


def test_tied_head_is_the_embedding():
    config = replace(CONFIGS["mha"], tied_embeddings=True)
    params = random_params(config, 0)
    untied = params | {"head": params["embedding"].T}
    del params["head"]
    rows = random_rows(config, 1)[:, :-1]
    np.testing.assert_allclose(logits(config, params, rows), logits(replace(config, tied_embeddings=False), untied, rows),
                               atol=1e-6)


def test_theta_reaches_the_rotation():
    config = CONFIGS["mha"]
    params, rows = random_params(config, 0), random_rows(config, 1)[:, :-1]
    other = logits(replace(config, rope_theta=500_000.0), params, rows)
    assert np.abs(other - logits(config, params, rows)).max() > 1e-2


def test_bfloat16_compute_keeps_float32_logits_and_parameters():
    config = CONFIGS["mha"]
    params, rows = random_params(config, 0), random_rows(config, 1)[:, :-1]
    half = logits(config, params, rows, compute=ComputeConfig(dtype="bfloat16"))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, logits(CONFIGS["mha"], params, rows), atol=0.1)


@pytest.mark.parametrize("token", [-1, 10**6, "V"])
@pytest.mark.parametrize("sizes", [(), (1, 2, 2, 2), (1, 2, 1, 4)], ids=str)
def test_ids_outside_the_vocabulary(token, sizes):
    """An error that names them, or NaN where values cannot be looked at: never another token's row."""
    config = CONFIGS["gqa"]
    V = config.vocab_size
    params, rows = random_params(config, 0), jnp.asarray(random_rows(config, 1)[:2, :8])
    bad = rows.at[1, 3].set(V if token == "V" else token)
    with pytest.raises(ConfigError, match=rf"token ids must lie in \[0, {V}\), the model's vocabulary; got"):
        Transformer(config, FLOAT32).apply({"params": params}, bad)
    with jax.set_mesh(make_mesh(MeshConfig(*sizes))) if sizes else nullcontext():
        out = logits(config, params, bad)
        np.testing.assert_allclose(out[0], logits(config, params, rows)[0], atol=1e-5)
    assert np.isnan(out[1, 3:]).all()


def test_constants_of_a_compiled_function_are_looked_at():
    """Ids and positions that a jitted function closes over have values though the function is being traced."""
    config = replace(CONFIGS["gqa"], position="learned", max_length=8)
    model, ids = Transformer(config, FLOAT32), jnp.arange(8)[None]
    wrong, beyond = ids + 90, ids + 1
    params = jax.jit(model.init)(jax.random.key(0), ids)["params"]
    inside = jax.jit(lambda p: model.apply({"params": p}, ids, ids))(params)
    np.testing.assert_allclose(inside, model.apply({"params": params}, ids, ids), atol=1e-5)
    with pytest.raises(ConfigError, match="token ids must lie in"):
        jax.jit(lambda p: model.apply({"params": p}, wrong, ids))(params)
    with pytest.raises(ConfigError, match="position 8 lies beyond the 8 learned positions"):
        jax.jit(lambda p: model.apply({"params": p}, ids, beyond))(params)


def test_what_the_model_is_not_asked():
    config = CONFIGS["gqa"]
    model, params, T = Transformer(config, FLOAT32), random_params(config, 0), config.max_length + 1
    for tokens in (jnp.zeros(3, jnp.int32), jnp.zeros((1, 3)), jnp.zeros((1, 1, 3), jnp.int32)):
        with pytest.raises(ConfigError, match=r"rows of token ids, integers \(B, T\), or their emb"):
            model.apply({"params": params}, tokens)
    long = jnp.zeros((1, T), jnp.int32)
    with pytest.raises(ConfigError, match=rf"rows of {T} tokens are longer than the model's context of {T - 1}; cut them"):
        jax.eval_shape(model.apply, {"params": params}, long)
    positions = jnp.arange(T)[None] % 7  # packed rows of short texts
    assert jax.eval_shape(model.apply, {"params": params}, long, positions).shape == (1, T, config.vocab_size)
    assert model.apply({"params": params}, jnp.zeros((2, 0), jnp.int32)).shape == (2, 0, config.vocab_size)


@pytest.mark.parametrize("attention", ["reference", "chunked", "auto", "splash", "cudnn"])
def test_a_cache_heeds_no_mask_but_causality(attention):
    """It would ignore the rest."""
    config, block = CONFIGS["gqa"], Block(CONFIGS["gqa"], replace(FLOAT32, attention=attention))
    cache = Cache.empty(config, dtype="float32", rows=2, slots=8)
    tables = position_encoding(config).tables(jnp.zeros((2, 1), jnp.int32), head_dim=config.head_size)
    x = jnp.ones((2, 1, config.dim))
    layer = jax.tree.map(lambda x: x[0], random_params(config, 0)["layers"])
    for mask in (Mask(segment_ids_BT=jnp.zeros((2, 1), jnp.int32)), Mask(ends_BT=jnp.ones((2, 1), jnp.int32))):
        with pytest.raises(ConfigError, match=r"attention over a cache knows no .* \(mask\."):
            block.apply({"params": layer}, x, tables, mask=mask, cache=cache.layer(0), method=Block.with_keys_values)
    out, _ = block.apply({"params": layer}, x, tables, mask=CAUSAL, cache=cache.layer(0), method=Block.with_keys_values)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("attention", ["splash", "cudnn"])
def test_parameters_do_not_depend_on_the_backend(attention):
    """Two tokens are no problem that a fused kernel serves, nor need its hardware be here."""
    config = CONFIGS["gqa"]
    tokens = jnp.zeros((1, 2), jnp.int32)
    model = Transformer(config, replace(FLOAT32, attention=attention))
    of_auto = Transformer(config, FLOAT32).init(jax.random.key(0), tokens)
    chex.assert_trees_all_equal(model.init(jax.random.key(0), tokens), of_auto)
    with pytest.raises(ConfigError, match=f"{attention} cannot serve"):
        model.apply({"params": random_params(config, 0)}, tokens)
