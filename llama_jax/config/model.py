"""Configuration of the model: its architecture (`ModelConfig`), separate from how it is computed (`ComputeConfig`)."""

from dataclasses import dataclass, field
from typing import Literal

from llama_jax.config.fields import require as _require


@dataclass(frozen=True)
class RopeScaling:
    """Scaling of the rotary frequencies, for contexts longer than those that the model was trained on."""

    kind: Literal["none", "linear", "llama3"] = "none"
    """linear divides every frequency by factor (Chen et al. 2023); llama3 only the slow ones (arXiv 2407.21783)."""
    factor: float = 8.0
    """Factor by which frequencies are divided."""
    low_freq_factor: float = 1.0
    """llama3: pairs that turn fewer times than this within original_length tokens are divided by factor."""
    high_freq_factor: float = 4.0
    """llama3: pairs that turn more times than this within original_length tokens keep their frequency."""
    original_length: int = 8192
    """llama3: context length in tokens before the scaling."""

    def __post_init__(self):
        _require(1 <= self.factor < float("inf"), f"model.rope_scaling.factor must be at least 1, got {self.factor}.")
        _require(0 < self.low_freq_factor < self.high_freq_factor < float("inf") and self.original_length > 0,
                 "model.rope_scaling wants 0 < low_freq_factor < high_freq_factor and a positive original_length, got "
                 f"{self.low_freq_factor}, {self.high_freq_factor} and {self.original_length}.")


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a Transformer decoder: everything that decides what its parameters mean (section 2.2, Table 2)."""

    vocab_size: int = 32_000
    """Vocabulary size V; must equal the tokenizer's."""
    dim: int = 4096
    """Width D of the residual stream."""
    num_layers: int = 32
    """Number of blocks L."""
    num_heads: int = 32
    """Query heads N."""
    num_kv_heads: int = 32
    """Key and value heads K; equal to num_heads is multi-head, 1 is multi-query, between is grouped-query attention."""
    ffn_dim: int = 11_008
    """Hidden width F of the feed-forward layer."""
    head_dim: int = 0
    """Width H of a head; 0: dim / num_heads."""
    max_length: int = 2048
    """Context length in tokens."""
    norm: Literal["rmsnorm"] = "rmsnorm"
    """Normalisation before attention, before the feed-forward layer and before the output head."""
    feedforward: Literal["swiglu"] = "swiglu"
    """Kind of the feed-forward layer."""
    position: Literal["rope"] = "rope"
    """How a token's position enters the model: rope rotates queries and keys."""
    rope_theta: float = 10_000.0
    """Base theta of the rotary frequencies theta^(-2i/H)."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    norm_eps: float = 1e-5
    """Epsilon inside the norm's square root."""
    tied_embeddings: bool = False
    """Whether the output head shares the weights of the embedding."""

    def __post_init__(self):
        for name in ("vocab_size", "dim", "num_layers", "num_heads", "num_kv_heads", "ffn_dim", "max_length"):
            _require(getattr(self, name) > 0, f"model.{name} must be positive, got {getattr(self, name)}.")
        _require(self.num_heads % self.num_kv_heads == 0,
                 f"model.num_heads must be a multiple of model.num_kv_heads, got {self.num_heads} query heads "
                 f"and {self.num_kv_heads} kv heads.")
        _require(self.head_dim > 0 or (self.head_dim == 0 and self.dim % self.num_heads == 0),
                 f"model.dim must be a multiple of model.num_heads (or set model.head_dim), got {self.dim} and "
                 f"{self.num_heads}.")
        _require(self.head_size % 2 == 0,
                 f"the width of a head must be even (rotary embeddings turn pairs), got {self.head_size}.")
        _require(self.rope_theta > 0 and self.norm_eps > 0, "model.rope_theta and model.norm_eps must be positive, got "
                 f"{self.rope_theta} and {self.norm_eps}.")

    @property
    def head_size(self) -> int:
        """Width H of a head, with the default dim / num_heads resolved."""
        return self.head_dim or self.dim // self.num_heads


@dataclass(frozen=True)
class ComputeConfig:
    """How a model is computed: dtypes, kernels and rematerialisation, which leave the meaning of its parameters unchanged.

    All of it may change between two sessions of a run.
    """

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Dtype of activations and matrix products; parameters, norms, softmax and logits are always float32."""
    attention: Literal["auto", "reference", "chunked", "cudnn", "splash"] = "auto"
    """Attention backend: auto picks the best and logs which; cudnn runs on NVIDIA GPUs, splash on TPUs, chunked everywhere.
    None of these three stores the T x T attention weights, as reference does."""
    remat: Literal["none", "full", "linear", "offload"] = "none"
    """What the backward pass recomputes: nothing, every block, or all but the outputs of linear layers (section 2.4), kept
    on the device or (offload) in the host's memory."""
    scan_layers: bool = True
    """Compile one block and loop over it; False unrolls the layers (faster for small models, slower to compile)."""
    loss_chunk: int = 1024
    """Tokens per device for which float32 logits are in memory at one time during training."""

    def __post_init__(self):
        _require(self.loss_chunk > 0, f"compute.loss_chunk must be positive, got {self.loss_chunk}.")
