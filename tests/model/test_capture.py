"""Captured activations are those that the logits are computed from, however the model is computed; what is not asked for costs
nothing."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import llama_jax
from llama_jax.config import MeshConfig, ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.inference.params import decoding_params
from llama_jax.model.attention import Attention
from llama_jax.model.cache import Cache
from llama_jax.model.capture import CAPTURED, capture
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.norms import make_norm
from llama_jax.model.positions import POSITIONS
from llama_jax.ops.bias import alibi_slopes
from llama_jax.ops.feedforward import FEEDFORWARDS
from llama_jax.parallel.mesh import make_mesh
from tests.golden.small import FLOAT32

L, B, T, D, N, K, H, F, V = 3, 2, 24, 32, 4, 2, 8, 48, 64
CONFIG = ModelConfig(vocab_size=V, dim=D, num_layers=L, num_heads=N, num_kv_heads=K, ffn_dim=F, max_length=32)
SIZES = dict(zip("LBTDNKHFVS", (L, B, T, D, N, K, H, F, V, T), strict=True))
VANILLA = replace(CONFIG, norm="layernorm", norm_position="post", feedforward="relu", use_bias=True, position="sinusoidal")
EACH_POSITION = {name: replace(CONFIG, position=name) for name in POSITIONS}
EACH_POSITION |= {"rope3d": replace(CONFIG, position="rope3d", rope_chunk=7),
                  "shaw": replace(CONFIG, position="shaw", relative_clip=5)}
SEGMENTS_BT = np.array([[0] * 7 + [1] * 17, [3] * 24], np.int32)
POSITIONS_BT = np.array([[*range(7), *range(17)], [*range(24)]], np.int32)
ROWS = {"one document": {}, "segments": {"positions_BT": POSITIONS_BT, "segment_ids_BT": SEGMENTS_BT}}


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)


def model_and_params(config: ModelConfig, **compute):
    """Parameters of which every part matters: normally distributed, biases and scales too."""
    model = Transformer(config, replace(FLOAT32, **compute))
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens())["params"]
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape) * 0.3, jnp.float32), shapes)


@pytest.mark.parametrize("config", [CONFIG, VANILLA, replace(CONFIG, tied_embeddings=True)], ids=["llama", "vanilla", "tied"])
def test_shapes_and_how_they_add_up(config):
    model, params = model_and_params(config)
    logits, found = capture(model, params, tokens(), list(CAPTURED))
    np.testing.assert_allclose(logits, model.apply({"params": params}, tokens()), rtol=1e-5, atol=1e-5)
    assert list(found) == list(CAPTURED)
    for name, row in CAPTURED.items():
        assert found[name].shape == tuple(SIZES[axis] for axis in re.findall(r"\w", row.shape)), name
    np.testing.assert_array_equal(found["resid_pre"][1:], found["resid_post"][:-1])
    last, norms = found["resid_post"][-1], params["layers"]
    if config.norm_position == "pre":
        last = make_norm(config).apply({"params": params["final_norm"]}, last)
        middle, end = found["resid_pre"] + found["attn_out"], found["resid_mid"] + found["ffn_out"]
    else:
        def normed(x_LBTD, name):
            return jax.vmap(lambda x, p: make_norm(config).apply({"params": p}, x))(x_LBTD, norms[name])

        middle = normed(found["resid_pre"] + found["attn_out"], "attention_norm")
        end = normed(found["resid_mid"] + found["ffn_out"], "feedforward_norm")
    np.testing.assert_allclose(found["resid_mid"], middle, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["resid_post"], end, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last @ head_matrix(params), logits, rtol=1e-4, atol=1e-4)


def softmax_by_hand(config: ModelConfig, params, *, q_LBTNH, k_LBTKH, positions_BT, segment_ids_BT) -> np.ndarray:
    """float64 attention weights (L, B, N, T, S) from queries and keys after their position encoding."""
    q, k = (np.asarray(x, np.float64) for x in (q_LBTNH, np.repeat(k_LBTKH, N // K, axis=3)))
    scores = np.einsum("lbtnh,lbsnh->lbnts", q, k)
    distance = positions_BT[:, :, None] - positions_BT[:, None, :]
    if config.position == "shaw":
        vectors = np.asarray(params["layers"]["attention"]["relative_keys"], np.float64)
        picked = vectors[:, np.clip(distance, 0, config.relative_clip)]
        scores += np.einsum("lbtnh,lbtsh->lbnts", q, picked)
    scores /= np.sqrt(H)
    if config.position == "alibi":
        scores -= np.asarray(alibi_slopes(N), np.float64)[:, None, None] * distance[:, None]
    seen = np.tril(np.ones((T, T), bool)) & (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :])
    exponentials = np.where(seen[:, None], np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("position", EACH_POSITION)
def test_attention_weights(position, rows):
    """Probabilities over the keys before a token in its document: softmax in float64 gives the same."""
    config, told = EACH_POSITION[position], ROWS[rows]
    model, params = model_and_params(config)
    _, found = capture(model, params, tokens(), ("attn_weights", "queries", "keys", "values", "attn_out"), **told)
    weights = np.asarray(found["attn_weights"])
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights, np.tril(weights))
    segments = told.get("segment_ids_BT", np.zeros((B, T), np.int32))
    other = (segments[:, :, None] != segments[:, None, :])[None, :, None]
    assert not np.where(other, weights, 0).any()
    wanted = softmax_by_hand(config, params, q_LBTNH=found["queries"], k_LBTKH=found["keys"], segment_ids_BT=segments,
                             positions_BT=told.get("positions_BT", np.arange(T)[None]))
    np.testing.assert_allclose(weights, wanted, atol=1e-6)
    if position != "shaw":  # whose relative vectors are added to the values too
        values = np.repeat(found["values"], N // K, axis=3)
        wo = params["layers"]["attention"]["wo"]
        np.testing.assert_allclose(np.einsum("lbnts,lbsnh,lnhd->lbtd", weights, values, wo), found["attn_out"], atol=1e-4)


@pytest.mark.parametrize("kind", FEEDFORWARDS)
def test_hidden_units_are_what_the_last_product_reads(kind):
    model, params = model_and_params(replace(CONFIG, feedforward=kind))
    _, found = capture(model, params, tokens(), ("ffn_hidden", "ffn_out"))
    products = np.einsum("lbtf,lfd->lbtd", found["ffn_hidden"], params["layers"]["feedforward"]["w_down"])
    np.testing.assert_allclose(products, found["ffn_out"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compute", [{"scan_layers": False}, {"remat": "full"}, {"remat": "linear", "scan_layers": False},
                                     {"attention": "reference"}, {"layers_apart": True}, {"jit": True}], ids=str)
@pytest.mark.parametrize("config", [CONFIG, VANILLA], ids=["llama", "vanilla"])
def test_however_the_layers_are_computed(config, compute):
    model, params = model_and_params(config)
    wanted = capture(model, params, tokens(), list(CAPTURED))
    if "layers_apart" in compute:
        model, params = model.clone(layers_apart=True), decoding_params(model, params).tree
    elif "jit" not in compute:
        model = Transformer(config, replace(FLOAT32, **compute))
    captured = jax.jit(lambda p, t: capture(model, p, t, list(CAPTURED))) if "jit" in compute else (
        lambda p, t: capture(model, p, t, list(CAPTURED)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), captured(params, tokens()), wanted)


@pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (1, 2, 2, 2)], ids=str)
def test_over_devices(sizes):
    """Split over rows, heads and (last) tokens."""
    model, params = model_and_params(CONFIG)
    wanted = capture(model, params, np.tile(tokens(), (2, 1)), list(CAPTURED))
    with jax.set_mesh(make_mesh(MeshConfig(*sizes))):
        found = capture(model, params, np.tile(tokens(), (2, 1)), list(CAPTURED))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), found, wanted)


def test_in_the_compute_dtype_and_by_one_name():
    model, params = model_and_params(CONFIG, dtype="bfloat16")
    logits, found = capture(model, params, tokens(), "resid_mid")
    assert list(found) == ["resid_mid"] and found["resid_mid"].dtype == jnp.bfloat16 and logits.dtype == jnp.float32
    assert capture(model, params, tokens(), ())[1] == {}


def test_embeddings_in_place_of_tokens():
    model, params = model_and_params(CONFIG)
    logits, found = capture(model, params, params["embedding"][tokens()], "resid_pre")
    np.testing.assert_array_equal(found["resid_pre"][0], params["embedding"][tokens()])
    np.testing.assert_allclose(logits, model.apply({"params": params}, tokens()), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through():
    """What the first block adds depends on its own parameters and on no later one's."""
    model, params = model_and_params(CONFIG)
    gradient = jax.grad(lambda p: jnp.square(capture(model, p, tokens(), "resid_post")[1]["resid_post"][0]).sum())(params)
    moved = np.abs(gradient["layers"]["feedforward"]["w_up"]).sum((1, 2))
    assert moved[0] > 0 and not moved[1:].any()


