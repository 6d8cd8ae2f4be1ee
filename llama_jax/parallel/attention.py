"""Attention on a mesh: every device computes on its own rows and heads."""

from functools import partial

import jax
from jax import Array, lax

from llama_jax.ops.attention import attend, choose, problem_of
from llama_jax.ops.masks import Mask
from llama_jax.parallel.rules import constrain, fitting, ways


def attend_over_mesh(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, impl: str) -> Array:
    """As `attend`, every device of the mesh in use on its own rows and heads.

    Attention needs whole rows, which a sequence axis cuts. Where heads divide over that axis too, devices exchange tokens
    for heads (Jacobs et al. 2023); else each keeps its slice of the queries and gathers the keys of the row.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend(q_BTNH, k_BSKH, v_BSKH, mask, impl)
    sliced = is_sliced(q_BTNH.shape[2], k_BSKH.shape[2], mesh) and q_BTNH.shape[1] % ways("seq", mesh) == 0
    impl, _ = choose(impl, problem_of(q_BTNH, k_BSKH, v_BSKH, mask, sliced=sliced))  # asked before anything is split
    tokens, heads = ("seq", "kv_heads") if sliced else (None, "exchanged_heads")
    keys = fitting(k_BSKH.shape, "batch", None, heads, None)
    fits = heads if keys[2] else None  # queries lie with their keys
    queries = fitting(q_BTNH.shape, "batch", tokens, fits, None)
    ids = jax.tree.map(lambda ids_BT: fitting(ids_BT.shape, "batch", None), mask)

    @partial(jax.shard_map, in_specs=(queries, keys, keys, ids), out_specs=queries, check_vma=False)
    def on_device(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask) -> Array:
        first = lax.axis_index("sequence") * q_BTNH.shape[1] if sliced else None
        return attend(q_BTNH, k_BSKH, v_BSKH, mask, impl, first=first)

    return constrain(on_device(q_BTNH, k_BSKH, v_BSKH, mask), "batch", "seq", "heads", "head_dim")


def is_sliced(num_heads: int, num_kv_heads: int, mesh) -> bool:
    """Whether the sequence axis leaves each device a slice of the queries, because heads do not divide over it too."""
    exchanged = ways("exchanged_heads", mesh)
    return ways("seq", mesh) > 1 and (num_heads % exchanged > 0 or num_kv_heads % exchanged > 0)
