"""Conversion of config dataclasses from and to JSON values; an unknown key or wrong type raises a ConfigError."""

import dataclasses
import json
import math
import typing
from typing import Any, Literal

from llama_jax.errors import ConfigError, nearest
from llama_jax.files.json_kinds import json_fault, show_value

MAX_FIELD, MAX_SEED = 2**31 - 1, 2**63 - 1
"""Largest whole number of a field, and of a seed: what arrays on a device count with."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` where `condition` does not hold."""
    if not condition:
        raise ConfigError(message)


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a config dataclass to JSON values: dicts, lists, strings, numbers and bools."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type, values: dict[str, Any], *, where: str = "") -> Any:
    """Make an instance of the dataclass `cls` from JSON values; raises ConfigError for unknown keys and wrong types.

    `where` is put before the names of fields in errors, such as "model.".
    """
    require(isinstance(values, dict), f"{where or 'the config'} should be an object, got {show_value(values)}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"unknown key {where}{key[:100]}{nearest(key[:100], hints)}")
    without_default = (dataclasses.MISSING, dataclasses.MISSING)
    for field in dataclasses.fields(cls):
        if field.name not in values and (field.default, field.default_factory) == without_default:
            raise ConfigError(f"{where}{field.name} is missing.")
    return cls(**{key: _convert(hints[key], value, where=f"{where}{key}") for key, value in values.items()})


def check_choices(config: Any, where: str) -> None:
    """Raise ConfigError where a field of a config dataclass that has a few possible values has another one."""
    for name, choices in choices_of(type(config)).items():
        if "." not in name:  # the dataclasses inside it check themselves
            check_choice(getattr(config, name), choices, where=f"{where}.{name}")


def choices_of(cls: type, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """The possible values of every field of a config dataclass that has a few, by its dotted name."""
    choices = {}
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            choices |= choices_of(hint, f"{prefix}{name}.")
        elif typing.get_origin(hint) is Literal:
            choices[prefix + name] = typing.get_args(hint)
    return choices


def check_choice(value: Any, choices: tuple[Any, ...], *, where: str) -> None:
    """Raise ConfigError where a field's value is none of its choices; `where` is its dotted name."""
    if value not in choices:
        guess = nearest(value[:100], choices) if isinstance(value, str) else f"; known: {', '.join(map(str, choices))}."
        raise ConfigError(f"{where} cannot be {show_value(value)}{guess}")


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Convert a JSON value to the type that a dataclass declares; `where` is the field's dotted name, for errors."""
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where=f"{where}.")
    if typing.get_origin(hint) is Literal:
        check_choice(value, typing.get_args(hint), where=where)
        return value
    if typing.get_origin(hint) is tuple:
        require(isinstance(value, list | tuple), f"{where} should be a list, got {show_value(value)}.")
        return tuple(_convert(typing.get_args(hint)[0], item, where=f"{where}[{i}]") for i, item in enumerate(value))
    require(not json_fault(value, hint), f"{where} should be {hint.__name__}, got {show_value(value)}.")
    return hint(value)


def check_numbers(config: Any, where: str = "") -> None:
    """Raise ConfigError where a number in a dataclass, or in those inside it, is infinite, not a number or too large.

    `where` is put before the names of fields in the error, such as "model.".
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{name}.")
        elif isinstance(value, int):
            most = MAX_SEED if field.name.endswith("seed") else MAX_FIELD
            require(-most <= value <= most, f"{name} must lie between -{most:,} and {most:,}, got {show_value(value)}.")
        elif isinstance(value, float):
            require(math.isfinite(value), f"{name} must be a finite number, got {value}.")