def shapes_in(function, *arguments) -> set[str]:
    """Shapes of all arrays in a compiled program, as in "3,2,24,32"."""
    return set(re.findall(r"\[([\d,]+)\]", jax.jit(function).lower(*arguments).compile().as_text()))


@pytest.mark.parametrize("scan_layers", [True, False])
def test_what_is_not_asked_for_is_not_computed(scan_layers):
    """T is longer than the tiles of attention, so that only captured weights are T x T."""
    T, config = 130, replace(CONFIG, max_length=130)
    model, params = model_and_params(config, attention="chunked", scan_layers=scan_layers)
    ids = jnp.zeros((B, T), jnp.int32)

    def shapes(names) -> set[str]:
        return shapes_in(lambda p: capture(model, p, ids, names), params)

    def kept(found: set[str]) -> set[str]:
        """The activations that arrays of these shapes can be."""
        sizes = SIZES | {"T": T, "S": T}
        return {name for name, row in CAPTURED.items()
                if ",".join(str(sizes[axis]) for axis in re.findall(r"\w", row.shape)) in found}

    def is_square(found: set[str]) -> bool:
        return any(f"{T},{T}" in shape for shape in found)

    plain, residual, hidden, weights = shapes_in(lambda p: model.apply({"params": p}, ids), params), *map(
        shapes, ("resid_post", "ffn_hidden", "attn_weights"))
    assert kept(plain) == set() and not is_square(plain)
    assert kept(residual) == {name for name, row in CAPTURED.items() if row.shape == "(L, B, T, D)"} and not is_square(residual)
    assert kept(hidden) == {"ffn_hidden"} and not is_square(hidden)
    assert kept(weights) == {"attn_weights"} and is_square(weights)


