"""Hugging Face's config.json, read into a ModelConfig and written from one."""

import math
from pathlib import Path
from typing import Any

from llama_jax.config import ModelConfig, RopeScaling
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.json_kinds import show_value
from llama_jax.formats.base import check_reads_back
from llama_jax.formats.json_fields import JsonFields, model_config_from
from llama_jax.ops.rotary import yarn_magnitude

_NEUTRAL_VALUES = {
    "hidden_act": ("silu", "swish"), "sliding_window": (), "use_sliding_window": (False,), "partial_rotary_factor": (1, 1.0),
    "rope_interleaved": (False,), "quantization_config": (), "layer_types": (), "num_local_experts": (),
    "attention_multiplier": (), "residual_multiplier": (1, 1.0), "embedding_multiplier": (1, 1.0), "logits_scaling": (1, 1.0),
    "transformers_weights": (),
}
"""Keys that change the model's computation, and the values (beside null) with which it still is a LLaMA."""


def config_from_hf(values: dict[str, Any], file: Path) -> ModelConfig:
    """The ModelConfig of a config.json, in its old and its new spelling.

    Raises DataError, naming the key, where it describes something else than a LLaMA.
    """
    fields = JsonFields(values, file)
    architectures = values.get("architectures") or ["LlamaForCausalLM"]
    if architectures != ["LlamaForCausalLM"] or values.get("model_type", "llama") != "llama":
        raise DataError(f"{file} describes {values.get('model_type')!r} ({architectures}); only LlamaForCausalLM is read.")
    for key, allowed in _NEUTRAL_VALUES.items():
        if values.get(key) is not None and values[key] not in allowed:
            raise DataError(f"{file}: {key} = {show_value(values[key])} asks for something that this model does not have.")
    dim, heads = fields.get("hidden_size", int), fields.get("num_attention_heads", int)
    head_dim = fields.get("head_dim", int, default=0)
    theta, scaling = rotary_from_hf(values, file)
    return model_config_from(
        file,
        vocab_size=fields.get("vocab_size", int),
        dim=dim,
        num_layers=fields.get("num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=fields.get("num_key_value_heads", int, default=heads),
        ffn_dim=fields.get("intermediate_size", int),
        head_dim=0 if head_dim * heads == dim else head_dim,  # a ModelConfig says 0 for dim / num_heads
        use_bias=_use_bias(fields),
        max_length=fields.get("max_position_embeddings", int, default=2048),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=fields.get("rms_norm_eps", float, default=1e-6),
        tied_embeddings=fields.get("tie_word_embeddings", bool, default=False),
    )


def _use_bias(fields: JsonFields) -> bool:
    """Whether all matrices of attention and feed-forward layers have biases; raises DataError where those of one of them have."""
    attention, mlp = (fields.get(key, bool, default=False) for key in ("attention_bias", "mlp_bias"))
    if attention != mlp:
        raise DataError(f"{fields.file}: attention_bias = {attention} and mlp_bias = {mlp} ask for biases in one kind of layer "
                        "alone; this model has them in both or in neither (model.use_bias).")
    return attention


def rotary_from_hf(values: dict[str, Any], file: Path) -> tuple[float, RopeScaling]:
    """(rope_theta, scaling) from rope_parameters (new spelling), or from rope_theta and rope_scaling (old).

    Raises DataError where the two contradict each other: releases of transformers differ in which of them they follow.
    """
    spelled = [values[key] for key in ("rope_parameters", "rope_scaling") if values.get(key)]
    meant = [_rotary_of_spelling(values, spelling, file=file) for spelling in spelled or [{}]]
    if meant[0] != meant[-1]:
        raise DataError(f"{file}: rope_parameters and rope_scaling do not mean the same; remove the one that is wrong.")
    return meant[0]


def _rotary_of_spelling(values: dict[str, Any], nested: Any, *, file: Path) -> tuple[float, RopeScaling]:
    """(rope_theta, scaling) of the object under one of the two keys, `nested`, beside the other values of a config."""
    if not isinstance(nested, dict):
        raise DataError(f"{file}: rope_scaling should be an object, got {nested!r}.")
    for key in nested.keys() & {"rope_theta", "original_max_position_embeddings"}:
        if values.get(key) not in (None, nested[key]):
            raise DataError(f"{file}: {key} is {values[key]!r} and, where the rotary scaling is described, {nested[key]!r}; "
                            "remove the one that is wrong.")
    fields = JsonFields(values | nested, file)
    theta = fields.get("rope_theta", float, default=10_000.0)
    kind = nested.get("rope_type", nested.get("type", "default"))
    if nested.get("type", kind) != kind:
        raise DataError(f"{file}: rope_type is {kind!r} and type {nested['type']!r}; remove the one that is wrong.")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise DataError(f"{file}: rope scaling {kind!r} is not implemented; known are default, linear, llama3 and yarn.")
    if nested.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise DataError(f"{file}: partial_rotary_factor = {nested['partial_rotary_factor']!r} asks for something that this "
                        "model does not have.")
    try:
        if kind == "linear":
            return theta, RopeScaling("linear", factor=fields.get("factor", float))
        if kind == "llama3":
            return theta, RopeScaling(
                "llama3",
                factor=fields.get("factor", float),
                low_freq_factor=fields.get("low_freq_factor", float),
                high_freq_factor=fields.get("high_freq_factor", float),
                original_length=fields.get("original_max_position_embeddings", int),
            )
        if kind == "yarn":
            return theta, _yarn_of(fields)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None
    return theta, RopeScaling()


def _yarn_of(fields: JsonFields) -> RopeScaling:
    """YaRN as transformers reads it; raises DataError for keys that make it another one than `ops.rotary` computes."""
    factor = fields.get("factor", float)
    if fields.values.get("truncate", True) is not True:
        raise DataError(f"{fields.file}: truncate = {fields.values['truncate']!r} leaves yarn's borders unrounded; only true "
                        "is implemented.")
    magnitude, stated = yarn_magnitude(factor), fields.get("attention_factor", float, default=None)
    above, below = (fields.get(key, float, default=0.0) for key in ("mscale", "mscale_all_dim"))
    key = "attention_factor"
    if stated is None and above and below:  # transformers heeds these two where there is no attention_factor, and only together
        key, stated = "mscale", yarn_magnitude(factor, above) / yarn_magnitude(factor, below)
    if stated is not None and not math.isclose(stated, magnitude, rel_tol=1e-6):
        raise DataError(f"{fields.file}: {key} makes yarn multiply queries and keys by {stated:g}; only 0.1 ln(factor) + 1 = "
                        f"{magnitude:g} is implemented.")
    return RopeScaling(
        "yarn",
        factor=factor,
        original_length=fields.get("original_max_position_embeddings", int,
                                   default=fields.get("max_position_embeddings", int, default=2048)),
        beta_fast=fields.get("beta_fast", float, default=0.0) or 32.0,
        beta_slow=fields.get("beta_slow", float, default=0.0) or 1.0,
    )


def config_to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The values of config.json for weights stored in `dtype`, in the spelling that every release of transformers reads.

    Raises ConfigError for a model that they cannot describe.
    """
    c = config
    values = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": c.use_bias, "attention_dropout": 0.0,
        "hidden_act": "silu", "hidden_size": c.dim, "intermediate_size": c.ffn_dim, "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads, "num_key_value_heads": c.num_kv_heads, "head_dim": c.head_size,
        "max_position_embeddings": c.max_length, "mlp_bias": c.use_bias, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta,
        "rope_scaling": _scaling_to_hf(c.rope_scaling), "tie_word_embeddings": c.tied_embeddings, "torch_dtype": dtype,
        "initializer_range": 0.02, "use_cache": True, "vocab_size": c.vocab_size,
    }
    check_reads_back(config, config_from_hf(values, Path("config.json")), format="config.json of Hugging Face")
    return values


def _scaling_to_hf(scaling: RopeScaling) -> dict[str, Any] | None:
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "llama3":
        return {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor, "original_max_position_embeddings": scaling.original_length}
    if scaling.kind == "yarn":
        return {"rope_type": "yarn", "factor": scaling.factor, "original_max_position_embeddings": scaling.original_length,
                "beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow,
                "attention_factor": yarn_magnitude(scaling.factor)}
    return None
