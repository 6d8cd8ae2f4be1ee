"""Rotary embeddings against complex numbers in float64."""

import json
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import ConfigError
from llama_jax.formats.config_json import rotary_from_hf
from llama_jax.ops.rotary import rope_tables, rotate
from tests.golden import make_rope


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_rotation_is_complex_multiplication(theta):
    H = 16
    positions = np.array([[0, 1, 7, 100], [3, 2, 1, 0]])
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 3, H)), np.float64)
    angles = positions[..., None] * theta ** (-2.0 * np.arange(H // 2) / H)
    turned = (x[..., : H // 2] + 1j * x[..., H // 2:]) * np.exp(1j * angles)[:, :, None]
    ours = rotate(jnp.asarray(x, jnp.float32), rope_tables(jnp.asarray(positions), head_dim=H, theta=theta))
    np.testing.assert_allclose(ours, np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


def test_products_depend_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(i, j):
        tables = [rope_tables(jnp.array([[p]]), head_dim=8, theta=10_000.0) for p in (i, j)]
        return float(jnp.sum(rotate(q, tables[0]) * rotate(k, tables[1])))

    assert product(5, 2) == pytest.approx(product(103, 100), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)


def test_dtype_is_kept_and_angles_are_float32():
    tables = rope_tables(jnp.array([[2000]]), head_dim=8, theta=10_000.0)
    assert tables[0].dtype == jnp.float32
    assert rotate(jnp.ones((1, 1, 1, 8), jnp.bfloat16), tables).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", make_rope.CASES)
def test_frequencies_are_those_of_transformers(name):
    """At position 1 the angle is the frequency; only where it wraps does the arcus lose it, and none is above pi."""
    theta, scaling = rotary_from_hf({"rope_parameters": make_rope.CASES[name]}, make_rope.FILE)
    tables = rope_tables(jnp.array([[1, 1000]]), head_dim=make_rope.HEAD_DIM, theta=theta, **asdict(scaling))
    golden = np.array(json.loads(make_rope.FILE.read_text())[name])
    np.testing.assert_allclose(np.arctan2(tables[1], tables[0])[0, 0], golden, rtol=2e-6)
    np.testing.assert_allclose(tables[0][0, 1], np.cos(1000 * golden), atol=2e-4)
    assert (scaling.kind == "none") == (name == "none")


def test_tables_have_the_shape_of_the_positions():
    whole = rope_tables(jnp.arange(12).reshape(3, 4), head_dim=8, theta=10_000.0)
    for shape in ((12,), (3, 4), (3, 2, 2), ()):
        positions = jnp.arange(12).reshape(shape) if shape else jnp.int32(0)
        for table, flat in zip(rope_tables(positions, head_dim=8, theta=10_000.0), whole, strict=True):
            assert table.shape == (*shape, 4) and table.dtype == jnp.float32
            np.testing.assert_array_equal(table.reshape(-1, 4), flat.reshape(12, 4)[: table.size // 4])


def test_tables_of_one_row_turn_every_row():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 8))
    row = rope_tables(jnp.arange(5), head_dim=8, theta=10_000.0)
    each = rope_tables(jnp.tile(jnp.arange(5), (2, 1)), head_dim=8, theta=10_000.0)
    np.testing.assert_array_equal(rotate(x, row), rotate(x, each))
    np.testing.assert_array_equal(rotate(x[0], row), rotate(x, each)[0])


@pytest.mark.parametrize("positions, head_dim", [
    ((2, 5), 2), ((2, 5), 4), ((2, 5), 16),  # (…, 1) would broadcast over any head
    ((2, 1), 8), ((1,), 8), ((2, 4), 8), ((3, 5), 8), ((1, 2, 5), 8), ((), 8),
])
def test_tables_of_other_heads_and_tokens_are_refused(positions, head_dim):
    tables = rope_tables(jnp.zeros(positions), head_dim=head_dim, theta=10_000.0)
    with pytest.raises(ConfigError, match=r"rotary tables \(.*\) do not fit x \(2, 5, 3, 8\): they want its tokens and half"):
        rotate(jnp.ones((2, 5, 3, 8)), tables)


@pytest.mark.parametrize("fields, sentence", [
    ({"kind": "dynamic", "factor": 2.0}, "unknown kind 'dynamic' of rope scaling; known: none, linear, llama3, yarn"),
    ({"kind": "Linear", "factor": 2.0}, "unknown kind 'Linear'"),
    ({"kind": "", "factor": 2.0}, "unknown kind ''"),
    ({"facter": 2.0}, "rope scaling has no field facter; its fields: factor, low_freq_factor"),
    ({"kind": "linear", "facter": 2.0, "factor": 2.0}, "rope scaling has no field facter"),
    ({"kind": "linear"}, "rope scaling of kind linear wants factor too"),
    ({"kind": "llama3", "factor": 8.0, "original_length": 64}, "wants low_freq_factor, high_freq_factor too"),
    ({"factor": 2.0}, "rope scaling by factor wants a kind"),
    ({"kind": "linear", "factor": 0.0}, "wants positive numbers, .* got factor=0.0"),
    ({"kind": "linear", "factor": float("nan")}, "wants positive numbers"),
    ({"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0, "original_length": 64},
     "a high_freq_factor above low_freq_factor .*, got factor=8.0, low_freq_factor=1.0, high_freq_factor=1.0"),
    ({"kind": "yarn", "factor": 2.0, "original_length": 64}, "wants beta_fast, beta_slow too"),
    ({"kind": "yarn", "factor": 2.0, "original_length": 64, "beta_fast": 1.0, "beta_slow": 1.0},
     "a beta_fast above beta_slow, got factor=2.0, beta_fast=1.0, beta_slow=1.0"),
    ({"kind": "yarn", "factor": 2.0, "original_length": 0, "beta_fast": 32.0, "beta_slow": 1.0}, "wants positive numbers"),
    ({"head_dim": 7}, "want an even width of a head and a positive theta, got 7"),
    ({"head_dim": 0}, "want an even width"),
    ({"theta": 0.0}, "positive theta, got 8 and 0.0"),
])
def test_what_a_stretch_is_not(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        rope_tables(jnp.arange(4), **{"head_dim": 8, "theta": 10_000.0} | fields)
