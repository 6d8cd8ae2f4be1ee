"""The table covers the model exactly, and every change of form has an inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.formats.mapping import TABLE, Tensor, from_ours, pool_heads, reorder_rotary_rows, tensors, to_ours, weights_of
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters
from tests.formats.memory import SHAPES, config_of

BIASED = config_of(use_bias=True)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_table_is_the_parameter_tree(kind, tied):
    config = config_of(SHAPES[kind], tied_embeddings=tied, head_dim=10)
    tree = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    wanted = {name: leaf.shape for name, leaf in traverse_util.flatten_dict(tree, sep=".").items()}
    found = {t.weight.ours: ((config.num_layers,) if t.weight.stacked else ()) + t.shape(config) for t in tensors(config)}
    assert found == wanted


def test_the_table_is_the_parameter_tree_with_biases():
    config = BIASED
    assert {weight.ours for weight in weights_of(config)} == {weight.ours for weight in TABLE} == set(parameters(config))
    assert sum(weight.part == "bias" for weight in TABLE) == 7


def test_parameters_without_a_name_elsewhere_come_last():
    config = config_of(norm="layernorm", position="shaw", feedforward="relu")
    rest = [weight.ours for weight in weights_of(config) if weight not in TABLE]
    assert rest == [weight.ours for weight in weights_of(config)][-len(rest):]
    assert {"final_norm.bias", "layers.attention.relative_keys"} <= set(rest)
    assert {weight.ours for weight in weights_of(config)} == set(parameters(config))
    assert all(not tensor.hf and not tensor.meta for tensor in tensors(config) if tensor.weight.ours in rest)


def test_no_name_serves_twice():
    config = BIASED
    for names in ([t.hf for t in tensors(config)], [t.meta for t in tensors(config) if t.meta], [w.ours for w in TABLE]):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("weight", TABLE, ids=lambda weight: weight.ours)
def test_there_and_back(weight):
    config, tensor = config_of(2, head_dim=10, use_bias=True), Tensor(weight)
    ours = np.random.default_rng(0).standard_normal(tensor.shape(config)).astype(np.float32)
    theirs = from_ours(ours, tensor, config=config)
    assert theirs.shape == tensor.stored_shape(config) and theirs.flags.c_contiguous
    np.testing.assert_array_equal(to_ours(theirs, tensor, config=config), ours)


@pytest.mark.parametrize("weight", [w for w in TABLE if Tensor(w).leaf(BIASED).is_matrix], ids=lambda weight: weight.ours)
def test_a_matrix_means_the_same(weight):
    """x @ ours, contracted over the input axes, is stored @ x."""
    config, tensor = config_of(2), Tensor(weight)
    stored = np.random.default_rng(0).standard_normal(tensor.stored_shape(config))
    x = np.random.default_rng(1).standard_normal(stored.shape[1])
    inputs = tensor.leaf(config).inputs
    ours = np.tensordot(x.reshape(tensor.shape(config)[:inputs]), to_ours(stored, tensor, config=config), inputs)
    np.testing.assert_allclose(ours.reshape(-1), stored @ x)


@given(heads=st.integers(1, 5), half=st.integers(1, 6), width=st.integers(1, 4))
def test_turning_twice_is_nothing(heads, half, width):
    rows = np.arange(heads * 2 * half * width).reshape(heads * 2 * half, width)
    back = reorder_rotary_rows(reorder_rotary_rows(rows, heads, to="halves"), heads, to="neighbours")
    np.testing.assert_array_equal(back, rows)


def test_turned_rows_rotate_alike():
    """Neighbours as complex numbers, before the turn, are halves after it."""
    heads, H, I = 3, 8, 5
    rng = np.random.default_rng(0)
    rows, x, phase = rng.standard_normal((heads * H, I)), rng.standard_normal(I), np.exp(1j * rng.standard_normal(H // 2))
    pairs = (rows @ x).reshape(heads, H // 2, 2)
    meta = (pairs[..., 0] + 1j * pairs[..., 1]) * phase
    halves = (reorder_rotary_rows(rows, heads, to="halves") @ x).reshape(heads, 2, H // 2)
    np.testing.assert_allclose((halves[:, 0] + 1j * halves[:, 1]) * phase, meta)


def test_pooling_averages_neighbours():
    ours = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    np.testing.assert_array_equal(pool_heads(ours, 4), ours)
    np.testing.assert_array_equal(pool_heads(ours, 1), ours.mean(1, keepdims=True))
    np.testing.assert_array_equal(pool_heads(ours, 2)[:, 1], (ours[:, 2] + ours[:, 3]) / 2)
    np.testing.assert_array_equal(pool_heads(ours[1], 2), pool_heads(ours, 2)[1])  # biases have no axis before the heads
