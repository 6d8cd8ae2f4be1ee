"""Every backend against float64 under every kind of mask, and what each refuses: a mask of which it does not know a field."""

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from llama_jax.config import MeshConfig
from llama_jax.errors import ConfigError
from llama_jax.ops import attention, chunked
from llama_jax.ops.attention import BACKENDS, attend, choose, device_in_use, is_fused
from llama_jax.ops.chunked import attend_chunked
from llama_jax.ops.cudnn import BITS, attend_cudnn, attend_fused
from llama_jax.ops.masks import Mask
from llama_jax.ops.reference import attend_reference
from llama_jax.ops.spec import AttentionSpec
from llama_jax.ops.splash import attend_splash
from llama_jax.parallel.attention import attend_over_mesh
from llama_jax.parallel.mesh import make_mesh
from llama_jax.parallel.rules import AXES

KINDS = ("causal", "documents", "tree", "both", "padding")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Windowed(Mask):
    """A mask that says something new: no token sees further back than `window`."""

    window: int | None = field(default=None, metadata={"static": True})


class Device(NamedTuple):
    """What attention asks of a device."""

    platform: str
    device_kind: str
    compute_capability: str | None = None


H100, A100 = Device("gpu", "NVIDIA H100 80GB HBM3", "9.0"), Device("gpu", "NVIDIA A100-SXM4-80GB", "8.0")
TPU, CPU = Device("tpu", "TPU v5 lite"), Device("cpu", "cpu")


def elsewhere(device: Device, *sizes: int):
    """A mesh of devices that are not here, as a program that is compiled for them sees it."""
    described = AbstractDevice(device.device_kind, None, device.platform)
    mesh = AbstractMesh(sizes or (1, 1, 1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES), abstract_device=described)
    return jax.sharding.use_abstract_mesh(mesh)


def arrays(N=4, K=2, T=40, B=2, H=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (B, T, n, H), dtype) for key, n in zip(keys, (N, K, K), strict=True)]


