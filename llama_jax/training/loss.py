"""Cross-entropy of a linear head without B x T x V logits: chunk by chunk, gradients made in the forward pass."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from llama_jax.ops.linear import weight_gradient
from llama_jax.sharding import constrain


def next_token_loss(
    h_BTD: Array, head_DV: Array, targets_BT: Array, weights_BT: Array, *, z_loss: float = 0.0, chunk: int = 1024
) -> tuple[Array, Array]:
    """Sums over tokens, float32: (weighted nll + z_loss * log(Z)^2, weighted nll alone), in nats.

    Logits exist in float32 for about `chunk` tokens at a time. Only the first sum is differentiable: its gradients for
    h and the head are computed in the same pass over the chunks, so that each chunk's logits are made once.
    """
    return _loss(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _loss(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk):
    return _sweep(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, gradients=False)[0]


def _chunk_length(B: int, T: int, chunk: int) -> int:
    """The largest divisor of T that keeps B x length within `chunk` tokens (at least 1)."""
    wanted = max(1, min(T, chunk // B))
    return next(length for length in range(wanted, 0, -1) if T % length == 0)


def _sweep(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, *, gradients: bool):
    """Losses, and the gradients of the first of them where asked for."""
    B, T, D = h_BTD.shape
    C = _chunk_length(B, T, chunk)
    head = head_DV.astype(h_BTD.dtype)

    def one(carry, n: Array):
        total, nll_total, d_head = carry
        h_BCD, targets_BC, weights_BC = (lax.dynamic_slice_in_dim(x, n * C, C, 1) for x in (h_BTD, targets_BT, weights_BT))
        logits_BCV = jnp.einsum("BCD,DV->BCV", h_BCD, head, preferred_element_type=jnp.float32)
        logits_BCV = constrain(logits_BCV, "batch", "seq", "vocab")
        top = lax.stop_gradient(logits_BCV.max(-1, keepdims=True))
        exp_BCV = jnp.exp(logits_BCV - top)
        norm_BC = exp_BCV.sum(-1)
        log_z_BC = jnp.log(norm_BC) + top[..., 0]
        hit_BCV = targets_BC[..., None] == jnp.arange(head.shape[1])[None, None]
        nll = jnp.sum(weights_BC * (log_z_BC - jnp.sum(jnp.where(hit_BCV, logits_BCV, 0.0), -1)))
        total += nll + z_loss * jnp.sum(weights_BC * jnp.square(log_z_BC))
        if not gradients:
            return (total, nll_total + nll, d_head), None
        slope_BC = weights_BC * (1.0 + 2.0 * z_loss * log_z_BC) / norm_BC
        d_logits = exp_BCV * slope_BC[..., None] - jnp.where(hit_BCV, weights_BC[..., None], 0.0)
        d_logits = constrain(d_logits.astype(h_BTD.dtype), "batch", "seq", "vocab")
        d_h_BCD = jnp.einsum("BCV,DV->BCD", d_logits, head, preferred_element_type=jnp.float32)
        d_head += weight_gradient(h_BCD, d_logits, batch=2)
        return (total, nll_total + nll, d_head), d_h_BCD.astype(h_BTD.dtype)

    d_head = jnp.zeros(head_DV.shape, jnp.float32) if gradients else None
    (total, nll, d_head), d_h = lax.scan(one, (jnp.float32(0), jnp.float32(0), d_head), jnp.arange(T // C))
    if gradients:
        d_h = jnp.moveaxis(d_h, 0, 1).reshape(B, T, D)
    return (total, nll), (d_h, d_head)


def _forward(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk):
    return _sweep(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, gradients=True)


def _backward(z_loss, chunk, saved, cotangents):
    d_h, d_head = saved
    scale = cotangents[0]
    return (d_h * scale.astype(d_h.dtype)), d_head * scale, None, None


_loss.defvjp(_forward, _backward)
