"""Cross-entropy loss of the output head, chunked so that B x T x V logits are never in memory.

The loss is computed chunk by chunk over the tokens, and its gradients in the same pass, so that logits are computed once.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding, PartitionSpec

from llama_jax.errors import ConfigError
from llama_jax.ops.derivatives import only_gradients
from llama_jax.ops.linear import weight_gradient
from llama_jax.ops.varying import explicit_axes, explicit_sharding, vary_alike
from llama_jax.parallel.rules import as_tuple, axis_sizes, fitting, mesh_axes, mesh_in_use, spec, ways


def next_token_loss(
    h_BTD: Array, head_DV: Array, targets_BT: Array, weights_BT: Array, *, z_loss: float = 0.0, chunk: int = 1024
) -> tuple[Array, Array]:
    """Compute the next-token loss of a batch, summed over its tokens: (weighted nll + z_loss * log(Z)^2, weighted nll alone).

    Both sums are float32 scalars in nats, where nll is the negative log-likelihood of a target and Z its softmax's denominator.
    Both are differentiable in h, the head and the weights; the gradients of the second need a pass of their own where z_loss is
    not 0. Logits exist in float32 for about `chunk` tokens at a time. On a mesh each device computes the logits of its own
    tokens and its own part of the vocabulary; sums over the vocabulary are exchanged, never logits.

    Args:
        h_BTD: Hidden states after the final norm, in the compute dtype.
        head_DV: The output head, float32.
        targets_BT: Integer ids of the next tokens. One outside [0, V) makes the sums NaN, unless its weight is 0.
        weights_BT: float32 weight of each target; 0 leaves it out.

    Raises:
        ConfigError: Shapes do not fit each other, or targets are not integers.
    """
    rows = h_BTD.shape[:-1]
    if h_BTD.ndim != 3 or 0 in rows or head_DV.ndim != 2 or head_DV.shape[0] != h_BTD.shape[-1] \
            or targets_BT.shape != rows or weights_BT.shape != rows or not jnp.issubdtype(targets_BT.dtype, jnp.integer):
        raise ConfigError(f"the loss wants h (B, T, D), a head (D, V), integer targets (B, T) and weights (B, T), got "
                          f"{h_BTD.shape}, {head_DV.shape}, {targets_BT.dtype} {targets_BT.shape} and {weights_BT.shape}.")
    if not only_gradients():
        return _over_mesh(h_BTD, head_DV.astype(jnp.float32), targets_BT, weights_BT, z_loss, chunk, gradients=False)[0]
    arrays = vary_alike(h_BTD, head_DV.astype(jnp.float32), targets_BT, weights_BT.astype(jnp.float32))
    like_tokens = explicit_sharding(h_BTD)
    if like_tokens is None:
        return _loss(*arrays, z_loss, chunk)
    sums = (NamedSharding(like_tokens.mesh, PartitionSpec()),) * 2
    return jax.sharding.auto_axes(lambda *arrays: _loss(*arrays, z_loss, chunk), axes=explicit_axes(like_tokens),
                                  out_sharding=sums)(*arrays)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _loss(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk):
    return _over_mesh(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, gradients=False)[0]


def _chunk_length(B: int, T: int, *, chunk: int) -> int:
    """The largest divisor of T that keeps B x length within `chunk` tokens (at least 1)."""
    wanted = max(1, min(T, chunk // B))
    return next(length for length in range(wanted, 0, -1) if T % length == 0)


def _over_mesh(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, *, gradients: bool):
    """`_sum_over_chunks` on every device of the mesh in use, and the sums of their results."""
    head_DV = head_DV.astype(h_BTD.dtype)
    mesh = mesh_in_use()
    if mesh is None:
        return _sum_over_chunks(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, gradients=gradients)
    rows, vocab = fitting(targets_BT.shape, "batch", "seq"), fitting(head_DV.shape, None, "vocab")
    split = tuple(axis for axes in rows for axis in as_tuple(axes))
    scattered = bool(vocab[1]) and targets_BT.shape[1] % ways("stream", mesh) == 0
    stream = fitting(targets_BT.shape, "batch", "stream") if scattered else rows
    embed = fitting(head_DV.shape, "embed", "vocab") if set(mesh_axes("embed")) <= set(split) else vocab
    spread_embed = as_tuple(embed[0])

    def on_device(h_BTD, head_DV, *rest):
        targets_BT, weights_BT = rest
        first = lax.axis_index("tensor") * head_DV.shape[1] if vocab[1] else None
        sums, slopes = _sum_over_chunks(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, gradients=gradients, first=first)
        sums = lax.psum(sums, split)
        if not gradients:
            return sums, (None, None, None)
        d_h, d_head, d_weights = slopes
        if vocab[1]:
            d_h = lax.psum_scatter(d_h, "tensor", scatter_dimension=1, tiled=True) if scattered else lax.psum(d_h, "tensor")
        if spread_embed:
            d_head = lax.psum_scatter(d_head, spread_embed, scatter_dimension=0, tiled=True)
        return sums, (d_h, lax.psum(d_head, tuple(axis for axis in split if axis not in spread_embed)), d_weights)

    none = spec()
    outputs = ((none, none), (stream, embed, rows) if gradients else (None, None, None))
    spread = jax.shard_map(on_device, in_specs=(rows, vocab, rows, rows), out_specs=outputs, check_vma=False,
                           axis_names=set(axis_sizes(mesh)))
    return spread(h_BTD, head_DV, targets_BT, weights_BT)


def _sum_over_chunks(h_BTD, head_DV, targets_BT, weights_BT, z_loss, chunk, *, gradients: bool, first: Array | None = None):
    """The two sums of `next_token_loss`, and the gradients of the first for h, head and weights where `gradients` asks for them.

    Where the vocabulary is split over `tensor`, `first` is the id of this device's first token, and the gradient of h is what
    this part of the vocabulary contributes to it.
    """
    B, T = targets_BT.shape
    C = _chunk_length(B, T, chunk=chunk)
    vocab_V = jnp.arange(head_DV.shape[1]) + (0 if first is None else first)
    vocabulary = head_DV.shape[1] * (1 if first is None else lax.axis_size("tensor"))

    def over_vocab(collective, x: Array) -> Array:
        return x if first is None else collective(x, "tensor")

    def one(carry, n: Array):
        total, nll_total, d_head = carry
        h_BCD, targets_BC, weights_BC = (lax.dynamic_slice_in_dim(x, n * C, C, 1) for x in (h_BTD, targets_BT, weights_BT))
        logits_BCV = jnp.einsum("BCD,DV->BCV", h_BCD, head_DV, preferred_element_type=jnp.float32)
        top = over_vocab(lax.pmax, lax.stop_gradient(logits_BCV.max(-1, keepdims=True)))
        exp_BCV = jnp.exp(logits_BCV - top)
        norm_BC = over_vocab(lax.psum, exp_BCV.sum(-1))
        log_z_BC = jnp.log(norm_BC) + top[..., 0]
        hit_BCV = targets_BC[..., None] == vocab_V[None, None]
        hit_BC = over_vocab(lax.psum, jnp.sum(jnp.where(hit_BCV, logits_BCV, 0.0), -1))
        known_BC = (targets_BC >= 0) & (targets_BC < vocabulary)
        nll_BC = jnp.where(known_BC, log_z_BC - hit_BC, jnp.where(weights_BC == 0, 0.0, jnp.nan))
        total_BC = nll_BC + z_loss * jnp.square(log_z_BC)
        nll = jnp.sum(weights_BC * nll_BC)
        total += jnp.sum(weights_BC * total_BC)
        if not gradients:
            return (total, nll_total + nll, d_head), None
        slope_BC = weights_BC * (1.0 + 2.0 * z_loss * log_z_BC) / norm_BC
        d_logits = exp_BCV * slope_BC[..., None] - jnp.where(hit_BCV, weights_BC[..., None], 0.0)
        d_logits = d_logits.astype(h_BTD.dtype)
        d_h_BCD = jnp.einsum("BCV,DV->BCD", d_logits, head_DV, preferred_element_type=jnp.float32)
        d_head += weight_gradient(h_BCD, d_logits, batch=2)
        return (total, nll_total + nll, d_head), (d_h_BCD.astype(h_BTD.dtype), total_BC)

    d_head = vary_alike(h_BTD, jnp.zeros(head_DV.shape, jnp.float32))[1] if gradients else None
    _, zero = vary_alike(h_BTD, jnp.float32(0))
    (total, nll, d_head), of_tokens = lax.scan(one, (zero, zero, d_head), jnp.arange(T // C))
    if not gradients:
        return (total, nll), (None, None, None)
    d_h, d_weights = (jnp.moveaxis(x, 0, 1).reshape(B, T, *x.shape[3:]) for x in of_tokens)
    return (total, nll), (d_h, d_head, d_weights)


def _forward(*arguments):
    """`_loss`, and what its backward pass needs. With symbolic zeros jax wraps every array."""
    *arrays, z_loss, chunk = arguments
    arrays = [x.value for x in arrays]
    sums, slopes = _over_mesh(*arrays, z_loss, chunk, gradients=True)
    return sums, (slopes, arrays if z_loss else None)


def _backward(z_loss, chunk, saved, cotangents):
    slopes, arrays = saved
    total, nll = (0.0 if isinstance(x, SymbolicZero) else x for x in cotangents)
    if not z_loss:  # the two sums are equal, and so are their gradients
        total, nll = total + nll, 0.0
    d_h, d_head, d_weights = _scaled(slopes, total)
    if not isinstance(nll, float):
        _, slopes = _over_mesh(*arrays, 0.0, chunk, gradients=True)
        d_h, d_head, d_weights = jax.tree.map(jnp.add, (d_h, d_head, d_weights), _scaled(slopes, nll))
    return d_h, d_head, None, d_weights


def _scaled(slopes: tuple[Array, Array, Array], cotangent: Array | float) -> tuple[Array, Array, Array]:
    return jax.tree.map(lambda x: (x.astype(jnp.float32) * cotangent).astype(x.dtype), slopes)


_loss.defvjp(_forward, _backward, symbolic_zeros=True)
