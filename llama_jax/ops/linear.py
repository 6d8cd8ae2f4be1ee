"""Matrix products x @ w whose forward and backward passes accumulate in float32, in the form each platform runs fastest."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, get_abstract_mesh
from jax.typing import DTypeLike

from llama_jax.ops.derivatives import only_gradients
from llama_jax.ops.varying import explicit_sharding, product_sharding, vary_alike

PARTS = 4
"""Number of partial sums in which a CPU computes the product of a single vector with a matrix."""
WIDENED = 1 << 22
"""Most values of a matrix of 8 bits that a CPU widens at one time. XLA would widen whole matrices, all of a model's outside of
the loop over tokens: four times the memory of the matrices, and three times the time of a token."""


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
        whole = partial(_widened_product, contract=contract)
        in_blocks = whole if explicit_sharding(x) is not None or get_abstract_mesh().size > 1 else partial(
            _product_in_blocks, contract=contract)
        out = lax.platform_dependent(x, w.values, cpu=in_blocks, default=whole)
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


def _widened_product(x: Array, values: Array, *, contract: int) -> Array:
    return _product(x, values.astype(x.dtype), contract=contract)


def _product_in_blocks(x: Array, values: Array, *, contract: int) -> Array:
    """`_widened_product` as a sum over two or more blocks of at most WIDENED values of the matrix."""
    x_NK, w_KO = x.reshape(-1, math.prod(values.shape[:contract])), values.reshape(-1, math.prod(values.shape[contract:]))
    (N, K), O = x_NK.shape, w_KO.shape[1]
    size = max(n for n in range(1, K) if K % n == 0 and (n == 1 or n * O <= WIDENED)) if K > 1 else 1
    rows_NK = jnp.broadcast_to(x_NK, (2, K)) if N == 1 and x.dtype == jnp.bfloat16 else x_NK  # as in _product_of_two_rows

    def add_block(n: Array, sum_NO: Array) -> Array:
        block = (lax.dynamic_slice_in_dim(array, n * size, size, axis) for array, axis in ((rows_NK, 1), (w_KO, 0)))
        return sum_NO + _widened_product(*block, contract=1)

    sum_NO = lax.fori_loop(0, K // size, add_block, jnp.zeros((len(rows_NK), O), jnp.float32))
    return sum_NO[:N].reshape(x.shape[: x.ndim - contract] + values.shape[contract:])


def _product_of_two_rows(x: Array, w: Array, *, contract: int) -> Array:
    """`_product` for a single vector in bfloat16, as the first of two equal rows: for one row, XLA on CPU widens the matrix."""
    rows = jnp.broadcast_to(x.reshape(1, *x.shape[x.ndim - contract:]), (2, *x.shape[x.ndim - contract:]))
    return _product(rows, w, contract=contract)[0].reshape(x.shape[: x.ndim - contract] + w.shape[contract:])


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
    of_vector = _product_of_two_rows if x.dtype == jnp.bfloat16 else _vector_product
    return lax.platform_dependent(x, w, cpu=partial(of_vector, contract=contract), default=product).astype(out_dtype)


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
