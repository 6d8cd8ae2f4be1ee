"""The cuDNN backend: cuDNN's fused attention through jax.nn, on NVIDIA GPUs.

jax's interface to cuDNN offers a causal mask but no document mask, and an explicit mask would be a T x T bias with a gradient.
The document of each token is therefore encoded in extra features of queries and keys, beside the H real ones: the bits of its
number as +1 and -1. Between tokens of one document these features add the same constant to every score, which softmax ignores;
every bit in which two documents differ lowers the score by at least 256.
"""

import math
import re

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.bias import NO_BIAS, Bias
from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import AttentionSpec

KNOWS = frozenset({"mask.segment_ids_BT"})
"""Fields of `Mask` and `Bias` that this backend supports."""

BITS = 16
"""Bits of a document's number, which is also the number of extra features per head; cuDNN wants head widths in multiples of 8."""

GAP = 256.0
"""Least amount by which one differing bit lowers a score. exp(-256) is 0 in float32, so the weight is exactly 0 as long as the
scores of one query differ by less than this."""


def cudnn_lacks(spec: AttentionSpec) -> str:
    """Why cuDNN cannot compute attention under this spec, as the end of a sentence; empty where it can."""
    capability = compute_capability(spec.device)
    if capability is None:
        return f"it needs an NVIDIA GPU, and this is {spec.hardware}"
    if capability < 8:
        return f"it needs compute capability 8.0 (A100 and later), and {spec.hardware} has {capability}"
    if spec.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it needs compute.dtype bfloat16, got {jnp.dtype(spec.dtype).name}"
    if spec.sliced:
        return "it needs whole rows: num_kv_heads must be a multiple of mesh.tensor x mesh.sequence"
    segments = "mask.segment_ids_BT" in spec.described
    if segments and spec.length > 2**BITS:
        return f"it tells documents apart in rows of at most {2**BITS:,} tokens, got {spec.length:,}"
    width = spec.head_dim + (BITS if segments else 0)
    widest = 256 if capability >= 9 else 128
    if spec.head_dim % 8 or width > widest:
        documents = f" and {BITS} for the documents (none with --training.separate_documents False)" if segments else ""
        return (f"its heads are multiples of 8 and at most {widest} wide on {spec.hardware}, got "
                f"{spec.head_dim}{documents}")
    return ""


def compute_capability(device: jax.Device) -> float | None:
    """Compute capability of an NVIDIA GPU, such as 9.0; None for any other device (AMD's GPUs name an architecture there).

    Infinite for a device that a mesh only describes (`device_in_use`), because it does not tell: `training.compiled.build` has
    asked the real devices before.
    """
    if device.platform not in ("gpu", "cuda"):
        return None
    if isinstance(device, jax.sharding.AbstractDevice):
        return math.inf
    told = str(getattr(device, "compute_capability", None))
    return float(told) if re.fullmatch(r"\d+\.\d+", told) else None


def attend_cudnn(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, bias: Bias = NO_BIAS) -> Array:
    """Compute what `attend_reference` does with cuDNN's fused kernel, without T x T arrays.

    Rows have at most 2^BITS tokens where the mask separates documents.
    """
    bias.only(KNOWS, "the cuDNN backend")
    return attend_fused(q_BTNH, k_BSKH, v_BSKH, mask, implementation="cudnn")


def attend_fused(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, implementation: str) -> Array:
    """Compute jax.nn's causal attention with documents encoded as extra features of the heads.

    `implementation` is that of jax.nn: "cudnn", or "xla" to compute the same on any platform.
    """
    mask.only(KNOWS, "the cuDNN backend")
    H = q_BTNH.shape[-1]
    scale = H**-0.5
    if mask.segment_ids_BT is not None:
        strength = 2.0 ** math.ceil(math.log2(GAP / (2 * scale)))  # a power of two is exact in bfloat16
        numbers_BT = numbered(mask.segment_ids_BT)
        signs_BTH = 2 * (numbers_BT[..., None] >> jnp.arange(BITS)[None, None] & 1) - 1

        def widened(x: Array, features_BTH: Array) -> Array:
            features = jnp.broadcast_to(features_BTH[:, :, None], (*x.shape[:3], BITS))
            return jnp.concatenate([x, features.astype(x.dtype)], axis=-1)

        q_BTNH, k_BSKH, v_BSKH = (widened(x, signs_BTH * by) for x, by in
                                  ((q_BTNH, strength), (k_BSKH, 1.0), (v_BSKH, 0.0)))
    out = jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, scale=scale, is_causal=True, implementation=implementation)
    return out[..., :H]


def numbered(ids_BT: Array) -> Array:
    """Renumber the documents of each row (B, T) from 0 on, whatever ids they have, so that BITS bits are enough."""
    return jax.vmap(lambda ids_T: jnp.unique(ids_T, return_inverse=True, size=len(ids_T))[1])(ids_BT)
