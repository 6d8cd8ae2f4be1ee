"""Attention on a device mesh, where every device computes its own rows and heads."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from llama_jax.ops.attention import attend, choose, spec_of_arrays
from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.masks import Mask
from llama_jax.ops.varying import explicit_axes, explicit_sharding
from llama_jax.parallel.rules import axis_sizes, constrain, fitting, mesh_in_use, ways


def attend_over_mesh(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str, *, bias: Bias = NO_BIAS
) -> Array:
    """Compute what `ops.attention.attend` does on the mesh in use, where every device takes its own rows and heads.

    Attention needs whole rows, which the `sequence` axis splits. Where heads divide over that axis too, an all-to-all exchanges
    tokens for heads (DeepSpeed-Ulysses, Jacobs et al. 2023); else each device keeps its slice of the queries and gathers the
    keys and values of the whole row.
    """
    mesh = mesh_in_use()
    if mesh is None:
        return _attend_beside_explicit_axes(q_BTNH, k_BSKH, v_BSKH, mask, impl, bias=bias)
    sliced = is_sliced(q_BTNH.shape[2], k_BSKH.shape[2], mesh=mesh) and q_BTNH.shape[1] % ways("seq", mesh) == 0
    impl, _ = choose(impl, spec_of_arrays(q_BTNH, k_BSKH, v_BSKH, mask=mask, bias=bias, sliced=sliced))  # before the split
    tokens, heads = ("seq", "kv_heads") if sliced else (None, "exchanged_heads")
    keys = fitting(k_BSKH.shape, "batch", None, heads, None)
    fits = heads if keys[2] else None  # queries lie with their keys
    queries = fitting(q_BTNH.shape, "batch", tokens, fits, None)
    of_tokens = jax.tree.map(lambda ids_BT: fitting(ids_BT.shape, "batch", None), mask)
    by_suffix = {"BT": lambda x: fitting(x.shape, "batch", None), "N": lambda x: PartitionSpec(queries[2]),
                 "RH": lambda x: PartitionSpec()}
    # newer jax cannot add a gradient in place (`TrainingConfig.accumulation_steps`) to an array that goes to all devices as it is
    bias = jax.tree.map(jnp.copy, bias)
    of_bias = jax.tree.map_with_path(lambda path, x: by_suffix[path[-1].name.rpartition("_")[2]](x), bias)

    @partial(jax.shard_map, in_specs=(queries, keys, keys, of_tokens, of_bias), out_specs=queries, check_vma=False,
             axis_names=set(axis_sizes(mesh)))
    def on_device(q_BTNH: Array, *rest) -> Array:
        k_BSKH, v_BSKH, mask, bias = rest
        first = lax.axis_index("sequence") * q_BTNH.shape[1] if sliced else None
        return attend(q_BTNH, k_BSKH, v_BSKH, mask, impl, bias=bias, first=first)

    return constrain(on_device(q_BTNH, k_BSKH, v_BSKH, mask, bias), "batch", "seq", "heads", "head_dim")


def _attend_beside_explicit_axes(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str, *, bias: Bias
) -> Array:
    """Call `attend`; where shardings are part of array types (`AxisType.Explicit`), the compiler chooses them inside it."""
    as_queries = explicit_sharding(q_BTNH)
    if as_queries is None:
        return attend(q_BTNH, k_BSKH, v_BSKH, mask, impl, bias=bias)

    def attend_here(q_BTNH: Array, k_BSKH: Array, *rest) -> Array:
        v_BSKH, mask, bias = rest
        return attend(q_BTNH, k_BSKH, v_BSKH, mask, impl, bias=bias)

    return jax.sharding.auto_axes(attend_here, axes=explicit_axes(as_queries), out_sharding=as_queries)(
        q_BTNH, k_BSKH, v_BSKH, mask, bias)


def is_sliced(num_heads: int, num_kv_heads: int, *, mesh: Mesh | AbstractMesh) -> bool:
    """Whether each device computes only a slice of the queries, because heads do not divide over the sequence axis too."""
    exchanged = ways("exchanged_heads", mesh)
    return ways("seq", mesh) > 1 and (num_heads % exchanged > 0 or num_kv_heads % exchanged > 0)
