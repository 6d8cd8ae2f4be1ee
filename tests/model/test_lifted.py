"""Modules inside other projects: any leading dimensions, a foreign flax model, and meshes that are not this package's."""

from contextlib import nullcontext

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from llama_jax import Attention, FeedForward, RMSNorm, Transformer, next_token_loss
from llama_jax.model.decoder import head_matrix
from llama_jax.model.tree import parameters
from llama_jax.ops import chunked
from llama_jax.ops.bias import Bias
from llama_jax.ops.linear import linear, quantize
from llama_jax.ops.masks import Mask
from llama_jax.parallel.attention import attend_over_mesh
from tests.golden.small import CONFIGS, FLOAT32, random_params, random_rows

B, T, D = 8, 8, 32
X = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
MODULES = {"norm": RMSNorm(), "feedforward": FeedForward(48), "attention": Attention(4, 2)}
PARAMS = {name: module.init(jax.random.key(0), X[:1])["params"] for name, module in MODULES.items()}


class ForeignBlock(nn.Module):
    """Another project's model around the three modules, with a parameter of its own."""

    @nn.compact
    def __call__(self, x):
        x = x * self.param("gain", nn.initializers.ones, (), x.dtype)
        x = x + Attention(4, 2, name="mixer")(RMSNorm(name="first")(x))
        return x + FeedForward(48, name="channel")(RMSNorm(name="second")(x))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3), (2, 1, 2, 3), (1, 2, 1, 2, 3)], ids=len)
def test_any_leading_dimensions(name, leading):
    """Every row of the last axis by itself, or for attention every row of tokens."""
    params = jax.tree.map(lambda leaf: 3 * leaf, PARAMS[name])
    module = jax.jit(lambda x: MODULES[name].apply({"params": params}, x))
    own = (T, D) if name == "attention" else (D,)
    x = np.random.default_rng(1).standard_normal((*leading, *own)).astype(np.float32)
    rows = [module(row[None])[0] for row in x.reshape(-1, *own)]
    out = module(x)
    assert out.shape == x.shape and out.dtype == x.dtype
    np.testing.assert_allclose(out.reshape(-1, *own), rows, atol=1e-5)


def test_in_a_foreign_model_parameters_are_plain_arrays():
    params = jax.jit(ForeignBlock().init)(jax.random.key(0), X)["params"]
    assert set(params) == {"gain", "mixer", "first", "channel", "second"}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: hasattr(leaf, "names")))
    gradients = jax.jit(jax.grad(lambda params: jnp.square(ForeignBlock().apply({"params": params}, X)).sum()))(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("names", [("x", "y"), ("data", "tensor")], ids=str)
def test_parameters_are_described_under_any_mesh(names, kind):
    with jax.set_mesh(jax.make_mesh((4, 2), names, axis_types=(kind, kind))):
        assert parameters.__wrapped__(CONFIGS["gqa"]) == parameters(CONFIGS["gqa"])


def of_module(name):
    def loss(params, x):
        y = MODULES[name].apply({"params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    return loss, PARAMS[name], X


def of_model():
    config = CONFIGS["gqa"]
    model = Transformer(config, FLOAT32)

    def loss(params, rows):
        tokens, targets = rows[:, :-1], rows[:, 1:]
        h_BTD = model.apply({"params": params}, tokens, method=Transformer.hidden)
        total, _ = next_token_loss(h_BTD, head_matrix(params), targets, jnp.ones(targets.shape), chunk=32)
        return total, linear(h_BTD, head_matrix(params))  # as `Transformer.__call__`, which would run the blocks again

    return loss, random_params(config, 0), random_rows(config, 1, batch=B, length=T)


CASES = {**{name: of_module(name) for name in MODULES}, "model": of_model()}


def on_mesh(shape, names, kinds, spec):
    """jit under `jax.set_mesh`, rows sharded by `spec`."""
    def run(loss, params, x):
        mesh = jax.make_mesh(shape, names, axis_types=tuple(kinds))
        with jax.set_mesh(mesh):
            params = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P())), params)
            return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, jax.device_put(x, NamedSharding(mesh, spec)))

    return run


