"""Bytes of one device during a train step, by arithmetic on a Config, the parameters' description and a mesh."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llama_jax.config import Config, ModelConfig
from llama_jax.model.accounting import layer_matrices
from llama_jax.model.block import REMAT_POLICIES
from llama_jax.model.tree import Leaf, parameters
from llama_jax.ops.attention import is_fused
from llama_jax.parallel.rules import ways

Sizes = Mapping[str, int]
"""Mesh axis -> devices along it."""

POLICIES = ("none", *REMAT_POLICIES)
"""Rematerialisation policies: the values of compute.remat."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the fullest moment of a step."""

    weights: int
    """Float32 parameters."""
    moments: int
    """AdamW's two moments, and the counters of steps."""
    gradients: int
    """Float32 gradients; micro-batches add to them in place."""
    activations: int
    """What the forward pass leaves for the backward pass, all layers together."""
    workspace: int
    """The backward pass of one layer (gathered weights, gradients before they are scattered, activations), or the loss."""
    batch: int
    """The tokens, targets, positions, segments and weights of the step."""

    @property
    def state(self) -> int:
        """Bytes that stay between steps: the arguments of the compiled step without the batch."""
        return self.weights + self.moments

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(getattr(self, field.name) for field in fields(self))


def bytes_per_number(config: Config) -> int:
    """Bytes of an activation in the compute dtype."""
    return 2 if config.compute.dtype == "bfloat16" else 4


