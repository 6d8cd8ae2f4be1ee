"""Which fields of two configs differ, and whether two models mean the same."""

import json
from dataclasses import replace

from llama_jax.config.fields import to_dict
from llama_jax.config.model import ModelConfig, RopeScaling
from llama_jax.config.schema import Config
from llama_jax.errors import ConfigError
from llama_jax.ops.rotary import SCALING_KINDS

FREE_TO_CHANGE = ("max_length",)
"""Model fields that leave the parameters as they are and may differ between two sessions of a run."""


def check_same_model(saved: Config, wanted: Config) -> None:
    """Raise ConfigError where the run's parameters have another shape or meaning than the checkpoint's."""
    before, now = meaning(saved.model), meaning(wanted.model)
    changed = [key for key in now if key not in FREE_TO_CHANGE and before[key] != now[key]]
    if changed:
        differences = ", ".join(f"model.{key} {before[key]} -> {now[key]}" for key in changed)
        raise ConfigError(f"this run directory holds another model ({differences}); use another --workdir or the old "
                          "values.")


def meaning(model: ModelConfig) -> dict[str, str]:
    """Model fields by their dotted names, alike for configs that mean the same model: head_dim is 0 where it is dim / num_heads,
    and fields of rope_scaling that its kind does not use have their defaults."""
    scaling = model.rope_scaling
    used = {field: getattr(scaling, field) for field in SCALING_KINDS[scaling.kind]}
    head_dim = 0 if model.head_dim * model.num_heads == model.dim else model.head_dim
    return flat(to_dict(replace(model, head_dim=head_dim, rope_scaling=RopeScaling(scaling.kind, **used))))


def flat(values: dict, prefix: str = "") -> dict[str, str]:
    """Nested fields by their dotted names, values as JSON."""
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: json.dumps(value)}
    return result


def changes(saved: Config, wanted: Config) -> list[str]:
    """Lines `field: before -> now` of every field that differs."""
    before, now = flat(to_dict(saved)), flat(to_dict(wanted))
    return [f"{key}: {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]


def different_from_default(model: ModelConfig) -> list[tuple[str, str]]:
    """(name, value as JSON) of the model fields that are not the default's, sorted: a new field leaves it as it was."""
    return sorted(meaning(model).items() - meaning(ModelConfig()).items())