def in_shard_map(shape, names, over, *, check_vma, set_mesh=True):
    """Gradients inside a shard_map over one axis; jax sums them over it where it checks varying axes, else the caller does."""
    def run(loss, params, x):
        mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))

        def body(params, x):
            (total, y), gradients = jax.value_and_grad(loss, has_aux=True)(params, x)
            return (jax.lax.psum(total, over), y), gradients if check_vma else jax.lax.psum(gradients, over)

        spread = jax.shard_map(body, mesh=mesh, in_specs=(P(), P(over)), out_specs=((P(), P(over)), P()), check_vma=check_vma,
                               axis_names={over})
        with jax.set_mesh(mesh) if set_mesh else nullcontext():
            return jax.jit(spread)(params, x)

    return run


def in_pmap(name):
    def run(loss, params, x):
        def body(params, x):
            (total, y), gradients = jax.value_and_grad(loss, has_aux=True)(params, x)
            return (jax.lax.psum(total, name), y), jax.lax.psum(gradients, name)

        (total, y), gradients = jax.pmap(body, axis_name=name, in_axes=(None, 0))(params, x[:, None])
        return (total[0], y[:, 0]), jax.tree.map(lambda leaf: leaf[0], gradients)

    return run


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
ELSEWHERE = {
    "other names": on_mesh((4, 2), ("x", "y"), (AUTO, AUTO), P("x")),
    "data alone": on_mesh((8,), ("data",), (AUTO,), P("data")),
    "tensor alone": on_mesh((8,), ("tensor",), (AUTO,), P()),
    "data and model": on_mesh((4, 2), ("data", "model"), (AUTO, AUTO), P("data")),
    "data and tensor": on_mesh((4, 2), ("data", "tensor"), (AUTO, AUTO), P("data")),
    "ours and another": on_mesh((2, 2, 2), ("data", "x", "tensor"), (AUTO,) * 3, P(("x", "data"))),
    "explicit x": on_mesh((8,), ("x",), (EXPLICIT,), P("x")),
    "explicit data": on_mesh((4, 2), ("data", "y"), (EXPLICIT, EXPLICIT), P("data")),
    "explicit x, tensor": on_mesh((4, 2), ("x", "tensor"), (EXPLICIT, AUTO), P("x")),
    "shard_map over x": in_shard_map((8,), ("x",), "x", check_vma=True),
    "shard_map over data": in_shard_map((8,), ("data",), "data", check_vma=True),
    "shard_map over data, unchecked": in_shard_map((8,), ("data",), "data", check_vma=False, set_mesh=False),
    "shard_map over data, tensor left": in_shard_map((4, 2), ("data", "tensor"), "data", check_vma=True),
    "pmap over data": in_pmap("data"),
}


@pytest.fixture(scope="module")
def alone():
    return {name: jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x) for name, (loss, params, x) in CASES.items()}


@pytest.mark.filterwarnings("ignore:.*pmap.*:DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", ELSEWHERE)
def test_values_and_gradients_under_foreign_meshes(place, case, alone):
    found = ELSEWHERE[place](*CASES[case])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(jax.device_get(a), b, rtol=2e-4, atol=2e-4), found, alone[case])


def explicit_mesh():
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(EXPLICIT, EXPLICIT))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(("leading", "spec"), [((2, 4), P(None, "x")), ((4, 3, 2), P("x", None, "y")), ((8,), P(("x", "y")))],
                         ids=str)
def test_explicitly_sharded_leading_dimensions(name, leading, spec):
    loss, params, _ = CASES[name]
    x = np.random.default_rng(2).standard_normal((*leading, T, D)).astype(np.float32)
    wanted = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x)
    found = on_mesh((4, 2), ("x", "y"), (EXPLICIT, EXPLICIT), spec)(loss, params, x)
    y = found[0][1]
    assert y.sharding.is_equivalent_to(NamedSharding(y.sharding.mesh, spec), y.ndim), "it lies like x"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(jax.device_get(a), b, rtol=2e-4, atol=2e-4), found, wanted)


