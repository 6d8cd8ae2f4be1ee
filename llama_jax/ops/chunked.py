"""The portable blockwise backend: online softmax over tiles, causal tiles only, forward and backward.

Neither the T x T weights nor the scores above the diagonal exist at any time (section 2.4; Rabe & Staats 2021;
Dao et al. 2022), except in short rows, whose forward pass is unrolled and may hold the weights of all its tiles at once. Tiles
are C x C; query tile i visits key tiles 0..i.
Inside this module queries are (B, K, G, T, H) and keys (B, K, T, H), so that every product is a plain batched matmul.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.bias import BIAS_FIELDS, NO_BIAS, Bias
from llama_jax.ops.masks import Mask
from llama_jax.ops.reference import MASKED
from llama_jax.ops.relative import relative_output, relative_scores, sum_by_distance
from llama_jax.ops.varying import vary_alike

KNOWS = frozenset({"mask.segment_ids_BT", "mask.ends_BT", *BIAS_FIELDS})
"""Fields of `Mask` and `Bias` that this backend supports: all."""

LOWEST = MASKED / 2
"""Initial value of the running maximum of a query's scores. Only masked scores lie below it, so that their weights are exactly
0, also for a query that may see no key at all."""

SMALLEST_SUM = 1e-30
"""Lower bound of the sum of weights that is divided by, so that a query that may see no key gets zeros."""

SHORT = 512
"""Longest row, in tokens, whose forward pass needs no online softmax: each tile of queries reads all its keys at once."""

dot = partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend_chunked(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, bias: Bias = NO_BIAS,
    first: Array | None = None, chunk: int | None = None,
) -> Array:
    """Compute what `attend_reference` does, blockwise in tiles of `chunk` tokens (default: T / 4, between 64 and 512).

    Rows are padded at their end to a multiple of `chunk`. A slice of a row (`first`) is never padded; its tiles get a length
    that divides it.
    """
    mask.only(KNOWS, "the chunked backend")
    bias.only(KNOWS, "the chunked backend")
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    chunk = min(T, chunk or min(512, max(64, T // 4)))
    if first is not None:
        chunk = next(size for size in range(chunk, 0, -1) if T % size == 0)
    padding = -T % chunk  # padded keys lie after every real query: causality hides them

    def pad(x: Array, axis: int) -> Array:
        return jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)]) if padding else x

    q_BKGTH = pad(q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4), 3)
    k_BKSH, v_BKSH = (pad(x.transpose(0, 2, 1, 3), 2) for x in (k_BSKH, v_BSKH))
    mask = jax.tree.map(lambda ids_BT: pad(ids_BT, 1), mask)
    first_tile = None if first is None else first // chunk
    arrays, structure = jax.tree.flatten((q_BKGTH, k_BKSH, v_BKSH, mask, bias.padded(padding), first_tile))
    out_BKGTH = _attend(*jax.tree.unflatten(structure, vary_alike(*arrays)), chunk)
    return out_BKGTH[:, :, :, :T].transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _tile(x: Array, index: Array, *, chunk: int, axis: int) -> Array:
    """Tile number `index` of x along an axis."""
    return lax.dynamic_slice_in_dim(x, index * chunk, chunk, axis)


def _scores(
    q: Array, k: Array, *, mask: Mask, bias: Bias, q_first: Array | int, k_first: Array | int
) -> tuple[Array, Array]:
    """Scaled, biased and masked float32 scores (B, K, G, T, S) of a block of a row, and its distances (B or 1, T, S).

    The block has T queries from index q_first on, and S keys from index k_first on.
    """
    T, S = q.shape[3], k.shape[2]
    q_index, k_index = q_first + jnp.arange(T), k_first + jnp.arange(S)
    visible = Mask.block(q_index, k_index, q=mask.tile(q_first, T), k=mask.tile(k_first, S))
    distance = bias.distance(q_index, k_index)
    scores = bias.scaled_scores(dot("BKGTH,BKSH->BKGTS", q, k), q, distance_BTS=distance)
    return jnp.where(visible[:, None, None], scores, MASKED), distance


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attend(q: Array, k: Array, v: Array, mask: Mask, bias: Bias, first: Array | None, chunk: int) -> Array:
    """Attention over tiles; `first` is the number of the tile in which the queries begin."""
    return _forward(q, k, v, mask, bias, first, chunk)[0]


def _forward(q: Array, k: Array, v: Array, mask: Mask, bias: Bias, first: Array | None, chunk: int):
    B, K, G, T, H = q.shape
    if first is None and T <= SHORT:
        tiles = [_short_tile(q, k, v, mask=mask, bias=bias, begin=begin, end=begin + chunk) for begin in range(0, T, chunk)]
        out, log_norm = (jnp.concatenate(parts, axis=3) for parts in zip(*tiles, strict=True))
        return out, (q, k, v, mask, bias, first, out, log_norm)

    def query_tile(i: Array) -> tuple[Array, Array]:
        q_i = _tile(q, i, chunk=chunk, axis=3)
        i = i if first is None else first + i

        def key_tile(j: Array, carry):
            total, top, norm = carry
            scores, distance = _scores(q_i, _tile(k, j, chunk=chunk, axis=2), mask=mask, bias=bias, q_first=i * chunk,
                                       k_first=j * chunk)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            shrink = jnp.exp(top - new_top)
            value = dot("BKGTS,BKSH->BKGTH", weights.astype(v.dtype), _tile(v, j, chunk=chunk, axis=2))
            value = bias.with_relative_values(value, weights, distance_BTS=distance)
            return total * shrink[..., None] + value, new_top, norm * shrink + weights.sum(-1)

        start = (jnp.zeros((B, K, G, chunk, H), jnp.float32), jnp.full((B, K, G, chunk), LOWEST, jnp.float32),
                 jnp.zeros((B, K, G, chunk), jnp.float32))
        _, *start = vary_alike(q, *start)
        total, top, norm = lax.fori_loop(0, i + 1, key_tile, tuple(start))
        norm = jnp.maximum(norm, SMALLEST_SUM)
        return (total / norm[..., None]).astype(q.dtype), top + jnp.log(norm)

    out, log_norm = lax.map(query_tile, jnp.arange(T // chunk))
    out = jnp.moveaxis(out, 0, 3).reshape(B, K, G, T, H)
    log_norm = jnp.moveaxis(log_norm, 0, 3).reshape(B, K, G, T)
    return out, (q, k, v, mask, bias, first, out, log_norm)


def _short_tile(q: Array, k: Array, v: Array, *, mask: Mask, bias: Bias, begin: int, end: int) -> tuple[Array, Array]:
    """Outputs of the queries begin .. end - 1, and the logarithms of the sums that their softmax divides by."""
    scores, distance = _scores(q[:, :, :, begin:end], k[:, :, :end], mask=mask, bias=bias, q_first=begin, k_first=0)
    top = jnp.maximum(scores.max(-1), LOWEST)
    weights = jnp.exp(scores - top[..., None])
    norm = jnp.maximum(weights.sum(-1), SMALLEST_SUM)
    value = dot("BKGTS,BKSH->BKGTH", weights.astype(v.dtype), v[:, :, :end])
    value = bias.with_relative_values(value, weights, distance_BTS=distance)
    return (value / norm[..., None]).astype(q.dtype), top + jnp.log(norm)


def _backward(chunk: int, saved, d_out: Array):
    q, k, v, mask, bias, first, out, log_norm = saved
    T, H = q.shape[3:]
    start = 0 if first is None else first
    scale = H**-0.5
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1)

    def key_tile(carry, j: Array):
        k_j, v_j = _tile(k, j, chunk=chunk, axis=2), _tile(v, j, chunk=chunk, axis=2)

        def query_tile(i: Array, carry):
            dq, d_bias, dk, dv = carry
            q_i, d_out_i = _tile(q, i, chunk=chunk, axis=3), _tile(d_out, i, chunk=chunk, axis=3)
            scores, distance = _scores(q_i, k_j, mask=mask, bias=bias, q_first=(start + i) * chunk, k_first=j * chunk)
            weights = jnp.exp(scores - _tile(log_norm, i, chunk=chunk, axis=3)[..., None])
            dv += dot("BKGTS,BKGTH->BKSH", weights.astype(v.dtype), d_out_i)
            d_weights = dot("BKGTH,BKSH->BKGTS", d_out_i, v_j)
            if bias.relative_values_RH is not None:
                d_weights += relative_scores(d_out_i, bias.relative_values_RH, distance_TS=distance[:, None, None])
            delta_i = _tile(delta, i, chunk=chunk, axis=3)
            d_scores = (weights * (d_weights - delta_i[..., None]) * scale).astype(q.dtype)
            dk += dot("BKGTS,BKGTH->BKSH", d_scores, q_i)
            dq_i = _tile(dq, i, chunk=chunk, axis=3) + dot("BKGTS,BKSH->BKGTH", d_scores, k_j)
            if bias.relative_keys_RH is not None:
                dq_i += relative_output(d_scores, bias.relative_keys_RH, distance_TS=distance[:, None, None])
            d_bias = _add_vector_gradients(d_bias, (d_scores, q_i), (weights, d_out_i), distance=distance)
            return lax.dynamic_update_slice_in_dim(dq, dq_i, i * chunk, 3), d_bias, dk, dv

        _, zero = vary_alike(q, jnp.zeros(k_j.shape, jnp.float32))
        earliest = j if first is None else jnp.maximum(j - first, 0)
        *carry, dk, dv = lax.fori_loop(earliest, T // chunk, query_tile, (*carry, zero, zero))
        return tuple(carry), (dk.astype(k.dtype), dv.astype(v.dtype))

    vectors = Bias(relative_keys_RH=bias.relative_keys_RH, relative_values_RH=bias.relative_values_RH)
    zeros, structure = jax.tree.flatten((q, vectors))
    _, *zeros = vary_alike(q, *(jnp.zeros(x.shape, jnp.float32) for x in zeros))
    (dq, d_bias), (dk, dv) = lax.scan(key_tile, jax.tree.unflatten(structure, zeros), jnp.arange(k.shape[2] // chunk))
    dk, dv = (jnp.moveaxis(x, 0, 2).reshape(k.shape) for x in (dk, dv))
    d_bias = jax.tree.map(lambda d, x: d.astype(x.dtype), d_bias, vectors)
    return dq.astype(q.dtype), dk, dv, None, d_bias, None


def _add_vector_gradients(
    d_bias: Bias, of_keys: tuple[Array, Array], of_values: tuple[Array, Array], *, distance: Array
) -> Bias:
    """Add a block's share to the gradients of the relative vectors: numbers (..., T, S), summed per distance, times rows.

    These are gradients of scores and queries for the vectors on keys, weights and gradients of outputs for those on values.
    """
    def plus(d_RH: Array | None, pair: tuple[Array, Array]) -> Array | None:
        if d_RH is None:
            return None
        sums_BKGTR = sum_by_distance(pair[0], distance[:, None, None], count=d_RH.shape[0])
        return d_RH + dot("BKGTR,BKGTH->RH", sums_BKGTR, pair[1].astype(jnp.float32))

    return Bias(relative_keys_RH=plus(d_bias.relative_keys_RH, of_keys),
                relative_values_RH=plus(d_bias.relative_values_RH, of_values))


_attend.defvjp(_forward, _backward)