def mask_of(kind: str, T: int, B: int = 2) -> Mask:
    """Documents in any order with any numbers; subtrees that end anywhere; a second half that sees nothing and is not seen."""
    rng = np.random.default_rng(3)
    segments = rng.choice(np.array([-7, 0, 1, 65_536, 2**31 - 1]), (B, T)).astype(np.int32)
    ends = np.minimum(np.arange(T) + rng.integers(1, max(2, T), (B, T)), T).astype(np.int32)
    if kind == "padding":
        ends = np.where(np.arange(T) < T // 2, np.minimum(ends, T // 2), 0).astype(np.int32)
    return Mask(segments if kind in ("documents", "both") else None, ends if kind in ("tree", "both", "padding") else None)


def float64_attention(q, k, v, mask: Mask):
    """Every query against every key that it may see, one at a time; zeros where it may see none."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    ids, ends = mask.segment_ids_BT, mask.ends_BT
    out = np.zeros_like(q)
    B, T, N, H = q.shape
    for b, t, n in itertools.product(range(B), range(T), range(N)):
        seen = [s for s in range(t + 1) if (ids is None or ids[b, s] == ids[b, t]) and (ends is None or t < ends[b, s])]
        if seen:
            scores = k[b, seen, n // (N // k.shape[2])] @ q[b, t, n] / np.sqrt(H)
            weights = np.exp(scores - scores.max())
            out[b, t, n] = (weights / weights.sum()) @ v[b, seen, n // (N // k.shape[2])]
    return out


@pytest.mark.parametrize("impl", ["reference", "tiles", "short rows"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads, T", [((4, 4), 40), ((6, 2), 67), ((3, 1), 1)])
def test_portable_backends_equal_float64_under_every_mask(impl, kind, heads, T, monkeypatch):
    monkeypatch.setattr(chunked, "SHORT", 0 if impl == "tiles" else 512)
    backend = attend_reference if impl == "reference" else partial(attend_chunked, chunk=16)
    q, k, v = arrays(*heads, T)
    mask = mask_of(kind, T)
    np.testing.assert_allclose(jax.jit(backend)(q, k, v, mask), float64_attention(q, k, v, mask), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["both", "padding"])
def test_half_precision_stays_close(dtype, kind):
    q, k, v = arrays(dtype=dtype)
    mask = mask_of(kind, 40)
    for impl in ("reference", "chunked"):
        out = attend(q, k, v, mask, impl)
        assert out.dtype == dtype
        np.testing.assert_allclose(out.astype(jnp.float32), float64_attention(q, k, v, mask), atol=2e-2)


@pytest.mark.parametrize("short", [0, 512])
def test_gradients_where_a_token_sees_nothing(short, monkeypatch):
    """They are zeros there, and equal to the reference's elsewhere; nothing is NaN."""
    monkeypatch.setattr(chunked, "SHORT", short)
    q, k, v = arrays()
    mask, cotangent = mask_of("padding", 40), jax.random.normal(jax.random.key(2), (2, 40, 4, 8))
    ours, reference = (jax.jit(lambda *x, f=f: jax.vjp(partial(f, mask=mask), *x)[1](cotangent))(q, k, v)
                       for f in (partial(attend_chunked, chunk=16), attend_reference))
    chex.assert_trees_all_close(ours, reference, atol=1e-5)
    for gradients in (ours, reference):
        assert not any(np.abs(gradient[:, 20:]).any() for gradient in gradients)
        assert all(np.abs(gradient[:, :20]).any() for gradient in gradients)


@pytest.mark.parametrize("kind", ["causal", "documents"])
def test_what_cudnn_is_given_equals_float64_whatever_documents_are_called(kind):
    """65,536 and 0 end in the same sixteen bits."""
    q, k, v = arrays(T=33, H=16)
    mask = mask_of(kind, 33)
    out = attend_fused(q, k, v, mask, implementation="xla")
    np.testing.assert_allclose(out, float64_attention(q, k, v, mask), atol=2e-3)


@pytest.mark.parametrize("kind", ["causal", "documents"])
@pytest.mark.parametrize("heads, T", [((2, 2), 128), ((2, 1), 256)])
def test_splash_in_its_interpreter_equals_float64(kind, heads, T):
    q, k, v = arrays(*heads, T, B=1, H=24)
    mask = mask_of(kind, T, B=1)
    out = attend_splash(q, k, v, mask, interpret=True)
    np.testing.assert_allclose(out, float64_attention(q, k, v, mask), atol=1e-5)


def test_splash_takes_one_mask_for_all_rows():
    q, k, v = arrays(2, 1, 128, B=2)
    out = attend_splash(q, k, v, mask_of("documents", 128, B=1), interpret=True)
    np.testing.assert_allclose(out, attend(q, k, v, mask_of("documents", 128, B=1), "reference"), atol=1e-5)


@pytest.mark.parametrize("impl", [*BACKENDS, "auto"])
@pytest.mark.parametrize("device", [CPU, H100, TPU], ids=lambda device: device.platform)
def test_a_field_that_nobody_knows_is_refused(impl, device, monkeypatch):
    monkeypatch.setattr(attention, "device_in_use", lambda: device)
    q, k, v = arrays(T=128, dtype=jnp.bfloat16)
    with pytest.raises(ConfigError, match=r"knows no mask\.window, which no backend can serve.*\.$") as refusal:
        attend(q, k, v, Windowed(window=3), impl)
    assert "auto picks" not in str(refusal.value)
    with pytest.raises(ConfigError, match=r"knows no mask\.window"):
        jax.eval_shape(partial(attend, impl=impl), q, k, v, Windowed(mask_of("documents", 128).segment_ids_BT, window=0))


def test_a_new_field_that_says_nothing_changes_nothing():
    q, k, v = arrays()
    np.testing.assert_array_equal(attend(q, k, v, Windowed(), "auto"), attend(q, k, v, Mask(), "auto"))


@pytest.mark.parametrize("backend", [
    attend_reference, attend_chunked, attend_cudnn, partial(attend_fused, implementation="xla"), attend_splash,
    partial(attend_splash, interpret=True)],
    ids=["reference", "chunked", "cudnn", "cudnn in XLA", "splash", "splash interpreted"])
def test_nor_is_it_ignored_where_a_backend_is_called_by_itself(backend):
    with pytest.raises(ConfigError, match=r"knows no mask\.window; attention under such a mask goes through"):
        backend(*arrays(T=128), Windowed(window=3))


@pytest.mark.parametrize("impl, device", [("cudnn", H100), ("splash", TPU)])
def test_fused_kernels_refuse_trees_on_their_own_hardware(impl, device, monkeypatch):
    """One device, a described one, and a mesh of them: the same sentence, before anything is compiled."""
    sentence = rf"attention {impl} cannot serve: it knows no tree masks \(mask\.ends_BT\), which chunked and reference can"
    q, k, v = arrays(T=128, dtype=jnp.bfloat16)
    for mask in (mask_of("tree", 128), mask_of("both", 128)):
        for sizes in ((1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2), (1, 1, 1, 8)):
            with elsewhere(device, *sizes), pytest.raises(ConfigError, match=sentence):
                jax.eval_shape(partial(attend_over_mesh, impl=impl), q, k, v, mask)
        monkeypatch.setattr(attention, "device_in_use", lambda: device)
        with pytest.raises(ConfigError, match=sentence):
            attend(q, k, v, mask, impl)
        np.testing.assert_allclose(attend(q, k, v, mask, "auto").astype(jnp.float32), float64_attention(q, k, v, mask), atol=4e-2)


@pytest.mark.parametrize("impl", [*filter(is_fused, BACKENDS)])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (8, 1, 1, 1), (1, 1, 2, 4)])
def test_fused_kernels_are_refused_on_a_mesh_of_cpus(impl, sizes):
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh), pytest.raises(ConfigError, match=f"{impl} cannot serve: it needs .*, and this is cpu"):
        attend_over_mesh(*arrays(T=128, B=8), Mask(), impl)


