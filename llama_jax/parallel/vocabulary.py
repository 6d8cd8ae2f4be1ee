"""The embedding lookup on a mesh over which the vocabulary is sharded."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from llama_jax.ops.varying import explicit_sharding
from llama_jax.parallel.rules import as_tuple, axis_sizes, fitting, mesh_axes, mesh_in_use, ways


def look_up(table_VD: Array, tokens_BT: Array, *, dtype: DTypeLike) -> Array:
    """Look up the rows of an embedding table for token ids, (B, T, D) in `dtype`; its gradient accumulates in float32.

    An id outside [0, V) gives NaN, because a compiled program cannot raise and another token's row would go unnoticed. A table
    sharded over `tensor` is not gathered: each device looks up the tokens of its own shard and takes zeros for the others, and a
    reduce-scatter over the tokens of the residual stream adds them up.
    """
    mesh = mesh_in_use()
    if mesh is None:
        return _rows_of(table_VD, tokens_BT).astype(dtype)
    tokens = fitting(tokens_BT.shape, "batch", "seq")
    split = {axis for axes in tokens for axis in as_tuple(axes)}
    # columns are gathered only over axes that split tokens too, over which the table's gradient has to be summed anyway
    table = fitting(table_VD.shape, "vocab", "embed" if set(mesh_axes("embed")) <= split else None)
    vocabulary = table_VD.shape[0]
    scattered = bool(table[0]) and tokens_BT.shape[1] % ways("stream", mesh) == 0
    stream = fitting(tokens_BT.shape, "batch", "stream") if scattered else tokens

    @partial(jax.shard_map, in_specs=(table, tokens), out_specs=stream, axis_names=set(axis_sizes(mesh)))
    def on_device(table_VD: Array, tokens_BT: Array) -> Array:
        # in this order, so that its gradient is scattered as it is summed, and only then summed over the other devices
        table_VD = lax.pcast(table_VD, tuple(split - set(as_tuple(table[1]))), to="varying")
        table_VD = lax.all_gather(table_VD, as_tuple(table[1]), axis=1, tiled=True)
        if not table[0]:
            return _rows_of(table_VD, tokens_BT).astype(dtype)
        own_BT = tokens_BT - lax.axis_index("tensor") * table_VD.shape[0]
        here_BT = (own_BT >= 0) & (own_BT < table_VD.shape[0])
        elsewhere_BT = jnp.where((tokens_BT >= 0) & (tokens_BT < vocabulary), 0.0, jnp.nan).astype(dtype)
        x_BTD = table_VD[jnp.where(here_BT, own_BT, 0)].astype(dtype)
        x_BTD = jnp.where(here_BT[..., None], x_BTD, elsewhere_BT[..., None])
        if scattered:
            return lax.psum_scatter(x_BTD, "tensor", scatter_dimension=1, tiled=True)
        return lax.psum(x_BTD, "tensor")

    return on_device(table_VD, tokens_BT)


def _rows_of(table_VD: Array, ids: Array) -> Array:
    """table_VD[ids] with NaN for ids outside of [0, V), for which indexing would take the nearest row or count from the end."""
    like_ids = explicit_sharding(ids)
    place = None if like_ids is None else NamedSharding(like_ids.mesh, PartitionSpec(*like_ids.spec, None))
    table_VD = jnp.asarray(table_VD)
    if table_VD.dtype.itemsize == 2 and place is None:
        return _rows_of_two_bytes(table_VD, ids)
    return _filled_rows(table_VD, ids, fill_value=jnp.nan, out_sharding=place)


def _filled_rows(table_VD: Array, ids: Array, **options: Any) -> Array:
    return table_VD.at[ids].get(mode="fill", wrap_negative_indices=False, **options)


@jax.custom_jvp
def _rows_of_two_bytes(table_VD: Array, ids: Array) -> Array:
    """`_rows_of` by the bits: XLA on CPU would keep a float32 copy of a table in bfloat16, outside of the loop over tokens."""
    missing = np.array(np.nan, table_VD.dtype).view(np.uint16).item()
    rows = _filled_rows(lax.bitcast_convert_type(table_VD, jnp.uint16), ids, fill_value=missing)
    return lax.bitcast_convert_type(rows, table_VD.dtype)


@_rows_of_two_bytes.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    return _rows_of_two_bytes(*primals), _filled_rows(tangents[0], primals[1], fill_value=0)
