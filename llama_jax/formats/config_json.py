"""The shape of a model as config.json (Hugging Face) and params.json (Meta) spell it, from and to a ModelConfig."""

import json
import math
from pathlib import Path
from typing import Any

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.errors import ConfigError, DataError
from llama_jax.tokenizer.base import Tokenizer

NEUTRAL = {
    "attention_bias": (False,), "mlp_bias": (False,), "hidden_act": ("silu", "swish"), "sliding_window": (),
    "use_sliding_window": (False,), "partial_rotary_factor": (1, 1.0), "rope_interleaved": (False,),
    "quantization_config": (), "layer_types": (), "num_local_experts": (), "attention_multiplier": (),
    "residual_multiplier": (1, 1.0), "embedding_multiplier": (1, 1.0), "logits_scaling": (1, 1.0),
    "transformers_weights": (),
}
"""Keys of config.json that change the model, and their values (beside null) that leave it a LLaMA."""
MOST_SHOWN = 100
"""Characters of a value that an error shows."""
META_KEYS = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
             "rope_theta", "use_scaled_rope", "rope_scaling_factor", "rope_high_freq_factor", "max_seq_len", "max_batch_size"}
MULTIPLES = ((256, None), (1024, 1.3), (4096, 1.3), (256, 1.5), (1024, 1.0), (1024, 1.4), (32, None))
"""(multiple_of, ffn_dim_multiplier) of released models, tried before others."""


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; raises DataError."""
    try:
        values = json.loads(file.read_bytes(), object_pairs_hook=lambda pairs: _object(pairs, file))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({str(error)[:100]}); get it again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} should hold an object, got {str(values)[:60]!r}.")
    return values


def _object(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    """An object; raises DataError where one key has two values, of which JSON readers take the last without a word."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise DataError(f"{file} says {key} twice, {brief(values[key])} and {brief(value)}; remove one of them.")
        values[key] = value
    return values


def brief(value: Any) -> str:
    """A value from a file, as much of it as a sentence can hold."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + " ..."


class Reader:
    """Values of a JSON object, each checked for its type."""

    def __init__(self, values: dict[str, Any], file: Path):
        self.values, self.file = values, file

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """A value, or where it is absent or null the default; raises DataError."""
        value = self.values.get(key)
        if value is None and default is not ...:
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            what = f"got {value!r}" if key in self.values else "it is missing"
            raise DataError(f"{self.file}: {key} should be {kind.__name__}, {what}.")
        return value


def built(file: Path, **fields: Any) -> ModelConfig:
    """A ModelConfig; what it complains of is laid to the file."""
    try:
        return ModelConfig(**fields)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def model_config(values: dict[str, Any], file: Path, dtype: str = "bfloat16") -> ModelConfig:
    """Of a config.json, in old and new spelling; raises DataError, by name, for what is no LLaMA."""
    read = Reader(values, file)
    architectures = values.get("architectures") or ["LlamaForCausalLM"]
    if architectures != ["LlamaForCausalLM"] or values.get("model_type", "llama") != "llama":
        raise DataError(f"{file} describes {values.get('model_type')!r} ({architectures}); only LlamaForCausalLM is read.")
    for key, allowed in NEUTRAL.items():
        if values.get(key) is not None and values[key] not in allowed:
            raise DataError(f"{file}: {key} = {brief(values[key])} asks for something that this model does not have.")
    dim, heads = read.get("hidden_size", int), read.get("num_attention_heads", int)
    theta, scaling = rope(values, file)
    return built(
        file, vocab_size=read.get("vocab_size", int), dim=dim, num_layers=read.get("num_hidden_layers", int),
        num_heads=heads, num_kv_heads=read.get("num_key_value_heads", int, heads), ffn_dim=read.get("intermediate_size", int),
        head_dim=own_head_dim(read.get("head_dim", int, 0), dim, heads),
        max_length=read.get("max_position_embeddings", int, 2048), rope_theta=theta, rope_scaling=scaling,
        norm_eps=read.get("rms_norm_eps", float, 1e-6),
        tied_embeddings=read.get("tie_word_embeddings", bool, False), dtype=dtype,
    )


def own_head_dim(head_dim: int, dim: int, heads: int) -> int:
    """0 where a head's width is dim / heads, as a ModelConfig writes it."""
    return 0 if head_dim * heads == dim else head_dim