@pytest.mark.parametrize("impl", ["reference", "chunked", "auto"])
@pytest.mark.parametrize("kind", ["both", "padding"])
@pytest.mark.parametrize("sizes", [(2, 1, 2, 2), (1, 2, 1, 4)], ids=["exchanged", "sliced"])
def test_masks_are_heeded_on_every_mesh(impl, kind, sizes):
    """Heads exchanged for tokens, and slices of the queries against all keys."""
    q, k, v = arrays(4, 2 if sizes[3] == 4 else 4)
    mask = mask_of(kind, 40)
    with jax.set_mesh(make_mesh(MeshConfig(*sizes))):
        out = jax.jit(partial(attend_over_mesh, impl=impl))(q, k, v, mask)
        with pytest.raises(ConfigError, match=r"knows no mask\.window"):
            attend_over_mesh(q, k, v, Windowed(window=3), impl)
    np.testing.assert_allclose(out, float64_attention(q, k, v, mask), atol=1e-5)


@pytest.mark.parametrize("change, sentence", [
    ({"device": Device("gpu", "Tesla V100-SXM2-32GB", "7.0")}, r"it needs compute capability 8\.0 .* Tesla V100-SXM2-32GB has 7"),
    ({"device": Device("gpu", "AMD Instinct MI300X", "gfx942")}, "it needs an NVIDIA GPU, and this is AMD Instinct MI300X"),
    ({"length": 2**BITS + 1, "described": frozenset({"mask.segment_ids_BT"})}, "apart in rows of at most 65,536 tokens"),
    ({"head_dim": 12}, "heads are multiples of 8"),
    ({"head_dim": 264}, "at most 256 wide"),
    ({"head_dim": 136, "device": A100}, "at most 128 wide"),
])
def test_cudnn_says_what_it_lacks(change, sentence):
    problem = replace(AttentionSpec(H100, 128, 64, jnp.bfloat16), **change)
    with pytest.raises(ConfigError, match=sentence):
        choose("cudnn", problem)
    assert choose("auto", problem)[0] == "chunked"


def test_splash_says_what_it_lacks():
    """What Mosaic has no float16 for, it would refuse with an internal error of its own."""
    with pytest.raises(ConfigError, match=r"it needs compute\.dtype bfloat16 or float32, got float16"):
        choose("splash", AttentionSpec(TPU, 128, 64, jnp.float16))
    assert choose("splash", AttentionSpec(TPU, 128, 64, jnp.float32))[0] == "splash"