@pytest.mark.parametrize(("first", "last"), [(P(None, "y"), P("y")), (P("x"), P(None, "x")), (P(None, "x"), P("x"))], ids=str)
def test_explicitly_sharded_weights(first, last):
    """Tensor parallel, and sharded over the axis of the rows."""
    loss, params, x = CASES["feedforward"]
    wanted = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x)
    with jax.set_mesh(explicit_mesh()):
        placed = {name: jax.device_put(leaf, last if name == "w_down" else first) for name, leaf in params.items()}
        found = jax.jit(jax.value_and_grad(loss, has_aux=True))(placed, jax.device_put(x, P("x")))
    assert found[1]["w_down"].sharding.spec[0] == last[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(jax.device_get(a), b, rtol=2e-4, atol=2e-4), found, wanted)


def test_int8_beside_explicit_axes():
    w = quantize(PARAMS["feedforward"]["w_down"])
    wanted = linear(jnp.tile(X, 2)[..., :48], w)
    with jax.set_mesh(explicit_mesh()):
        placed = jax.tree.map(lambda leaf: jax.device_put(leaf, P("y") if leaf.ndim == 2 else P()), w)
        found = linear(jax.device_put(jnp.tile(X, 2)[..., :48], P("x", None, "y")), placed)
    np.testing.assert_allclose(jax.device_get(found), wanted, atol=1e-5)


def attention_of(mask: Mask, bias: Bias):
    def loss(arrays):
        y = attend_over_mesh(*arrays, mask, "chunked", bias=bias)
        return jnp.sum(jnp.sin(y)), y

    return jax.value_and_grad(loss, has_aux=True)


def attention_case(rows: int):
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((rows, 16, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    return (q, k, v), np.cumsum(rng.integers(0, 2, (B, 16)), axis=1).astype(np.int32)


def test_masks_and_biases_beside_explicit_axes():
    arrays, ids_BT = attention_case(B)

    def run(arrays, ids_BT):
        return attention_of(Mask(ids_BT), Bias(slopes_N=jnp.arange(4.0), positions_BT=ids_BT))(arrays)

    wanted = jax.jit(run)(arrays, ids_BT)
    with jax.set_mesh(explicit_mesh()):
        found = jax.jit(run)(*jax.device_put((arrays, ids_BT), P("x")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(jax.device_get(a), b, rtol=2e-4, atol=2e-4), found, wanted)


@pytest.mark.parametrize("short", [chunked.SHORT, 0], ids=["short rows", "long rows"])
def test_masks_that_vary_where_queries_do_not(short, monkeypatch):
    """Devices of a shard_map share queries, keys and values; each has documents of its own."""
    monkeypatch.setattr(chunked, "SHORT", short)
    arrays, ids_BT = attention_case(1)
    one = jax.jit(lambda arrays, ids_1T: attention_of(Mask(ids_1T), Bias())(arrays))
    each = [one(arrays, ids_BT[n: n + 1]) for n in range(B)]

    def body(arrays, ids_BT):
        (_, y), gradients = attention_of(Mask(ids_BT), Bias())(arrays)
        return y, gradients

    mesh = jax.make_mesh((B,), ("x",), axis_types=(AUTO,))
    spread = jax.shard_map(body, mesh=mesh, in_specs=(P(), P("x")), out_specs=(P("x"), P()))
    found = jax.jit(spread)(arrays, ids_BT)
    wanted = np.concatenate([y for (_, y), _ in each]), jax.tree.map(lambda *leaves: sum(leaves), *[of for _, of in each])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(jax.device_get(a), b, rtol=2e-4, atol=2e-4), found, wanted)