def rope(values: dict[str, Any], file: Path) -> tuple[float, RopeScaling]:
    """theta and scaling: rope_parameters (new), or rope_theta and rope_scaling (old).

    Raises DataError where the spellings contradict each other: releases of transformers differ in which they believe.
    """
    spelled = [key for key in ("rope_parameters", "rope_scaling") if values.get(key)]
    meant = [_rope(values, values[key], file=file) for key in spelled] or [_rope(values, {}, file=file)]
    if meant[0] != meant[-1]:
        raise DataError(f"{file}: rope_parameters and rope_scaling do not mean the same; remove the one that is wrong.")
    return meant[0]


def _rope(values: dict[str, Any], nested: Any, *, file: Path) -> tuple[float, RopeScaling]:
    """theta and scaling of one spelling, `nested`, within all the values of a config."""
    if not isinstance(nested, dict):
        raise DataError(f"{file}: rope_scaling should be an object, got {nested!r}.")
    for key in nested.keys() & {"rope_theta", "original_max_position_embeddings"}:
        if values.get(key) not in (None, nested[key]):
            raise DataError(f"{file}: {key} is {values[key]!r} and, where the rotary scaling is described, {nested[key]!r}; "
                            "remove the one that is wrong.")
    read = Reader(values | nested, file)
    theta = read.get("rope_theta", float, 10_000.0)
    kind = nested.get("rope_type", nested.get("type", "default"))
    if nested.get("type", kind) != kind:
        raise DataError(f"{file}: rope_type is {kind!r} and type {nested['type']!r}; remove the one that is wrong.")
    if kind not in ("default", "linear", "llama3"):
        raise DataError(f"{file}: rope scaling {kind!r} is not implemented; known are default, linear and llama3.")
    if nested.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise DataError(f"{file}: partial_rotary_factor = {nested['partial_rotary_factor']!r} asks for something that this "
                        "model does not have.")
    try:
        if kind == "linear":
            return theta, RopeScaling("linear", factor=read.get("factor", float))
        if kind == "llama3":
            return theta, RopeScaling(
                "llama3", read.get("factor", float), read.get("low_freq_factor", float), read.get("high_freq_factor", float),
                read.get("original_max_position_embeddings", int))
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None
    return theta, RopeScaling()


def hf_settings(config: ModelConfig, dtype: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """config.json, in the spelling that every release of transformers reads."""
    c, s = config, config.rope_scaling
    scaling = {"linear": {"rope_type": "linear", "factor": s.factor},
               "llama3": {"rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor,
                          "high_freq_factor": s.high_freq_factor, "original_max_position_embeddings": s.original_length}}
    values = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
        "hidden_act": "silu", "hidden_size": c.dim, "intermediate_size": c.ffn_dim, "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads, "head_dim": c.head_size,
        "max_position_embeddings": c.max_length, "mlp_bias": False, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta,
        "rope_scaling": scaling.get(s.kind), "tie_word_embeddings": c.tied_embeddings, "torch_dtype": dtype,
        "initializer_range": 0.02, "use_cache": True, "vocab_size": c.vocab_size,
    }
    if tokenizer is not None:
        eos = list(tokenizer.eos_ids)
        values |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos[0] if len(eos) == 1 else eos}
    return values


