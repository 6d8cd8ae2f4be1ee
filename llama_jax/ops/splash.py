"""The Pallas splash kernel that ships with jax, on TPUs: causal, by documents, grouped heads, no tile above the diagonal."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import Problem

KNOWS = frozenset({"segment_ids_BT"})
"""Fields of a mask that it heeds."""

LANES = 128
"""Rows of a TPU's registers hold this many numbers; tiles are multiples of it."""


def lacks(problem: Problem) -> str:
    """What keeps splash from this problem, as the end of a sentence; empty where it can serve."""
    if problem.device.platform != "tpu":
        return f"it needs a TPU, and this is {problem.hardware}"
    if problem.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it needs model.dtype bfloat16 or float32, got {jnp.dtype(problem.dtype).name}"
    if problem.sliced:
        return "it needs whole rows: num_kv_heads must be a multiple of mesh.tensor x mesh.sequence"
    if problem.length % LANES:
        return f"it needs rows of a multiple of {LANES} tokens, got {problem.length}"
    return ""


def attend_splash(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, interpret: bool = False) -> Array:
    """As `attend_reference`; one device's arrays, so under shard_map on a mesh. `interpret` runs it on any platform."""
    mask.only(KNOWS, "the splash kernel")
    B, T, N, H = q_BTNH.shape
    block = next(size for size in (512, 256, LANES) if T % size == 0)
    sizes = splash.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
                              block_kv_dq=block)
    causal = splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((T, T))] * N)
    kernel = splash.make_splash_mha(causal, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)

    def row(q_NTH: Array, k_KSH: Array, v_KSH: Array, ids_T: Array | None) -> Array:
        return kernel(q_NTH, k_KSH, v_KSH, segment_ids=None if ids_T is None else splash.SegmentIds(ids_T, ids_T))

    scaled_BTNH = (q_BTNH.astype(jnp.float32) * H**-0.5).astype(q_BTNH.dtype)
    q, k, v = (x.swapaxes(1, 2) for x in (scaled_BTNH, k_BSKH, v_BSKH))
    ids_BT = None if mask.segment_ids_BT is None else jnp.broadcast_to(mask.segment_ids_BT, (B, T))
    out_BNTH = jax.vmap(row, in_axes=(0, 0, 0, None if ids_BT is None else 0))(q, k, v, ids_BT)
    return out_BNTH.swapaxes(1, 2).astype(q_BTNH.dtype)