def program(function, *arguments) -> str:
    """A compiled program without the names and lines of the source that it came from."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return re.sub(r", metadata=\{[^}]*\}|^(FileNames|FunctionNames|FileLocations|StackFrames)\n(\S.*\n)*", "", text, flags=re.M)


def test_a_forward_pass_that_sows_nothing_is_the_same_program(monkeypatch):
    """Without capture, what makes it possible leaves no trace in the forward pass or the backward pass."""
    model, params = model_and_params(CONFIG, remat="linear")

    def loss(p):
        return model.apply({"params": p}, tokens()).sum()

    with_sow = program(jax.value_and_grad(loss), params)
    monkeypatch.setattr("flax.linen.Module.sow", lambda *args, **kwargs: False)
    monkeypatch.setattr(Attention, "_sow_for_capture", lambda *args, **kwargs: None)
    jax.clear_caches()
    assert program(jax.value_and_grad(loss), params) == with_sow


@pytest.mark.parametrize("layers_apart", [False, True])
def test_with_flax_alone(layers_apart):
    model, params = model_and_params(CONFIG)
    _, wanted = capture(model, params, tokens(), list(CAPTURED))
    if layers_apart:
        model, params = model.clone(layers_apart=True), decoding_params(model, params).tree
    _, sown = model.apply({"params": params}, tokens(), mutable=["intermediates"])
    assert set(sown) == {"intermediates"}
    flat = {path: value for path, (value,) in traverse_util.flatten_dict(sown["intermediates"]).items()}
    assert {path[-1] for path in flat} == {*CAPTURED} - {"attn_weights"}
    for path, value in flat.items():
        whole = wanted[path[-1]]
        layer = whole[int(path[0].removeprefix("layers_"))] if layers_apart else whole
        np.testing.assert_allclose(value, layer, rtol=1e-4, atol=2e-5)
    _, outputs = model.apply({"params": params}, tokens(), capture_intermediates=True)
    flat = traverse_util.flatten_dict(outputs["intermediates"], sep=".")
    outer = "layers_0" if layers_apart else "layers"
    normed = flat[f"{outer}.attention_norm.__call__"][0]
    assert normed.shape == ((B, T, D) if layers_apart else (L, B, T, D))
    np.testing.assert_allclose(flat["__call__"][0], model.apply({"params": params}, tokens()), rtol=1e-5, atol=1e-5)


def test_over_a_cache_there_are_no_attention_weights():
    """Those of the new tokens alone would be wrong."""
    model, params = model_and_params(CONFIG)
    model, params = model.clone(layers_apart=True), decoding_params(model, params).tree
    cache = Cache.empty(CONFIG, dtype="float32", rows=B, slots=32)
    position = np.zeros((B, 1), np.int32)
    _, sown = model.apply({"params": params}, tokens()[:, :1], position, cache=cache, method="forward",
                          mutable=["intermediates", "attn_weights"])
    assert "attn_weights" not in sown and "layers_0" in sown["intermediates"]


@pytest.mark.parametrize("names, sentence", [
    ("resid_pots", "no activation is called 'resid_pots'; did you mean resid_post"),
    (["attn_out", "attention_weights"], "no activation is called 'attention_weights'; did you mean attn_weights"),
    (["xyz"], "known: attn_out, attn_weights, ffn_hidden,"),
])
def test_unknown_names(names, sentence):
    model, params = model_and_params(CONFIG)
    with pytest.raises(ConfigError, match=sentence):
        capture(model, params, tokens(), names)


def test_what_the_model_is_not_asked():
    model, params = model_and_params(CONFIG)
    with pytest.raises(ConfigError, match=r"token ids must lie in \[0, 64\)"):
        capture(model, params, tokens() + 60, "resid_post")
    with pytest.raises(ConfigError, match="rows of 33 tokens are longer"):
        capture(model, params, np.zeros((1, 33), np.int32), "resid_post")
    with pytest.raises(ConfigError, match="or their embeddings"):
        capture(model, params, np.zeros((1, 3), np.float32), "resid_post")


def test_it_is_public():
    assert llama_jax.capture is capture and llama_jax.CAPTURED is CAPTURED