def meta_config(values: dict[str, Any], file: Path, *, vocab_size: int, ffn_dim: int, tied: bool, dtype: str) -> ModelConfig:
    """Of a params.json, and what only the tensors tell.

    Meta's files are silent about the context: 2,048 (LLaMA 1), but 8,192 for rope_theta 500,000 (Llama 3) and 131,072
    where the rotary frequencies are stretched.
    """
    if unknown := values.keys() - META_KEYS:
        raise DataError(f"{file}: {', '.join(sorted(unknown))} asks for something that this model does not have.")
    read = Reader(values, file)
    dim, heads, theta = read.get("dim", int), read.get("n_heads", int), read.get("rope_theta", float, 10_000.0)
    scaled = read.get("use_scaled_rope", bool, False)
    scaling = RopeScaling("llama3", factor=read.get("rope_scaling_factor", float, 8.0),
                          high_freq_factor=read.get("rope_high_freq_factor", float, 4.0)) if scaled else RopeScaling()
    length = 131_072 if scaled else 8192 if theta == 500_000.0 else 2048
    if min(dim, heads) < 1:
        raise DataError(f"{file}: dim and n_heads must be positive, got {dim} and {heads}.")
    config = built(
        file, vocab_size=vocab_size, dim=dim, num_layers=read.get("n_layers", int), num_heads=heads,
        num_kv_heads=read.get("n_kv_heads", int, heads), ffn_dim=ffn_dim, rope_theta=theta, rope_scaling=scaling,
        max_length=read.get("max_seq_len", int, length), norm_eps=read.get("norm_eps", float, 1e-5), tied_embeddings=tied,
        dtype=dtype,
    )
    told, multiple = read.get("vocab_size", int, -1), read.get("multiple_of", int, 256)
    if told not in (-1, vocab_size):
        raise DataError(f"{file}: vocab_size is {told}, and the embedding has {vocab_size} rows.")
    if multiple < 1 or ffn_width(dim, multiple, read.get("ffn_dim_multiplier", float, None)) != ffn_dim:
        raise DataError(f"{file}: multiple_of and ffn_dim_multiplier do not give the feed-forward width {ffn_dim} of the "
                        "tensors.")
    return config


def ffn_width(dim: int, multiple: int, multiplier: float | None) -> int:
    """Meta's rule: two thirds of 4 dim, stretched, rounded up."""
    width = int(2 * 4 * dim / 3)
    width = int(multiplier * width) if multiplier is not None else width
    return multiple * math.ceil(width / multiple)


def meta_settings(config: ModelConfig) -> dict[str, Any]:
    """params.json; raises ConfigError for what Meta's format cannot say."""
    c, s = config, config.rope_scaling
    if c.head_size * c.num_heads != c.dim:
        raise ConfigError(f"Meta's format has heads of width dim / num_heads = {c.dim / c.num_heads:g}, and this model's are "
                          f"{c.head_size} wide; convert to hf or orbax.")
    if s.kind == "linear" or (s.kind == "llama3" and (s.low_freq_factor, s.original_length) != (1.0, 8192)):
        raise ConfigError(f"Meta's format cannot say this rope scaling ({s}); convert to hf or orbax.")
    values = {"dim": c.dim, "n_layers": c.num_layers, "n_heads": c.num_heads, "n_kv_heads": c.num_kv_heads,
              "vocab_size": c.vocab_size, "norm_eps": c.norm_eps, "rope_theta": c.rope_theta}
    width = int(2 * 4 * c.dim / 3)
    own = (math.gcd(c.ffn_dim, 256), (c.ffn_dim + 0.5) / width)
    multiple, multiplier = next(pair for pair in (*MULTIPLES, own) if ffn_width(c.dim, *pair) == c.ffn_dim)
    values |= {"multiple_of": multiple} | ({} if multiplier is None else {"ffn_dim_multiplier": multiplier})
    if s.kind == "llama3":
        values |= {"use_scaled_rope": True}
        values |= {} if s.factor == 8.0 else {"rope_scaling_factor": s.factor}
        values |= {} if s.high_freq_factor == 4.0 else {"rope_high_freq_factor": s.high_freq_factor}
    return values
