"""Comparison of configs: which fields differ, and whether two configs describe the same model."""

import json
from dataclasses import replace

from llama_jax.config.fields import to_dict
from llama_jax.config.model import ModelConfig, RopeScaling
from llama_jax.config.schema import Config
from llama_jax.errors import ConfigError
from llama_jax.ops.rotary import SCALING_KINDS

FREE_TO_CHANGE = ("max_length",)
"""Model fields that change neither shape nor meaning of the parameters, and may differ between two sessions of a run."""


def check_same_model(saved: Config, wanted: Config) -> None:
    """Raise ConfigError where the wanted model's parameters have another shape or meaning than the checkpoint's."""
    if changed := different_meaning(saved.model, wanted.model):
        differences = ", ".join(f"model.{key} {before} -> {now}" for key, (before, now) in changed.items())
        raise ConfigError(f"this run directory holds another model ({differences}); use another --workdir or the old "
                          "values.")


def different_meaning(one: ModelConfig, other: ModelConfig) -> dict[str, tuple[str, str]]:
    """The fields in which two models mean different parameters, by their dotted names, with both values as JSON."""
    before, now = meaning(one), meaning(other)
    free = () if one.position == other.position == "learned" else FREE_TO_CHANGE  # learned positions are max_length vectors
    return {key: (before[key], now[key]) for key in now if key not in free and before[key] != now[key]}


def meaning(model: ModelConfig) -> dict[str, str]:
    """Canonical form of a model config, equal for configs that describe the same model: dotted field name -> value as JSON.

    head_dim is 0 where it is dim / num_heads, and rotary fields that the position encoding or the kind of scaling does not use
    have their defaults.
    """
    scaling = model.rope_scaling
    used = {field: getattr(scaling, field) for field in SCALING_KINDS[scaling.kind]}
    head_dim = 0 if model.head_dim * model.num_heads == model.dim else model.head_dim
    theta = model.rope_theta if model.position in ("rope", "rope3d") else ModelConfig.rope_theta
    return flat(to_dict(replace(model, head_dim=head_dim, rope_theta=theta, rope_scaling=RopeScaling(scaling.kind, **used))))


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Flatten nested fields to dotted name -> value as JSON; `prefix` goes before every name."""
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: json.dumps(value)}
    return result


def changes(saved: Config, wanted: Config) -> list[str]:
    """List the fields that differ, as lines `field: before -> now`."""
    before, now = flat(to_dict(saved)), flat(to_dict(wanted))
    return [f"{key}: {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]


def different_from_default(model: ModelConfig) -> list[tuple[str, str]]:
    """List (name, value as JSON) of the model fields that differ from the default model, sorted by name.

    A field that a later version adds does not change the list of an existing model.
    """
    return sorted(meaning(model).items() - meaning(ModelConfig()).items())
