"""Norms and feed-forward layers against their papers' equations in float64 numpy, to 1e-6.

Inputs are float32 numbers of size 1, which float64 holds exactly; what is left is the rounding of the float32 computation.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config.presets import path_to_llama
from llama_jax.errors import ConfigError
from llama_jax.model.feedforward import FeedForward
from llama_jax.model.norms import NORMS, LayerNorm, RMSNorm
from llama_jax.ops.feedforward import FEEDFORWARDS, equal_width, feedforward_kind
from llama_jax.ops.norms import layer_norm, rms_norm

D, F = 24, 36


def numbers(seed: int, *shape: int, std: float = 1.0) -> np.ndarray:
    """Normal numbers that float32 holds."""
    return (std * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def check(found, wanted):
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-6, atol=1e-6)


def rms_norm_64(x, scale, *, eps):
    """g * x / sqrt(mean(x^2) + eps), Zhang & Sennrich 2019, equation 4, with eps."""
    x = np.float64(x)
    return np.float64(scale) * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def layer_norm_64(x, scale, bias, *, eps):
    """(x - E[x]) / sqrt(Var[x] + eps) * g + b with the population's variance, Ba et al. 2016, equation 4, with eps."""
    x = np.float64(x)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * np.float64(scale) + np.float64(bias)


SCALE_D, BIAS_D = 1 + numbers(1, D, std=0.3), numbers(2, D)
NORMS_64 = {"rmsnorm": lambda x, *, eps: rms_norm_64(x, SCALE_D, eps=eps),
            "layernorm": lambda x, *, eps: layer_norm_64(x, SCALE_D, BIAS_D, eps=eps)}


def test_every_norm_is_compared():
    assert NORMS_64.keys() == NORMS.keys()


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 0.5])
@pytest.mark.parametrize("std", [1.0, 1e-3, 30.0])  # at 1e-3 the square is 1e-6, so that eps counts
def test_norms_are_their_equations(std, eps):
    x = numbers(0, 5, 3, D, std=std) + np.float32(std)
    check(rms_norm(jnp.asarray(x), SCALE_D, eps=eps), NORMS_64["rmsnorm"](x, eps=eps))
    check(layer_norm(jnp.asarray(x), SCALE_D, BIAS_D, eps=eps), NORMS_64["layernorm"](x, eps=eps))
    check(RMSNorm(eps=eps).apply({"params": {"scale": SCALE_D}}, x), NORMS_64["rmsnorm"](x, eps=eps))
    check(LayerNorm(eps=eps).apply({"params": {"scale": SCALE_D, "bias": BIAS_D}}, x), NORMS_64["layernorm"](x, eps=eps))


