"""cuDNN's fused attention through jax.nn, on NVIDIA GPUs.

jax's door to cuDNN knows causality but no documents, and a mask would be a T x T bias with a gradient. So a document's
number travels in the heads: its bits, as +1 and -1, are features of queries and keys beside the H real ones. Where all bits agree
they add the same constant to every score, which softmax ignores; each bit that differs takes at least 256 away.
"""

import math
import re

import jax
import jax.numpy as jnp
from jax import Array

from llama_jax.ops.masks import Mask
from llama_jax.ops.spec import Problem

KNOWS = frozenset({"segment_ids_BT"})
"""Fields of a mask that it heeds."""

BITS = 16
"""Bits of a document's number, each a feature of a head; a multiple of 8, as cuDNN's widths are."""

GAP = 256.0
"""Least a score loses over one differing bit: exp(-256) is 0 in float32. The scores of one token are taken to differ by less."""


def lacks(problem: Problem) -> str:
    """What keeps cuDNN from this problem, as the end of a sentence; empty where it can serve."""
    capability = compute_capability(problem.device)
    if capability is None:
        return f"it needs an NVIDIA GPU, and this is {problem.hardware}"
    if capability < 8:
        return f"it needs compute capability 8.0 (A100 and later), and {problem.hardware} has {capability}"
    if problem.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it needs model.dtype bfloat16, got {jnp.dtype(problem.dtype).name}"
    if problem.sliced:
        return "it needs whole rows: num_kv_heads must be a multiple of mesh.tensor x mesh.sequence"
    segments = "segment_ids_BT" in problem.mask
    if segments and problem.length > 2**BITS:
        return f"it tells documents apart in rows of at most {2**BITS:,} tokens, got {problem.length:,}"
    width = problem.head_dim + (BITS if segments else 0)
    widest = 256 if capability >= 9 else 128
    if problem.head_dim % 8 or width > widest:
        documents = f" and {BITS} for the documents (none with --training.separate_documents False)" if segments else ""
        return (f"its heads are multiples of 8 and at most {widest} wide on {problem.hardware}, got "
                f"{problem.head_dim}{documents}")
    return ""


def compute_capability(device: jax.Device) -> float | None:
    """Of an NVIDIA GPU; None for anything else, such as AMD's, which name an architecture there.

    A device that is described only (`device_in_use`) does not tell: whoever compiles for one asked its mesh before.
    """
    if device.platform not in ("gpu", "cuda"):
        return None
    if isinstance(device, jax.sharding.AbstractDevice):
        return math.inf
    told = str(getattr(device, "compute_capability", None))
    return float(told) if re.fullmatch(r"\d+\.\d+", told) else None


def attend_cudnn(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask) -> Array:
    """As `attend_reference`, without T x T anything; rows have at most 2^BITS tokens where documents are apart."""
    return attend_fused(q_BTNH, k_BSKH, v_BSKH, mask, implementation="cudnn")


def attend_fused(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, mask: Mask, *, implementation: str) -> Array:
    """jax.nn's causal attention with the documents in the heads; "xla" computes on any platform what cuDNN is given."""
    mask.only(KNOWS, "cuDNN's attention")
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
    """The documents of each row numbered from 0 on, whatever ids they have: BITS bits then tell them apart."""
    return jax.vmap(lambda ids_T: jnp.unique(ids_T, return_inverse=True, size=len(ids_T))[1])(ids_BT)
