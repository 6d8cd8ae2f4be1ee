"""The one table of parameter names in the three formats, and how a tensor changes between them; read in both directions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.tree import LAYERS, Leaf, parameters


@dataclass(frozen=True)
class Weight:
    """One parameter of the model and its names elsewhere.

    Hugging Face and Meta store one matrix (out, in) per layer, where this project's parameters are stacked over layers.
    """

    ours: str
    """Name in this project's parameter tree."""
    hf: str
    """Name in a Hugging Face folder; {} is the layer."""
    meta: str
    """Name in Meta's files; {} is the layer."""
    rotary: bool = False
    """Whether queries or keys come out of it. Rotary embedding pairs neighbouring rows in Meta's files, and the halves of a head
    in the other two formats."""
    split: Literal["", "in", "out"] = ""
    """The axis that Meta's model-parallel shards divide; "" where every shard holds all of it."""

    @property
    def stacked(self) -> bool:
        """Whether there is one per layer."""
        return self.ours.startswith(f"{LAYERS}.")


TABLE = (
    Weight("embedding", "model.embed_tokens", "tok_embeddings", split="in"),
    Weight("layers.attention_norm.scale", "model.layers.{}.input_layernorm", "layers.{}.attention_norm"),
    Weight("layers.attention.wq", "model.layers.{}.self_attn.q_proj", "layers.{}.attention.wq", rotary=True, split="out"),
    Weight("layers.attention.wk", "model.layers.{}.self_attn.k_proj", "layers.{}.attention.wk", rotary=True, split="out"),
    Weight("layers.attention.wv", "model.layers.{}.self_attn.v_proj", "layers.{}.attention.wv", split="out"),
    Weight("layers.attention.wo", "model.layers.{}.self_attn.o_proj", "layers.{}.attention.wo", split="in"),
    Weight("layers.feedforward_norm.scale", "model.layers.{}.post_attention_layernorm", "layers.{}.ffn_norm"),
    Weight("layers.feedforward.w_gate", "model.layers.{}.mlp.gate_proj", "layers.{}.feed_forward.w1", split="out"),
    Weight("layers.feedforward.w_up", "model.layers.{}.mlp.up_proj", "layers.{}.feed_forward.w3", split="out"),
    Weight("layers.feedforward.w_down", "model.layers.{}.mlp.down_proj", "layers.{}.feed_forward.w2", split="in"),
    Weight("final_norm.scale", "model.norm", "norm"),
    Weight("head", "lm_head", "output", split="out"),
)
"""Every parameter of a LLaMA, in the order in which conversions write them."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model: a row of the table, and the layer where there is one per layer."""

    weight: Weight
    layer: int = 0

    @property
    def ours(self) -> str:
        """Its name in this project: the parameter's, with the layer in brackets."""
        return f"{self.weight.ours}[{self.layer}]" if self.weight.stacked else self.weight.ours

    @property
    def hf(self) -> str:
        """Its name in a Hugging Face folder."""
        return self.weight.hf.format(self.layer) + ".weight"

    @property
    def meta(self) -> str:
        """Its name in Meta's files."""
        return self.weight.meta.format(self.layer) + ".weight"

    def leaf(self, config: ModelConfig) -> Leaf:
        """Its description in the model, without the layers; of the output head also where the model ties it."""
        return parameters(replace(config, tied_embeddings=False))[self.weight.ours].of_layer

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Its shape in this project, without the layers."""
        return self.leaf(config).shape

    def stored_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Its shape in the other formats: (out, in) for a matrix."""
        leaf = self.leaf(config)
        shape, inputs = leaf.shape, leaf.inputs
        return (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs]))) if inputs else shape

    def heads(self, config: ModelConfig) -> int:
        """The number of query or kv heads that come out of it."""
        return self.shape(config)[1]


def tensors(config: ModelConfig) -> Iterator[Tensor]:
    """All tensors of a model: one row of the table after another, its layers in order.

    Raises ConfigError for a model with parameters that the table does not have.
    """
    if missing := sorted(parameters(config).keys() - {weight.ours for weight in TABLE}):
        raise ConfigError(f"no format but a run directory can hold this model: {', '.join(missing)} (model.norm {config.norm}, "
                          f"model.feedforward {config.feedforward}, model.position {config.position}).")
    yield from tensors_of_any_model(config)


def tensors_of_any_model(config: ModelConfig) -> Iterator[Tensor]:
    """The same for every model: tensors that the table does not have come last, and have no names elsewhere."""
    wanted = parameters(config)
    known = [weight for weight in TABLE if weight.ours in wanted]
    unknown = wanted.keys() - {weight.ours for weight in known}
    for weight in [*known, *(Weight(name, "", "") for name in wanted if name in unknown)]:
        yield from (Tensor(weight, layer) for layer in range(config.num_layers if weight.stacked else 1))


def to_ours(stored: np.ndarray, tensor: Tensor, *, config: ModelConfig) -> np.ndarray:
    """A tensor of another format in this project's axes; a view."""
    leaf = tensor.leaf(config)
    return stored.T.reshape(leaf.shape) if leaf.inputs else stored


def from_ours(ours: np.ndarray, tensor: Tensor, *, config: ModelConfig) -> np.ndarray:
    """A tensor of this project as the other formats store it, (out, in) for a matrix; contiguous."""
    if tensor.leaf(config).inputs:
        out, into = tensor.stored_shape(config)
        ours = ours.reshape(into, out).T
    return np.ascontiguousarray(ours)


def reorder_rotary_rows(rows_OI: np.ndarray, heads: int, *, to: Literal["halves", "neighbours"]) -> np.ndarray:
    """Reorder the rows of a query or key matrix for the other rotary convention.

    Within a head of width H the pair i is rows (i, i + H/2) as halves, (2i, 2i + 1) as neighbours (Meta's).
    """
    O, I = rows_OI.shape
    half = O // heads // 2
    pairs = (half, 2) if to == "halves" else (2, half)
    return rows_OI.reshape(heads, *pairs, I).swapaxes(1, 2).reshape(O, I)


def pool_heads(ours_DKH: np.ndarray, kv_heads: int) -> np.ndarray:
    """Keys or values of fewer heads: the mean of neighbouring ones, in float32 (Ainslie et al. 2023, section 2.1)."""
    D, K, H = ours_DKH.shape
    groups = ours_DKH.astype(np.float32).reshape(D, kv_heads, K // kv_heads, H)
    return groups.mean(axis=2).astype(ours_DKH.dtype)