def test_a_mean_far_from_zero_costs_no_more_than_its_rounding():
    """Of 1000, float32's is up to 6e-5; a variance as E[x^2] - E[x]^2 would be off by 6%."""
    x = numbers(0, 5, D) + np.float32(1000)
    found = layer_norm(jnp.asarray(x), SCALE_D, BIAS_D, eps=1e-5)
    np.testing.assert_allclose(found, NORMS_64["layernorm"](x, eps=1e-5), atol=3e-4)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("given", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_norms_are_computed_in_float32_and_rounded_once(name, given, dtype, param_dtype):
    module = NORMS[name](dtype=dtype, param_dtype=param_dtype)
    x = jnp.asarray(numbers(0, 4, D), given)
    made = module.init(jax.random.key(0), x)["params"]
    assert all(leaf.dtype == param_dtype for leaf in made.values())
    params = {leaf: jnp.asarray(value, param_dtype) for leaf, value in {"scale": SCALE_D, "bias": BIAS_D}.items() if leaf in made}
    found = module.apply({"params": params}, x)
    assert found.dtype == (dtype or given)
    of = {leaf: np.float64(value) for leaf, value in params.items()}
    wanted = (rms_norm_64(x, of["scale"], eps=1e-5) if name == "rmsnorm"
              else layer_norm_64(x, of["scale"], of["bias"], eps=1e-5))
    if found.dtype == jnp.float32:
        check(found, wanted)
    else:  # within half a unit of the last of bfloat16's 8 bits
        np.testing.assert_allclose(np.float64(found), wanted, rtol=2**-8 * (1 + 1e-4), atol=1e-6)


@np.vectorize
def cumulative(x: float) -> float:
    """The standard normal's cumulative distribution."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.where(x > 0, x, 0.0)


def gelu(x):
    return x * cumulative(x)


def swish(x):
    return x * sigmoid(x)


PLAIN = {"relu": relu, "gelu": gelu, "swish": swish}
GATES = {"glu": sigmoid, "bilinear": lambda x: x, "reglu": relu, "geglu": gelu, "swiglu": swish}


def feedforward_64(kind: str, x, p: dict) -> np.ndarray:
    """Shazeer 2020, equations 1 to 6: FFN(x) = act(x W_1) W_2, or (act(x W) * x V) W_2; biases where p has them."""
    p = {name: np.float64(value) for name, value in p.items()}
    up = np.float64(x) @ p["w_up"] + p.get("b_up", 0)
    hidden = PLAIN[kind](up) if kind in PLAIN else GATES[kind](np.float64(x) @ p["w_gate"] + p.get("b_gate", 0)) * up
    return hidden @ p["w_down"] + p.get("b_down", 0)


def test_every_kind_of_feedforward_is_compared():
    assert {*PLAIN, *GATES} == {*FEEDFORWARDS} and len(FEEDFORWARDS) == 8


@pytest.mark.parametrize("kind", FEEDFORWARDS)
def test_functions_of_feedforward_kinds_are_their_equations(kind):
    """Also where an activation is steep, flat, or nearly zero."""
    gate = np.concatenate([numbers(0, 200, std=2.0), np.linspace(-9, 9, 73, dtype=np.float32), np.zeros(1, np.float32)])
    up = numbers(1, gate.size)
    found = FEEDFORWARDS[kind].combine(*((gate,) if kind in PLAIN else (gate, up)))
    check(found, PLAIN[kind](np.float64(gate)) if kind in PLAIN else GATES[kind](np.float64(gate)) * np.float64(up))


def test_gelu_is_exact():
    """Not the approximation by tanh, which differs by up to 5e-4."""
    x = np.linspace(-4, 4, 201)
    by_tanh = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.abs(by_tanh - gelu(x)).max() > 4e-4
    check(FEEDFORWARDS["gelu"].combine(jnp.asarray(x, jnp.float32)), gelu(np.float64(np.float32(x))))


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", FEEDFORWARDS)
def test_feedforward_layers_are_their_equations(kind, use_bias):
    module, x = FeedForward(F, kind=kind, use_bias=use_bias), numbers(0, 4, 3, D)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    matrices = {"w_up": (D, F), "w_down": (F, D)} | ({"w_gate": (D, F)} if kind in GATES else {})
    biases = {name.replace("w_", "b_"): shape[1:] for name, shape in matrices.items()} if use_bias else {}
    assert {name: leaf.shape for name, leaf in shapes.items()} == matrices | biases
    params = {name: numbers(n, *shape, std=0.5 * shape[0] ** -0.5 if len(shape) > 1 else 0.5)
              for n, (name, shape) in enumerate(sorted((matrices | biases).items()))}
    found = module.apply({"params": params}, x)
    check(found, feedforward_64(kind, x, params))
    if use_bias:
        without = {name: value for name, value in params.items() if name in matrices}
        assert np.abs(found - feedforward_64(kind, x, without)).max() > 0.1


@pytest.mark.parametrize("kind", FEEDFORWARDS)
@pytest.mark.parametrize(("dim", "ffn_dim"), [(512, 2048), (768, 3072), (24, 36), (4096, 4 * 4096)])
def test_equal_width_has_equal_weights(kind, dim, ffn_dim):
    """As many as the ReLU layer's, to the rounding up of the width; Shazeer's own are 3072 and 2048."""
    def weights(kind, width):
        return dim * width * (len(FEEDFORWARDS[kind].projections) + 1)

    width = equal_width(ffn_dim, kind)
    assert width == (math.ceil(2 * ffn_dim / 3) if kind in GATES else ffn_dim)
    assert 0 <= weights(kind, width) - weights("relu", ffn_dim) < weights(kind, 1)
    assert 0 <= weights("relu", equal_width(ffn_dim, "relu", like=kind)) - weights(kind, ffn_dim) < weights("relu", 1)


def test_equal_width_gives_the_papers_widths():
    assert equal_width(3072, "geglu") == 2048  # Shazeer 2020, section 3.1
    path = path_to_llama()
    assert path["llama"].ffn_dim == equal_width(path["vanilla"].ffn_dim, "swiglu", multiple_of=8)
    wanted = {4096: 11_008, 5120: 13_824, 6656: 17_920, 8192: 22_016}  # LLaMA's four sizes
    assert {dim: equal_width(4 * dim, "swiglu", multiple_of=256) for dim in wanted} == wanted
    assert equal_width(10, "relu", multiple_of=8) == 16 and equal_width(16, "relu", multiple_of=8) == 16


def test_a_kind_that_does_not_exist_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown kind of feed-forward layer 'swighlu'; did you mean swiglu"):
        feedforward_kind("swighlu")
    with pytest.raises(ConfigError, match="unknown kind of feed-forward layer 'gelu_tanh'; did you mean gelu"):
        equal_width(8, "gelu_tanh")
