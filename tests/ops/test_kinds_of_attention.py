"""What every backend that runs here has to do, whatever backends and fields of masks and biases there are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.ops import decode
from llama_jax.ops.attention import BACKENDS, attend
from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.masks import CAUSAL, Mask
from llama_jax.ops.spec import AttentionSpec

T = 24
SLOPES_N = jnp.array([0.5, 0.25, 0.125, 0.0625])
VECTORS_RH = jax.random.normal(jax.random.key(3), (6, 16))
SAYING = {
    "mask.segment_ids_BT": Mask(segment_ids_BT=jnp.arange(T)[None] // 5),
    "mask.ends_BT": Mask(ends_BT=jnp.minimum(jnp.arange(T)[None] + 4, T)),
    "bias.slopes_N": Bias(slopes_N=SLOPES_N),
    "bias.relative_keys_RH": Bias(relative_keys_RH=VECTORS_RH),
    "bias.relative_values_RH": Bias(relative_values_RH=VECTORS_RH),
    "bias.positions_BT": Bias(slopes_N=SLOPES_N, positions_BT=jnp.arange(T)[None] % 7),
}
"""For each field of `Mask` and `Bias`, a description in which it says something."""
WITHOUT = {"bias.positions_BT": Bias(slopes_N=SLOPES_N)}
"""The description without the field, where that is not the empty one."""
HERE = [name for name, backend in BACKENDS.items()
        if not backend.lacks(AttentionSpec(jax.devices()[0], length=T, head_dim=16, dtype=jnp.float32))]


def out_of(name: str, description: Mask | Bias) -> np.ndarray:
    """What a backend makes of random queries, keys and values, with gradients of its sum of squares, those of a bias last."""
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, T, heads, 16)) for key, heads in zip(keys, (4, 2, 2), strict=True))
    mask, bias = (description, NO_BIAS) if isinstance(description, Mask) else (CAUSAL, description)

    def loss(q, k, v, bias):
        out = attend(q, k, v, mask, name, bias=bias)
        return jnp.square(out).sum(), out

    gradients, out = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True, allow_int=True)(q, k, v, bias)
    return np.concatenate([np.ravel(x) for x in (out, *jax.tree.leaves(gradients)) if x.dtype == jnp.float32])


def test_every_field_has_an_example_and_somebody_who_knows_it():
    fields = {f"{cls.LABEL}.{field.name}" for cls in (Mask, Bias) for field in dataclasses.fields(cls)}
    assert fields == {*SAYING}
    assert fields == BACKENDS["reference"].knows, "the reference backend computes everything that can be described"
    for knows in (decode.KNOWS, *(backend.knows for backend in BACKENDS.values())):
        assert knows <= fields
    assert {name for name in fields if name.startswith("bias.")} == decode.KNOWS, "decode steps have every bias"
    for name, description in SAYING.items():
        assert name in description.used
        label, _, field = name.partition(".")
        assert dict((x.name, x.metadata) for x in dataclasses.fields(description))[field]["words"], f"{label} has words for it"


@pytest.mark.parametrize("name, field", [(name, field) for name in HERE for field in SAYING if field in BACKENDS[name].knows])
def test_a_backend_heeds_every_field_that_it_knows(name, field):
    out = out_of(name, SAYING[field])
    np.testing.assert_allclose(out, out_of("reference", SAYING[field]), atol=1e-4)
    without = WITHOUT.get(field, type(SAYING[field])())
    out_without = out_of(name, without)
    assert np.abs(out[:out_without.size] - out_without).max() > 1e-2, "the field changes nothing"


@pytest.mark.parametrize("field", [name for name in SAYING if name.startswith("bias.") and name != "bias.positions_BT"])
def test_decode_steps_heed_every_bias(field):
    """Three tokens over a cache that holds the others; positions are indices there."""
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, T, heads, 16)) for key, heads in zip(keys, (4, 2, 2), strict=True))
    cached = decode.attend_over_cache(q[:, -3:], k.swapaxes(1, 2), v.swapaxes(1, 2), lengths_B=jnp.full(2, T - 3),
                                      bias=SAYING[field])
    np.testing.assert_allclose(cached, attend(q, k, v, CAUSAL, "reference", bias=SAYING[field])[:, -3:], atol=1e-5)
