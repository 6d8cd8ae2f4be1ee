"""Bytes of one device: what a step keeps, by arithmetic on a Config and a mesh."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llama_jax.config import Config, ModelConfig
from llama_jax.ops.attention import FUSED
from llama_jax.parallel.rules import mesh_axes

Sizes = Mapping[str, int]
"""Mesh axis -> devices along it."""

REMAT = ("none", "linear", "full", "offload")
"""Policies of model.remat."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the fullest moment of a step."""

    weights: int
    """Float32 parameters."""
    moments: int
    """AdamW's two, and the counters of steps."""
    gradients: int
    """Float32 sums; micro-batches add to them in place."""
    activations: int
    """What the forward pass leaves for the backward pass, all layers."""
    workspace: int
    """One layer at work: gathered weights, its gradients before they are scattered, what it computes; or the loss."""
    batch: int
    """The tokens, targets, positions, segments and weights of the step."""

    @property
    def state(self) -> int:
        """What stays between steps: the arguments of the compiled step but the batch."""
        return self.weights + self.moments

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def split(logical: str, mesh: Sizes) -> int:
    """Into how many parts the mesh splits a logical axis."""
    return math.prod(mesh[axis] for axis in mesh_axes(logical))


def parameters(c: ModelConfig) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """(shape, logical axes) of every parameter, stacked over layers as the model keeps them."""
    D, N, K, H, F, L, V = c.dim, c.num_heads, c.num_kv_heads, c.head_size, c.ffn_dim, c.num_layers, c.vocab_size
    heads, keys = ("layers", "embed", "heads", "head_dim"), ("layers", "embed", "kv_heads", "head_dim")
    return [
        ((L, D, N, H), heads), *[((L, D, K, H), keys)] * 2, ((L, N, H, D), ("layers", "heads", "head_dim", "embed")),
        *[((L, D, F), ("layers", "embed", "mlp"))] * 2, ((L, F, D), ("layers", "mlp", "embed")),
        *[((L, D), ("layers", "features"))] * 2, ((D,), ("features",)), ((V, D), ("vocab", "embed")),
        *([] if c.tied_embeddings else [((D, V), ("embed", "vocab"))]),
    ]


def shard_count(c: ModelConfig, mesh: Sizes) -> int:
    """Parameters that one device keeps."""
    return sum(math.prod(shape) // math.prod(split(axis, mesh) for axis in axes) for shape, axes in parameters(c))


def layer_count(c: ModelConfig, mesh: Sizes) -> int:
    """Matrix parameters of one layer that one device multiplies with: gathered over fsdp, still split over tensor."""
    D, H, N, K, F = c.dim, c.head_size, c.num_heads, c.num_kv_heads, c.ffn_dim
    return D * H * (2 * N // split("heads", mesh) + 2 * K // split("kv_heads", mesh)) + 3 * D * F // split("mlp", mesh)


def micro_rows(config: Config, mesh: Sizes) -> int:
    """Sequences of one micro-batch on one device."""
    return config.training.batch_size // config.training.accumulation_steps // split("batch", mesh)


def layer_activations(config: Config, mesh: Sizes, remat: str) -> int:
    """Bytes that one layer leaves for its backward pass under a remat policy.

    full: its input. offload: the same, the rest lies in the host's memory. linear: also queries, keys, values, the attention's
    projection, gate and up; the output of the down projection is needed by nobody. none: all that lies between them, norms in
    float32 included.
    """
    c, T = config.model, config.data.sequence_length
    size = 2 if c.dtype == "bfloat16" else 4
    rows, seq, stream = micro_rows(config, mesh), T // split("seq", mesh), T // split("stream", mesh)
    heads, keys = c.num_heads * c.head_size // split("heads", mesh), c.num_kv_heads * c.head_size // split("kv_heads", mesh)
    wide = c.ffn_dim // split("mlp", mesh)
    kept = {"full": stream * c.dim * size}
    kept["linear"] = kept["full"] + size * (stream * c.dim + seq * (heads + 2 * keys + 2 * wide))
    if c.scan_layers:  # all that autodiff keeps: three float32 arrays a norm, six of the feed-forward's width
        kept["none"] = stream * c.dim * (6 * 4 + 2 * size) + size * seq * (3 * heads + 2 * keys + 6 * wide)
    else:  # what is elementwise is fused into its readers and made again
        kept["none"] = size * (4 * stream * c.dim + seq * (2 * heads + 2 * keys + 3 * wide))
    kept["offload"] = kept["full"]
    return rows * kept[remat]


def workspace(config: Config, mesh: Sizes, *, attention: str, kind: str) -> int:
    """Bytes at work besides what is kept: the larger of one layer's backward pass and the loss.

    What compiled programs showed beyond that, on GPUs: where attention is not fused or the residual stream is split over
    `tensor`, a stack of all layers' arrays is kept in a second layout for the backward loop; in the latter case float32 sums
    of whole rows wait for their exchange. On TPUs: all weights once in the compute dtype, and under data parallelism a second
    set of gradients, of the rows that came last. The reference backend has the scores of a layer.
    """
    c, t = config.model, config.training
    size, T = 2 if c.dtype == "bfloat16" else 4, config.data.sequence_length
    rows, seq, stream = micro_rows(config, mesh), T // split("seq", mesh), T // split("stream", mesh)
    heads, wide = c.num_heads * c.head_size // split("heads", mesh), c.ffn_dim // split("mlp", mesh)
    gathered = layer_count(c, mesh)
    layer = gathered * (2 * size + 4)
    if c.scan_layers or c.remat != "none":  # else what a layer computes takes the place of what it kept
        layer += rows * (stream * c.dim * 3 * 4 + seq * (4 * wide * size + heads * (4 * size + 4)))
    vocabulary = c.vocab_size // split("vocab", mesh)
    chunk = min(rows * seq, max(rows, t.loss_chunk))
    loss = c.dim * vocabulary * (size + 4) + chunk * vocabulary * (2 * 4 + size) + rows * seq * c.dim * 2 * size
    spread = split("stream", mesh) > split("seq", mesh)
    if kind == "gpu" and c.scan_layers and c.remat != "full" and (spread or attention not in FUSED):
        layer += c.num_layers * rows * max(seq * heads, stream * c.dim) * size
    if kind == "gpu" and spread:
        layer += 3 * rows * seq * c.dim * 4
    if kind == "tpu":
        layer += shard_count(c, mesh) * ((size if size < 4 else 0) + (4 if mesh["data"] > 1 else 0))
    if attention == "reference":
        layer += rows * seq * T * (c.num_heads // split("heads", mesh)) * (4 + 4 + size)
    return max(layer, loss)


def estimate(config: Config, mesh: Sizes, *, attention: str, kind: str) -> Memory:
    """The arithmetic of one device: a kind of machine, the attention backend that runs; axes must divide what they split."""
    c, t = config.model, config.training
    count = shard_count(c, mesh)
    rows = t.batch_size // split("batch", mesh)
    return Memory(
        weights=4 * count,
        moments=count * (8 if config.optimizer.moment_dtype == "float32" else 4) + 3 * 4,
        gradients=4 * count,
        activations=c.num_layers * layer_activations(config, mesh, c.remat),
        workspace=workspace(config, mesh, attention=attention, kind=kind),
        batch=5 * 4 * rows * config.data.sequence_length // split("seq", mesh),
    )