def parameters_per_device(c: ModelConfig, mesh: Sizes) -> int:
    """Number of parameters that one device of a mesh keeps."""
    return sum(leaf.size // math.prod(ways(axis, mesh) for axis in leaf.axes) for leaf in parameters(c).values())


def gathered_layer_parameters(c: ModelConfig, mesh: Sizes) -> int:
    """Matrix parameters of one layer that one device multiplies with: gathered over fsdp, still split over tensor."""
    return sum(math.prod(size // (1 if axis == "embed" else ways(axis, mesh))
                         for size, axis in zip(leaf.shape, leaf.axes, strict=True)) for leaf in layer_matrices(c))


def output_width(leaf: Leaf, mesh: Sizes) -> int:
    """Numbers per token that one device gets from a product with a matrix of a layer, split over tensor at most."""
    return math.prod(size // (1 if axis == "embed" else ways(axis, mesh)) for size, axis in leaf.outputs)


@dataclass(frozen=True)
class LayerWidths:
    """Numbers per token of one layer's activations on one device."""

    heads: int
    """Queries, and the output of attention."""
    keys: int
    """Keys; values are as many."""
    hidden: int
    """Hidden layer of the feed-forward: what its last matrix reads."""
    projected: int
    """All outputs of the matrices that the feed-forward's hidden layer is made of, such as gate and up together."""

    @classmethod
    def of(cls, c: ModelConfig, mesh: Sizes) -> "LayerWidths":
        """The widths of a model's layer on one device of a mesh."""
        into_hidden = [leaf for leaf in layer_matrices(c) if leaf.outputs[0][1] == "mlp"]
        return cls(heads=c.num_heads * c.head_size // ways("heads", mesh),
                   keys=c.num_kv_heads * c.head_size // ways("kv_heads", mesh),
                   hidden=c.ffn_dim // ways("mlp", mesh),
                   projected=sum(output_width(leaf, mesh) for leaf in into_hidden))


def micro_rows(config: Config, mesh: Sizes) -> int:
    """Sequences of one micro-batch on one device."""
    return config.training.batch_size // config.training.accumulation_steps // ways("batch", mesh)


def tokens_per_row(config: Config, mesh: Sizes) -> tuple[int, int]:
    """Tokens of a row on one device: inside attention's and the feed-forward's projections, and in the residual stream."""
    T = config.data.sequence_length
    return T // ways("seq", mesh), T // ways("stream", mesh)


def layer_activations(config: Config, mesh: Sizes, *, remat: str) -> int:
    """Bytes that one layer leaves for its backward pass under a remat policy.

    full: its input. offload: the same, the rest lies in the host's memory. linear: also the outputs of its matrices, except of
    the feed-forward's last one, which nothing in the backward pass reads. none: all that lies between them, norms in float32
    included.
    """
    c, size, width = config.model, bytes_per_number(config), LayerWidths.of(config.model, mesh)
    seq, stream = tokens_per_row(config, mesh)
    kept = {"full": stream * c.dim * size}
    outputs = [leaf for leaf in layer_matrices(c) if leaf.axes[0] != "mlp"]
    kept["linear"] = kept["full"] + size * sum(
        output_width(leaf, mesh) * (stream if leaf.outputs[0][1] == "embed" else seq) for leaf in outputs)
    if config.compute.scan_layers:  # all that autodiff keeps: three float32 arrays per norm, three for each projection
        kept["none"] = stream * c.dim * (6 * 4 + 2 * size) + size * seq * (3 * width.heads + 2 * width.keys + 3 * width.projected)
    else:  # what is elementwise is fused into its readers and computed again
        kept["none"] = size * (4 * stream * c.dim
                               + seq * (2 * width.heads + 2 * width.keys + width.projected + width.hidden))
    kept["offload"] = kept["full"]
    return micro_rows(config, mesh) * kept[remat]


def workspace(config: Config, mesh: Sizes, *, attention: str, kind: str) -> int:
    """Bytes in use beside the kept activations: the larger of one layer's backward pass and the loss.

    What compiled programs showed beyond that, on GPUs: where attention is not fused or the residual stream is split over
    `tensor`, a stack of all layers' arrays is kept in a second layout for the backward loop; in the latter case float32 sums
    of whole rows wait for their exchange. On TPUs: all weights once in the compute dtype, and under data parallelism a second
    set of gradients, of the rows that came last. The reference backend has the scores of a layer.
    """
    c, compute, size, width = config.model, config.compute, bytes_per_number(config), LayerWidths.of(config.model, mesh)
    rows, T = micro_rows(config, mesh), config.data.sequence_length
    seq, stream = tokens_per_row(config, mesh)
    layer = gathered_layer_parameters(c, mesh) * (2 * size + 4)
    if compute.scan_layers or compute.remat != "none":  # else what a layer computes takes the place of what it kept
        layer += rows * (stream * c.dim * 3 * 4 + seq * (2 * width.projected * size + width.heads * (4 * size + 4)))
    vocabulary = c.vocab_size // ways("vocab", mesh)
    chunk = min(rows * seq, max(rows, compute.loss_chunk))
    loss = c.dim * vocabulary * (size + 4) + chunk * vocabulary * (2 * 4 + size) + rows * seq * c.dim * 2 * size
    spread = ways("stream", mesh) > ways("seq", mesh)
    if kind == "gpu" and compute.scan_layers and compute.remat != "full" and (spread or not is_fused(attention)):
        layer += c.num_layers * rows * max(seq * width.heads, stream * c.dim) * size
    if kind == "gpu" and spread:
        layer += 3 * rows * seq * c.dim * 4
    if kind == "tpu":
        layer += parameters_per_device(c, mesh) * ((size if size < 4 else 0) + (4 if mesh["data"] > 1 else 0))
    if attention == "reference":
        layer += rows * seq * T * (c.num_heads // ways("heads", mesh)) * (4 + 4 + size)
    return max(layer, loss)


def estimate_memory(config: Config, mesh: Sizes, *, attention: str, kind: str) -> Memory:
    """The memory of one device of a kind ("gpu" or "tpu") under an attention backend; mesh axes must divide what they split."""
    c, t = config.model, config.training
    count = parameters_per_device(c, mesh)
    rows = t.batch_size // ways("batch", mesh)
    return Memory(
        weights=4 * count,
        moments=count * (8 if config.optimizer.moment_dtype == "float32" else 4) + 3 * 4,
        gradients=4 * count,
        activations=c.num_layers * layer_activations(config, mesh, remat=config.compute.remat),
        workspace=workspace(config, mesh, attention=attention, kind=kind),
        batch=5 * 4 * rows * config.data.sequence_length // ways("seq", mesh),
    )
