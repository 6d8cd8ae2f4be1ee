"""The one table of parameter names in the three formats, and how a tensor changes between them; read in both directions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llama_jax.config import ModelConfig


@dataclass(frozen=True)
class Weight:
    """One kind of tensor. Hugging Face and Meta store matrices as (out, in), one a layer; we stack ours over layers."""

    ours: str
    """Path in our parameter tree."""
    axes: str
    """Of our tensor, without the layers: letters of the legend in `llama_jax/__init__.py`."""
    hf: str
    meta: str
    """Names there; {} is the layer."""
    inputs: int = 0
    """How many of our axes, the first ones, are the matrix's input; 0: stored as it is."""
    rotary: bool = False
    """Whether Meta's rows turn as neighbours where ours, and Hugging Face's, turn as halves of a head."""
    split: Literal["", "in", "out"] = ""
    """What Meta's model-parallel shards divide; "" is whole in each."""

    @property
    def stacked(self) -> bool:
        """Whether there is one a layer."""
        return "{}" in self.hf


TABLE = (
    Weight("embedding", "VD", "model.embed_tokens", "tok_embeddings", split="in"),
    Weight("layers.attention_norm.scale", "D", "model.layers.{}.input_layernorm", "layers.{}.attention_norm"),
    Weight("layers.attention.wq", "DNH", "model.layers.{}.self_attn.q_proj", "layers.{}.attention.wq", 1, True, "out"),
    Weight("layers.attention.wk", "DKH", "model.layers.{}.self_attn.k_proj", "layers.{}.attention.wk", 1, True, "out"),
    Weight("layers.attention.wv", "DKH", "model.layers.{}.self_attn.v_proj", "layers.{}.attention.wv", 1, False, "out"),
    Weight("layers.attention.wo", "NHD", "model.layers.{}.self_attn.o_proj", "layers.{}.attention.wo", 2, False, "in"),
    Weight("layers.feedforward_norm.scale", "D", "model.layers.{}.post_attention_layernorm", "layers.{}.ffn_norm"),
    Weight("layers.feedforward.w_gate", "DF", "model.layers.{}.mlp.gate_proj", "layers.{}.feed_forward.w1", 1, False, "out"),
    Weight("layers.feedforward.w_up", "DF", "model.layers.{}.mlp.up_proj", "layers.{}.feed_forward.w3", 1, False, "out"),
    Weight("layers.feedforward.w_down", "FD", "model.layers.{}.mlp.down_proj", "layers.{}.feed_forward.w2", 1, False, "in"),
    Weight("final_norm.scale", "D", "model.norm", "norm"),
    Weight("head", "DV", "lm_head", "output", 1, False, "out"),
)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model: a row of the table, and the layer where there is one a layer."""

    weight: Weight
    layer: int = 0

    @property
    def hf(self) -> str:
        """Its name in a Hugging Face folder."""
        return self.weight.hf.format(self.layer) + ".weight"

    @property
    def meta(self) -> str:
        """Its name in Meta's files."""
        return self.weight.meta.format(self.layer) + ".weight"

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Ours, without the layers."""
        return tuple(sizes(config)[axis] for axis in self.weight.axes)

    def stored_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Theirs."""
        shape, inputs = self.shape(config), self.weight.inputs
        return (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs]))) if inputs else shape

    def heads(self, config: ModelConfig) -> int:
        """Query or kv heads that its output is made of."""
        return sizes(config)[self.weight.axes[1]]


def tensors(config: ModelConfig) -> Iterator[Tensor]:
    """All tensors of a model: one row of the table after another, its layers in order."""
    for weight in TABLE:
        if weight.ours != "head" or not config.tied_embeddings:
            yield from (Tensor(weight, layer) for layer in range(config.num_layers if weight.stacked else 1))


def sizes(config: ModelConfig) -> dict[str, int]:
    """The legend's letters as numbers."""
    return {"V": config.vocab_size, "D": config.dim, "N": config.num_heads, "K": config.num_kv_heads,
            "H": config.head_size, "F": config.ffn_dim}


def to_ours(stored: np.ndarray, tensor: Tensor, config: ModelConfig) -> np.ndarray:
    """(out, in) as our axes; a view."""
    return stored.T.reshape(tensor.shape(config)) if tensor.weight.inputs else stored


def from_ours(ours: np.ndarray, tensor: Tensor, config: ModelConfig) -> np.ndarray:
    """Our axes as (out, in); contiguous."""
    if tensor.weight.inputs:
        out, into = tensor.stored_shape(config)
        ours = ours.reshape(into, out).T
    return np.ascontiguousarray(ours)


def turn(rows_OI: np.ndarray, heads: int, *, to: Literal["halves", "neighbours"]) -> np.ndarray:
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
