"""Matrix products x @ w whose forward and backward passes accumulate in float32, in the form each platform runs fastest."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from llama_jax.ops.derivatives import only_gradients
from llama_jax.ops.varying import explicit_sharding, product_sharding, vary_alike

PARTS = 4
"""Number of partial sums in which a CPU computes the product of a single vector with a matrix."""


def _dot(
    a: Array, b: Array, *, axes: tuple[tuple[int, ...], tuple[int, ...]], sharding: NamedSharding | None = None
) -> Array:
    """Contract `axes` (of a, of b), accumulating in float32; `sharding` is the result's where shardings are explicit."""
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32, out_sharding=sharding)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8:
    """A matrix quantized to 8 bits: values * scales, with one scale per output channel."""

    values: Array
    """Quantized values, int8, shaped like the matrix."""
    scales: Array
    """Scale of each output channel, float32, shaped like the matrix's output axes."""


def quantize(w: Array, *, contract: int = 1) -> Int8:
    """Quantize a matrix to int8 with one absmax scale per output channel; its first `contract` axes are inputs."""
    inputs = tuple(range(contract))
    scales = jnp.maximum(jnp.max(jnp.abs(w), axis=inputs).astype(jnp.float32), 1e-30) / 127
    values = jnp.round(w / jnp.expand_dims(scales, inputs)).astype(jnp.int8)
    return Int8(values, scales)


def linear(x: Array, w: Array | Int8, *, contract: int = 1, out_dtype: DTypeLike | None = None) -> Array:
    """Matrix product x @ w: contracts the last `contract` axes of x with the first of w; in out_dtype (default: x's dtype).

    The float32 parameter w is cast to x's dtype for the product, but its gradient stays float32. An Int8 has no gradient.
    """
    if isinstance(w, Int8):
        out = _product(x, w.values.astype(x.dtype), contract=contract)
        return (out * jnp.expand_dims(w.scales, tuple(range(out.ndim - w.scales.ndim)))).astype(out_dtype or x.dtype)
    out_dtype = jnp.dtype(out_dtype or x.dtype)
    if not only_gradients():
        return _product(x, jnp.asarray(w).astype(x.dtype), contract=contract).astype(out_dtype)
    return _linear(*vary_alike(x, jnp.asarray(w)), contract, out_dtype)


def add_bias(x: Array, bias: Array) -> Array:
    """Add a bias with the shape of the last axes of x; returned in x's dtype, but added, and its gradient summed, in float32."""
    bias = jnp.expand_dims(bias.astype(jnp.float32), tuple(range(x.ndim - bias.ndim)))
    return (x.astype(jnp.float32) + bias).astype(x.dtype)


def _product(x: Array, w: Array, *, contract: int) -> Array:
    axes = tuple(range(x.ndim - contract, x.ndim)), tuple(range(contract))
    return _dot(x, w, axes=axes, sharding=product_sharding(x, w, contract=contract))


def _vector_product(x: Array, w: Array, *, contract: int) -> Array:
    """Compute `_product` for a single vector as a sum over parts, with which XLA on CPU reads w a fifth faster."""
    x_PK = x.reshape(PARTS, -1)
    parts_PO = jnp.einsum("PK,PKO->PO", x_PK, w.reshape(*x_PK.shape, -1), preferred_element_type=jnp.float32)
    return parts_PO.sum(axis=0).reshape(x.shape[: x.ndim - contract] + w.shape[contract:])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _linear(x: Array, w: Array, contract: int, out_dtype: jnp.dtype) -> Array:
    product, w = partial(_product, contract=contract), w.astype(x.dtype)
    if math.prod(x.shape[: x.ndim - contract]) != 1 or x.size % PARTS or explicit_sharding(x) is not None:
        return product(x, w).astype(out_dtype)
    return lax.platform_dependent(x, w, cpu=partial(_vector_product, contract=contract), default=product).astype(out_dtype)


def _forward(x: Array, w: Array, contract: int, out_dtype: jnp.dtype):
    return _linear(x, w, contract, out_dtype), (x, w)


def weight_gradient(x: Array, g: Array, *, batch: int, sharding: NamedSharding | None = None) -> Array:
    """Gradient of a weight matrix: outer products of x and g summed over their first `batch` axes, float32 (x axes, g axes)."""
    axes = tuple(range(batch))

    def explicit_transpose(x: Array, g: Array) -> Array:
        # XLA's CPU matmul is up to twice as fast when its first operand is not transposed on the fly.
        inner_first = lax.optimization_barrier(x.transpose(*range(batch, x.ndim), *axes))
        return _dot(inner_first, g, axes=(tuple(range(x.ndim - batch, x.ndim)), axes), sharding=sharding)

    plain = partial(_dot, axes=(axes, axes), sharding=sharding)
    return lax.platform_dependent(x, g, cpu=explicit_transpose, default=plain)


def _backward(contract: int, out_dtype: jnp.dtype, saved, g: Array):
    x, w = saved
    g = g.astype(x.dtype)
    outputs = tuple(range(g.ndim - w.ndim + contract, g.ndim))
    dx = _dot(g, w.astype(x.dtype), axes=(outputs, tuple(range(contract, w.ndim))), sharding=explicit_sharding(x))
    dw = weight_gradient(x, g, batch=x.ndim - contract, sharding=explicit_sharding(w))
    return dx.astype(x.dtype), dw.astype(w.dtype)


_linear.defvjp(_forward, _backward)
