"""Configuration of the model: its architecture (`ModelConfig`), separate from how it is computed (`ComputeConfig`)."""

from dataclasses import dataclass, field
from typing import Literal

from llama_jax.config.fields import check_choices as _check_choices
from llama_jax.config.fields import check_numbers as _check_numbers
from llama_jax.config.fields import require as _require


@dataclass(frozen=True)
class RopeScaling:
    """Scaling of the rotary frequencies, for contexts longer than those that the model was trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """linear divides every frequency by factor (Chen et al. 2023); llama3 (arXiv 2407.21783) and yarn (Peng et al. 2023) only the
    slow ones, and yarn also sharpens attention."""
    factor: float = 8.0
    """Factor by which frequencies are divided."""
    low_freq_factor: float = 1.0
    """llama3: pairs that turn fewer times than this within original_length tokens are divided by factor."""
    high_freq_factor: float = 4.0
    """llama3: pairs that turn more times than this within original_length tokens keep their frequency."""
    original_length: int = 8192
    """llama3, yarn: context length in tokens before the scaling."""
    beta_fast: float = 32.0
    """yarn: pairs that turn more times than this within original_length tokens keep their frequency."""
    beta_slow: float = 1.0
    """yarn: pairs that turn fewer times than this within original_length tokens are divided by factor."""

    def __post_init__(self):
        _check_choices(self, "model.rope_scaling")
        _require(1 <= self.factor < float("inf"), f"model.rope_scaling.factor must be at least 1, got {self.factor}.")
        _require(0 < self.low_freq_factor < self.high_freq_factor < float("inf") and self.original_length > 0,
                 "model.rope_scaling wants 0 < low_freq_factor < high_freq_factor and a positive original_length, got "
                 f"{self.low_freq_factor}, {self.high_freq_factor} and {self.original_length}.")
        _require(0 < self.beta_slow < self.beta_fast < float("inf"), "model.rope_scaling wants 0 < beta_slow < beta_fast, got "
                 f"{self.beta_slow} and {self.beta_fast}.")


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
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Normalisation layer (Zhang & Sennrich 2019; Ba et al. 2016)."""
    norm_position: Literal["pre", "post"] = "pre"
    """Place of the norms: pre normalises the input of each attention and feed-forward layer, and once more before the output
    head; post normalises the sum of residual stream and output, as the Transformer of 2017 does (Xiong et al. 2020)."""
    feedforward: Literal["relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu"] = "swiglu"
    """Kind of the feed-forward layer (Shazeer 2020); the last five have a gate, a third matrix of ffn_dim columns."""
    use_bias: bool = False
    """Whether the matrix products of attention and feed-forward layer add a learned bias."""
    position: Literal["rope", "rope3d", "sinusoidal", "learned", "shaw", "alibi", "none"] = "rope"
    """How a token's position enters the model: rope and rope3d rotate queries and keys, sinusoidal and learned add a vector to
    the embedding, shaw adds learned vectors to keys and values by distance, alibi lowers scores in proportion to distance, none
    leaves order to the causal mask."""
    rope_theta: float = 10_000.0
    """rope, rope3d: base theta of the rotary frequencies theta^(-2i/H)."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    """rope, rope3d: how the frequencies are scaled for long contexts."""
    rope_chunk: int = 3000
    """rope3d: tokens per chunk, within which it equals rope (Ma et al. 2024)."""
    relative_clip: int = 16
    """shaw: distance in tokens from which on all distances share one vector (Shaw et al. 2018)."""
    norm_eps: float = 1e-5
    """Epsilon inside the norm's square root."""
    tied_embeddings: bool = False
    """Whether the output head shares the weights of the embedding."""

    def __post_init__(self):
        _check_choices(self, "model")
        for name in ("vocab_size", "dim", "num_layers", "num_heads", "num_kv_heads", "ffn_dim", "max_length"):
            _require(getattr(self, name) > 0, f"model.{name} must be positive, got {getattr(self, name)}.")
        _require(self.num_heads % self.num_kv_heads == 0,
                 f"model.num_heads must be a multiple of model.num_kv_heads, got {self.num_heads} query heads "
                 f"and {self.num_kv_heads} kv heads.")
        _require(self.head_dim > 0 or (self.head_dim == 0 and self.dim % self.num_heads == 0),
                 f"model.dim must be a multiple of model.num_heads (or set model.head_dim), got {self.dim} and "
                 f"{self.num_heads}.")
        _require(self.rope_theta > 0 and self.norm_eps > 0, "model.rope_theta and model.norm_eps must be positive, got "
                 f"{self.rope_theta} and {self.norm_eps}.")
        _check_numbers(self, "model.")
        self._check_position()

    def _check_position(self):
        """Raise ConfigError where the position encoding does not fit the widths, or a field of another encoding is set."""
        rotary = self.position in ("rope", "rope3d")
        _require(not rotary or self.head_size % 2 == 0,
                 f"the width of a head must be even (rotary embeddings turn pairs), got {self.head_size}.")
        _require(self.position != "sinusoidal" or self.dim % 2 == 0,
                 f"model.position sinusoidal wants an even model.dim (a sine and a cosine per frequency), got {self.dim}.")
        _require(rotary or self.rope_scaling.kind == "none",
                 f"model.rope_scaling is for model.position rope and rope3d, and this model's is {self.position}.")
        for name, position in (("rope_chunk", "rope3d"), ("relative_clip", "shaw")):
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            _require(value > 0, f"model.{name} must be positive, got {value}.")
            _require(value == default or self.position == position,
                     f"model.{name} is for model.position {position}, and this model's is {self.position}.")

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
        _check_choices(self, "compute")
        _require(self.loss_chunk > 0, f"compute.loss_chunk must be positive, got {self.loss_chunk}.")
