"""Vectors on keys and values by distance, without a vector per pair of tokens (Shaw et al. 2018, section 3.3).

A query has R products with the vectors of R distances, of which each key picks one; the weights of a query are summed per
distance before they multiply the vectors on values. Arrays have any leading axes, against which distances broadcast; distances
are clipped to [0, R - 1].
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


def pick_by_distance(x_TR: Array, distance_TS: Array) -> Array:
    """Take the number of each pair's distance, (..., T, R) -> (..., T, S)."""
    return jnp.take_along_axis(x_TR, jnp.clip(distance_TS, 0, x_TR.shape[-1] - 1), axis=-1)


def sum_by_distance(x_TS: Array, distance_TS: Array, *, count: int) -> Array:
    """Sum the numbers of pairs with the same distance, (..., T, S) -> (..., T, R) for R = `count`."""
    index_TS = jnp.clip(distance_TS, 0, count - 1)

    @jax.checkpoint  # else the backward pass would keep all R masks (..., T, S)
    def of_distance(r: Array) -> Array:
        return jnp.where(index_TS == r, x_TS, 0).sum(-1)

    sums_RT = lax.map(of_distance, jnp.arange(count))
    return jnp.moveaxis(sums_RT, 0, -1)


def relative_scores(q_TH: Array, relative_RH: Array, *, distance_TS: Array) -> Array:
    """Products of queries (..., T, H) with the vectors that are added to keys, float32 (..., T, S); not scaled."""
    products_TR = jnp.einsum("...TH,RH->...TR", q_TH, relative_RH.astype(q_TH.dtype), preferred_element_type=jnp.float32)
    return pick_by_distance(products_TR, distance_TS)


def relative_output(weights_TS: Array, relative_RH: Array, *, distance_TS: Array) -> Array:
    """What the vectors that are added to values contribute, float32 (..., T, H), under the weights (..., T, S)."""
    sums_TR = sum_by_distance(weights_TS, distance_TS, count=relative_RH.shape[0])
    return jnp.einsum("...TR,RH->...TH", sums_TR, relative_RH.astype(jnp.float32))
