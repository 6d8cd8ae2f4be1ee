"""The splash backend: the splash attention kernel for TPUs that ships with jax, causal, within documents, with grouped heads."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import AttentionSpec

KNOWS = frozenset({"mask.segment_ids_BT"})
"""Fields of `Mask` and `Bias` that this backend supports."""

LANES = 128
"""Elements per row of a TPU's vector registers; the kernel's tiles are multiples of it."""


def splash_lacks(spec: AttentionSpec) -> str:
    """Why splash cannot compute attention under this spec, as the end of a sentence; empty where it can."""
    if spec.device.platform != "tpu":
        return f"it needs a TPU, and this is {spec.hardware}"
    if spec.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it needs compute.dtype bfloat16 or float32, got {jnp.dtype(spec.dtype).name}"
    if spec.sliced:
        return "it needs whole rows: num_kv_heads must be a multiple of mesh.tensor x mesh.sequence"
    if spec.length % LANES:
        return f"it needs rows of a multiple of {LANES} tokens, got {spec.length}"
    return ""


def attend_splash(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, bias: Bias = NO_BIAS, interpret: bool = False
) -> Array:
    """Compute what `attend_reference` does with the splash kernel, on the arrays of one device (on a mesh inside shard_map).

    `interpret` runs the kernel in Pallas's interpreter, on any platform and slowly.
    """
    mask.only(KNOWS, "the splash backend")
    bias.only(KNOWS, "the splash backend")
    B, T, N, H = q_BTNH.shape
    block = next(size for size in (512, 256, LANES) if T % size == 0)
    sizes = splash.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
                              block_kv_dq=block)
    causal = splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((T, T))] * N)
    kernel = splash.make_splash_mha(causal, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)

    def row(ids_T: Array | None, *qkv: Array) -> Array:
        return kernel(*qkv, segment_ids=None if ids_T is None else splash.SegmentIds(ids_T, ids_T))

    scaled_BTNH = (q_BTNH.astype(jnp.float32) * H**-0.5).astype(q_BTNH.dtype)
    q, k, v = (x.swapaxes(1, 2) for x in (scaled_BTNH, k_BSKH, v_BSKH))
    ids_BT = None if mask.segment_ids_BT is None else jnp.broadcast_to(mask.segment_ids_BT, (B, T))
    out_BNTH = jax.vmap(row, in_axes=(None if ids_BT is None else 0, 0, 0, 0))(ids_BT, q, k, v)
    return out_BNTH.swapaxes(1, 2).astype(q_BTNH.dtype)
