"""Properties of the attention backends: all equal the reference, none sees the future, tiles skip what is masked."""

import itertools
import re
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.errors import ConfigError
from llama_jax.ops import chunked
from llama_jax.ops.attention import attend, choose
from llama_jax.ops.chunked import attend_chunked
from llama_jax.ops.cudnn import attend_fused
from llama_jax.ops.masks import Mask
from llama_jax.ops.reference import attend_reference
from llama_jax.ops.spec import AttentionSpec, described_by_training
from llama_jax.ops.splash import attend_splash

HEADS = {"mha": (4, 4), "gqa": (4, 2), "mqa": (4, 1)}


def inputs(N, K, T=40, B=2, H=8, segments=True):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (B, T, n, H)) for key, n in zip(keys, (N, K, K), strict=True))
    starts = jax.random.bernoulli(jax.random.key(1), 0.15, (B, T))
    return q, k, v, Mask(jnp.cumsum(starts, axis=1, dtype=jnp.int32) if segments else None)


def float64_attention(q, k, v, segments):
    """Every query against every key it may see, one at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    B, T, N, H = q.shape
    for b, t, n in itertools.product(range(B), range(T), range(N)):
        seen = [s for s in range(t + 1) if segments is None or segments[b, s] == segments[b, t]]
        kv = n // (N // k.shape[2])
        scores = np.array([q[b, t, n] @ k[b, s, kv] for s in seen]) / np.sqrt(H)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = (weights / weights.sum()) @ v[b, seen, kv]
    return out


def test_mask_is_drawn_as_it_is_described():
    mask = Mask(jnp.array([[1, 1, 2, 2, 2]]))
    drawn = np.array([[1, 0, 0, 0, 0],
                      [1, 1, 0, 0, 0],
                      [0, 0, 1, 0, 0],
                      [0, 0, 1, 1, 0],
                      [0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(mask.materialize(5)[0], drawn)
    np.testing.assert_array_equal(Mask().materialize(5)[0], np.tril(np.ones((5, 5))))


def test_a_tree_is_drawn_depth_first():
    """Two texts that share their first token, then another text, then padding."""
    drawn = np.array([[1, 0, 0, 0, 0, 0],
                      [1, 1, 0, 0, 0, 0],
                      [1, 1, 1, 0, 0, 0],
                      [1, 0, 0, 1, 0, 0],
                      [0, 0, 0, 0, 1, 0],
                      [0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(Mask(ends_BT=jnp.array([[4, 3, 3, 4, 5, 0]])).materialize(6)[0], drawn)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("backend", [attend_reference, attend_chunked])
def test_backends_equal_float64(heads, segments, backend):
    q, k, v, mask = inputs(*HEADS[heads], T=11, segments=segments)
    ids = None if mask.segment_ids_BT is None else np.asarray(mask.segment_ids_BT)
    np.testing.assert_allclose(backend(q, k, v, mask), float64_attention(q, k, v, ids), atol=1e-5)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kind, chunk, short", [
    ("causal", 8, 0), ("causal", 40, 0), ("causal", 16, 512),
    ("documents", 16, 0), ("documents", 40, 0), ("documents", 8, 512),  # 16 does not divide 40: the last tile is padded
    ("tree", 8, 0), ("tree", 16, 512),
])
def test_chunked_equals_reference_forward_and_backward(heads, kind, chunk, short, monkeypatch):
    monkeypatch.setattr(chunked, "SHORT", short)
    q, k, v, mask = inputs(*HEADS[heads], segments=kind == "documents")
    if kind == "tree":
        mask = Mask(ends_BT=jnp.minimum(jnp.arange(40)[None] + jax.random.randint(jax.random.key(3), (2, 40), 1, 30), 40))
    cotangent = jax.random.normal(jax.random.key(2), q.shape)

    @partial(jax.jit, static_argnums=0)
    def run(backend):
        out, pull = jax.vjp(backend, q, k, v)
        return out, pull(cotangent)

    chex.assert_trees_all_close(
        run(lambda q, k, v: attend_chunked(q, k, v, mask, chunk=chunk)),
        run(lambda q, k, v: attend_reference(q, k, v, mask)),
        atol=1e-5, rtol=1e-5,
    )


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_no_query_depends_on_later_keys(impl):
    q, k, v, mask = inputs(4, 2, segments=False, T=12)

    @jax.jit
    def gradients(t):
        return jax.grad(lambda k, v: attend(q, k, v, mask, impl)[:, t].sum(), argnums=(0, 1))(k, v)

    for t in (0, 5, 11):
        dk, dv = gradients(t)
        assert float(jnp.abs(dk[:, t + 1:]).sum() + jnp.abs(dv[:, t + 1:]).sum()) == 0.0
        assert float(jnp.abs(dv[:, : t + 1]).min()) > 0.0


@pytest.mark.parametrize("short", [0, 512])
def test_masked_tiles_are_never_computed(short, monkeypatch):
    monkeypatch.setattr(chunked, "SHORT", short)
    q, k, v, mask = inputs(4, 2, segments=False, T=32)
    late = jnp.arange(32)[None, :, None, None] >= 16

    def poisoned(backend):
        """Late keys are NaN for early queries, early queries are NaN for late keys: 0 * NaN would show."""
        bad_k, bad_v = (jnp.where(late, jnp.nan, x) for x in (k, v))
        out = backend(q, bad_k, bad_v, mask)[:, :16]
        bad_q = jnp.where(late, q, jnp.nan)
        grads = jax.grad(lambda k, v: backend(bad_q, k, v, mask)[:, 16:].sum(), argnums=(0, 1))(k, v)
        return out, [grad[:, 16:] for grad in grads]

    tiles = jax.tree.leaves(poisoned(partial(attend_chunked, chunk=8)))
    assert all(np.isfinite(x).all() for x in tiles)
    assert all(np.isnan(x).any() for x in jax.tree.leaves(poisoned(attend_reference))), "the poison works"


def test_chunked_has_no_square_buffer():
    T = 1024
    q = jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)

    def loss(q, backend):
        return backend(q, q, q, Mask()).sum()

    def compiled(backend):
        return jax.jit(jax.grad(lambda q: loss(q, backend))).lower(q).compile()

    assert f"{T},{T}" not in compiled(attend_chunked).as_text()
    assert f"{T},{T}" in compiled(attend_reference).as_text()
    small, large = (compiled(b).memory_analysis().temp_size_in_bytes for b in (attend_chunked, attend_reference))
    assert small < large / 4


def test_bfloat16_stays_close_to_float32():
    q, k, v, mask = inputs(4, 2)
    exact = attend_reference(q, k, v, mask)
    for backend in (attend_reference, attend_chunked):
        half = backend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), mask)
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=3e-2)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_slice_of_the_queries_equals_its_part_of_the_whole(backend, segments):
    q, k, v, mask = inputs(4, 2, T=48, segments=segments)
    cotangent = jax.random.normal(jax.random.key(2), q.shape)

    @jax.jit
    def whole():
        out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, mask, backend), q, k, v)
        return out, pull(cotangent)

    @jax.jit
    def sliced(first):
        part = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=16, axis=1)
        out, pull = jax.vjp(lambda q, k, v: attend(part(q), k, v, mask, backend, first=first), q, k, v)
        return out, pull(part(cotangent))

    outs, grads = zip(*(sliced(first) for first in (0, 16, 32)), strict=True)
    together = jnp.concatenate(outs, axis=1), jax.tree.map(lambda *parts: sum(parts), *grads)
    chex.assert_trees_all_close(together, whole(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("segments", [pytest.param(False, marks=pytest.mark.slow), True])
def test_documents_in_the_heads_equal_a_mask(segments):
    """What cuDNN is given, computed by XLA: the numbers of documents as features of queries and keys."""
    q, k, v, mask = inputs(4, 2, T=64, H=16, segments=segments)
    if segments:
        mask = Mask(mask.segment_ids_BT * 317)  # far apart and close, up to thousands
    for dtype, atol in ((jnp.float32, 2e-3), (jnp.bfloat16, 3e-2)):
        x = [array.astype(dtype) for array in (q, k, v)]
        exact = attend_reference(*(array.astype(jnp.float32) for array in x), mask)
        out, pull = jax.vjp(lambda q, k, v: attend_fused(q, k, v, mask, implementation="xla"), *x)
        np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=atol)
        assert [grad.shape for grad in pull(out)] == [array.shape for array in x]
    other = jnp.where(mask.materialize(64)[0, 40][None, :, None, None], v, 1e4) if segments else v  # what token 40 sees not
    seen = [attend_fused(q[:1], k[:1], value[:1], Mask(mask.segment_ids_BT[:1]) if segments else mask,
                         implementation="xla")[0, 40] for value in (v, other)]
    np.testing.assert_array_equal(*seen)


def test_splash_in_its_interpreter_equals_the_reference():
    q, k, v, mask = inputs(2, 1, T=128, B=1, H=128)
    np.testing.assert_allclose(attend_splash(q, k, v, mask, interpret=True), attend_reference(q, k, v, mask), atol=1e-5)


class Device(NamedTuple):
    """What `choose` asks of a device."""

    platform: str
    device_kind: str
    compute_capability: str | None = None


CPU, TPU = Device("cpu", "cpu"), Device("tpu", "TPU v5 lite")
A100, H100 = Device("gpu", "NVIDIA A100-SXM4-80GB", "8.0"), Device("gpu", "NVIDIA H100 80GB HBM3", "9.0")
SEVEN_B = AttentionSpec(device=H100, length=2048, head_dim=128, dtype=jnp.bfloat16, described=described_by_training(True))


@pytest.mark.parametrize("change, backend, why", [
    ({}, "cudnn", "the fused kernel for NVIDIA H100"),
    ({"device": A100}, "chunked", "not cudnn: its heads are multiples of 8 and at most 128 wide .* 128 and 16 for the docum"),
    ({"device": A100, "described": described_by_training(False)}, "cudnn", "the fused kernel"),
    ({"device": A100, "head_dim": 64}, "cudnn", "the fused kernel"),
    ({"dtype": jnp.float32}, "chunked", "not cudnn: it needs compute.dtype bfloat16, got float32"),
    ({"described": frozenset({"mask.ends_BT"})}, "chunked", "not cudnn: it knows no tree masks"),
    ({"sliced": True}, "chunked", "not cudnn: it needs whole rows"),
    ({"device": TPU}, "splash", "the fused kernel for TPU v5 lite"),
    ({"device": TPU, "length": 1000}, "chunked", "not splash: it needs rows of a multiple of 128 tokens, got 1000"),
    ({"device": CPU}, "chunked", "runs on every platform, keeps no T x T weights and skips masked tiles$"),
    ({"device": Device("gpu", "AMD MI300X")}, "chunked", "not cudnn: it needs an NVIDIA GPU, and this is AMD"),
])
def test_auto_picks_the_best_that_can_serve(change, backend, why):
    picked, reason = choose("auto", replace(SEVEN_B, **change))
    assert picked == backend and re.search(why, reason)


def test_choose_says_what_a_backend_lacks():
    on_cpu = replace(SEVEN_B, device=CPU)
    assert choose("reference", on_cpu) == ("reference", "asked for")
    assert choose("cudnn", SEVEN_B) == ("cudnn", "asked for")
    with pytest.raises(ConfigError, match="unknown attention backend 'flash'; did you mean splash"):
        choose("flash", on_cpu)
    with pytest.raises(ConfigError, match="unknown attention backend 'xyz'; known: auto, chunked, cudnn, reference, splash"):
        choose("xyz", on_cpu)
    with pytest.raises(ConfigError, match="attention cudnn cannot serve: it needs an NVIDIA GPU, and this is cpu; auto picks"):
        choose("cudnn", on_cpu)
    with pytest.raises(ConfigError, match="attention splash cannot serve: it needs a TPU, and this is NVIDIA H100"):
        choose("splash", SEVEN_B)