@pytest.mark.parametrize("segments", [False, True])
def test_fused_kernels_are_lowered_where_they_are_chosen(segments, monkeypatch):
    """What jax's cuDNN asks of the GPU that is here is answered for one that is not."""
    mask = mask_of("documents" if segments else "causal", 128)
    shapes = arrays(T=128, H=64, dtype=jnp.bfloat16)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda least: True)
    monkeypatch.setattr(fused_attention_stablehlo, "is_cuda_compute_capability_equal", lambda other: False)
    for device, platform, kernel in ((H100, "cuda", "__cudnn$fmhaSoftmax"), (TPU, "tpu", "tpu_custom_call")):
        monkeypatch.setattr(attention, "device_in_use", lambda device=device: device)
        lowered = jax.jit(partial(attend, impl="auto")).trace(*shapes, mask).lower(lowering_platforms=(platform,))
        assert kernel in lowered.as_text()


@pytest.mark.parametrize("impl", ["reference", "chunked", "auto"])
def test_nothing_to_attend_to(impl):
    for B, T in ((0, 40), (2, 0)):
        q, k, v = arrays(B=B, T=T)
        out, pull = jax.vjp(partial(attend, mask=Mask(jnp.zeros((B, T), jnp.int32)), impl=impl), q, k, v)
        assert out.shape == q.shape and [x.shape for x in pull(out)] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("shapes, dtypes, sentence", [
    (((2, 4, 3, 8), (2, 4, 2, 8), (2, 4, 2, 8)), "fff", "kv heads divide, got q .2, 4, 3, 8"),
    (((2, 1, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8)), "fff", "as many queries as keys"),
    (((2, 4, 2, 8), (2, 4, 2, 6), (2, 4, 2, 6)), "fff", "a width H in common"),
    (((2, 4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8)), "fff", "rows B"),
    (((2, 4, 2, 8), (2, 4, 2, 8), (2, 4, 1, 8)), "fff", "k and v .B, S, K, H., got"),
    (((4, 2, 8), (4, 2, 8), (4, 2, 8)), "fff", "attention wants q .B, T, N, H."),
    (((2, 4, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8)), "iii", "one dtype out of bfloat16, float16, float32, got int32"),
    (((2, 4, 2, 8), (2, 4, 2, 8), (2, 4, 2, 8)), "fef", "one dtype out of .* got float32, float16, float32"),
])
def test_arrays_that_do_not_fit_each_other(shapes, dtypes, sentence):
    q, k, v = (jnp.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    for impl in ("reference", "chunked", "auto"):
        with pytest.raises(ConfigError, match=sentence):
            attend(q, k, v, Mask(), impl)


@pytest.mark.parametrize("ids", [jnp.zeros(40, jnp.int32), jnp.zeros((2, 39), jnp.int32), jnp.zeros((3, 40), jnp.int32),
                                 jnp.zeros((2, 40))], ids=lambda ids: f"{ids.shape} {ids.dtype}")
def test_a_mask_that_does_not_fit_the_tokens(ids):
    for mask, name in ((Mask(segment_ids_BT=ids), "segment_ids_BT"), (Mask(ends_BT=ids), "ends_BT")):
        with pytest.raises(ConfigError, match=rf"mask\.{name} wants integers, one for each of 2 x 40 tokens, got"):
            attend(*arrays(), mask, "auto")


def test_the_device_that_computes():
    """The default one, another where that is set, that of the mesh in use; one that is only described tells what it is."""
    assert device_in_use() == jax.devices()[0]
    with jax.default_device(jax.devices()[3]):
        assert device_in_use() == jax.devices()[3]
    with jax.default_device("cpu"):
        assert device_in_use() == jax.devices("cpu")[0]
    with jax.set_mesh(make_mesh(MeshConfig(8))):
        assert device_in_use().platform == "cpu"
        assert jax.jit(lambda: jnp.int32(device_in_use().platform == "cpu"))() == 1
    with elsewhere(TPU):
        assert (device_in_use().platform, device_in_use().device_kind) == ("tpu", "TPU v5 lite")
