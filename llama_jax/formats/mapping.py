"""The one table of parameter names in the three formats, and how a tensor changes between them; read in both directions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.model.tree import LAYERS, Leaf, parameters


@dataclass(frozen=True)
class Weight:
    """One parameter of the model and its names elsewhere.

    Hugging Face and Meta store one matrix (out, in) per layer, where this project's parameters are stacked over layers.
    """

    ours: str
    """Name in this project's parameter tree."""
    hf: str = ""
    """Its module in a Hugging Face folder; {} is the layer. "" where that format has no such parameter."""
    meta: str = ""
    """Its module in Meta's files, likewise."""
    part: Literal["weight", "bias"] = "weight"
    """What both formats call it within its module."""
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
    Weight("layers.attention.bq", "model.layers.{}.self_attn.q_proj", part="bias"),
    Weight("layers.attention.wk", "model.layers.{}.self_attn.k_proj", "layers.{}.attention.wk", rotary=True, split="out"),
    Weight("layers.attention.bk", "model.layers.{}.self_attn.k_proj", part="bias"),
    Weight("layers.attention.wv", "model.layers.{}.self_attn.v_proj", "layers.{}.attention.wv", split="out"),
    Weight("layers.attention.bv", "model.layers.{}.self_attn.v_proj", part="bias"),
    Weight("layers.attention.wo", "model.layers.{}.self_attn.o_proj", "layers.{}.attention.wo", split="in"),
    Weight("layers.attention.bo", "model.layers.{}.self_attn.o_proj", part="bias"),
    Weight("layers.feedforward_norm.scale", "model.layers.{}.post_attention_layernorm", "layers.{}.ffn_norm"),
    Weight("layers.feedforward.w_gate", "model.layers.{}.mlp.gate_proj", "layers.{}.feed_forward.w1", split="out"),
    Weight("layers.feedforward.b_gate", "model.layers.{}.mlp.gate_proj", part="bias"),
    Weight("layers.feedforward.w_up", "model.layers.{}.mlp.up_proj", "layers.{}.feed_forward.w3", split="out"),
    Weight("layers.feedforward.b_up", "model.layers.{}.mlp.up_proj", part="bias"),
    Weight("layers.feedforward.w_down", "model.layers.{}.mlp.down_proj", "layers.{}.feed_forward.w2", split="in"),
    Weight("layers.feedforward.b_down", "model.layers.{}.mlp.down_proj", part="bias"),
    Weight("final_norm.scale", "model.norm", "norm"),
    Weight("head", "lm_head", "output", split="out"),
)
"""Every parameter that another format has a name for, in the order in which conversions write them."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model: a row of the table, and the layer where there is one per layer."""

    weight: Weight
    layer: int = 0

    @property
    def ours(self) -> str:
        """Its name in this project: the parameter's, and the layer in brackets."""
        return f"{self.weight.ours}[{self.layer}]" if self.weight.stacked else self.weight.ours

    @property
    def hf(self) -> str:
        """Its name in a Hugging Face folder; "" where that format has none."""
        return self.weight.hf and f"{self.weight.hf.format(self.layer)}.{self.weight.part}"

    @property
    def meta(self) -> str:
        """Its name in Meta's files; "" where that format has none."""
        return self.weight.meta and f"{self.weight.meta.format(self.layer)}.{self.weight.part}"

    def leaf(self, config: ModelConfig) -> Leaf:
        """Its description in the model, without the layers; of the output head also where the model ties it."""
        return parameters(replace(config, tied_embeddings=False))[self.weight.ours].of_layer

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Its shape in this project, without the layers."""
        return self.leaf(config).shape

    def stored_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Its shape in the other formats: (out, in) for a matrix, (out,) for a bias."""
        leaf = self.leaf(config)
        if leaf.is_embedding:
            return leaf.shape
        outputs, inputs = math.prod(leaf.shape[leaf.inputs :]), math.prod(leaf.shape[: leaf.inputs])
        return (outputs, inputs) if leaf.is_matrix else (outputs,)

    def heads(self, config: ModelConfig) -> int:
        """The number of query or kv heads that come out of it."""
        return self.shape(config)[1]


def weights_of(config: ModelConfig) -> list[Weight]:
    """The rows of all parameters of a model: those of the table, in its order, then those that only a run directory can hold."""
    wanted, named = parameters(config), {weight.ours for weight in TABLE}
    return [weight for weight in TABLE if weight.ours in wanted] + [Weight(name) for name in wanted if name not in named]


def tensors(config: ModelConfig) -> Iterator[Tensor]:
    """All tensors of a model: one row after another (`weights_of`), its layers in order."""
    for weight in weights_of(config):
        yield from (Tensor(weight, layer) for layer in range(config.num_layers if weight.stacked else 1))


def to_ours(stored: np.ndarray, tensor: Tensor, *, config: ModelConfig) -> np.ndarray:
    """A tensor of another format in this project's axes; a view."""
    leaf = tensor.leaf(config)
    return (stored.T if leaf.is_matrix else stored).reshape(leaf.shape)


def from_ours(ours: np.ndarray, tensor: Tensor, *, config: ModelConfig) -> np.ndarray:
    """A tensor of this project as the other formats store it, (out, in) for a matrix; contiguous."""
    stored = tensor.stored_shape(config)
    return np.ascontiguousarray(ours.reshape(stored[::-1]).T if tensor.leaf(config).is_matrix else ours.reshape(stored))


def reorder_rotary_rows(rows_OI: np.ndarray, heads: int, *, to: Literal["halves", "neighbours"]) -> np.ndarray:
    """Reorder the rows of a query or key matrix for the other rotary convention.

    Within a head of width H the pair i is rows (i, i + H/2) as halves, (2i, 2i + 1) as neighbours (Meta's).
    """
    O, I = rows_OI.shape
    half = O // heads // 2
    pairs = (half, 2) if to == "halves" else (2, half)
    return rows_OI.reshape(heads, *pairs, I).swapaxes(1, 2).reshape(O, I)


def pool_heads(ours_KH: np.ndarray, kv_heads: int) -> np.ndarray:
    """Keys or values (..., K, H), or the matrix or bias that makes them, with fewer heads: the mean of neighbouring ones, in
    float32 (Ainslie et al. 2023, section 2.1)."""
    *leading, K, H = ours_KH.shape
    groups = ours_KH.astype(np.float32).reshape(*leading, kv_heads, K // kv_heads, H)
    return groups.mean(axis=-2).astype(ours_KH.dtype)
