"""Checksums of arrays: every bit and its place count; device and host, whole and by layer, agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.parallel.checksums import array_checksums, host_checksum

SHAPES = [(7,), (3, 5), (4, 3, 6), (2, 3, 4, 5), (3, 40_000)]


def drawn(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(jnp.dtype(dtype))


def test_values_worked_out_by_hand():
    """One element: the hash of its bits and of index 0, in Python's integers."""
    def mix(x: int) -> int:
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    first = mix((0x3FC00000 + mix(1)) % 2**32)  # 1.5 as float32; axis 0 adds 1 to the mixed index
    expected = first, mix(first ^ 0x27D4EB2F)
    array = np.array([1.5], np.float32)
    assert host_checksum(array) == expected == array_checksums({"a": array})["a"].whole


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_host_and_device_agree(shape, dtype):
    array = drawn(shape, dtype)
    (parts,) = (array_checksums({"a": array}, stacked=["a"])["a"].parts,)
    whole = array_checksums({"a": array})["a"]
    assert (whole.shape, whole.dtype, whole.whole) == (shape, dtype, host_checksum(array))
    assert whole.whole == array_checksums({"a": array}, stacked=["a"])["a"].whole
    if len(shape) > 1:
        assert list(parts) == [host_checksum(layer, layer=number) for number, layer in enumerate(array)]


def test_a_scalar_has_one():
    assert array_checksums({"a": jnp.int32(3)})["a"].parts != array_checksums({"a": jnp.int32(4)})["a"].parts


@pytest.mark.parametrize("axes", [("a",), ("a", "b"), (None, "b"), (None, ("a", "b")), ()], ids=str)
def test_sharding_does_not_count(axes):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    array = drawn((8, 16, 3), "float32")
    spread = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))
    assert array_checksums({"x": spread})["x"].whole == host_checksum(array)
    if "a" not in axes[:1]:  # layers are not divided
        assert array_checksums({"x": spread}, stacked=["x"]) == array_checksums({"x": array}, stacked=["x"])


@settings(max_examples=200)
@given(st.sampled_from(SHAPES[:4]), st.sampled_from(["float32", "bfloat16", "int8"]), st.data())
def test_every_bit_and_place_counts(shape, dtype, data):
    array = drawn(shape, dtype)
    sums = host_checksum(array)
    changed = array.copy()
    raw = changed.reshape(-1).view(np.uint8)
    raw[data.draw(st.integers(0, raw.size - 1))] ^= data.draw(st.integers(1, 255))
    assert host_checksum(changed) != sums
    a, b = data.draw(st.integers(0, array.size - 1)), data.draw(st.integers(0, array.size - 1))
    swapped = array.copy().reshape(-1)
    swapped[[a, b]] = swapped[[b, a]]
    same = np.array_equal(swapped.view(np.uint8), array.reshape(-1).view(np.uint8))
    assert (host_checksum(swapped.reshape(shape)) == sums) == same
