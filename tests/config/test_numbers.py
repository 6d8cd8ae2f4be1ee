"""Numbers of every field of a config, and of every command's options, have bounds: none reaches a library that cannot hold it."""

import dataclasses
import typing
from functools import partial

import pytest

from llama_jax.__main__ import COMMANDS
from llama_jax.cli.parsing import apply_overrides, parse_options
from llama_jax.config import Config, ModelConfig, RopeScaling, to_dict
from llama_jax.config.fields import from_dict
from llama_jax.config.file import config_from_dict
from llama_jax.config.study import Study
from llama_jax.errors import ConfigError


def numbers(cls: type, prefix: str = "") -> list[tuple[str, type]]:
    """(dotted name, int or float) of every number of a config class."""
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found += numbers(hint, f"{prefix}{name}.")
        elif hint in (int, float):
            found.append((prefix + name, hint))
    return found


FIELDS = numbers(Config)
TOO_MUCH = {int: (10**20, -(10**20), 2**63), float: (float("inf"), float("-inf"), float("nan"))}


def with_value(name: str, value) -> dict:
    values = to_dict(Config())
    holder = values
    *sections, last = name.split(".")
    for section in sections:
        holder = holder[section]
    holder[last] = value
    return values


@pytest.mark.parametrize("name, kind", FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_has_bounds(name, kind):
    for value in TOO_MUCH[kind]:
        with pytest.raises(ConfigError, match=r"\w"):
            config_from_dict(with_value(name, value))
    for text in ("1e999", "nan") if kind is float else ("99999999999999999999", "-99999999999999999999"):
        with pytest.raises(ConfigError, match=name.rpartition(".")[2]):
            apply_overrides(Config(), [f"--{name}", text])


def test_a_field_without_a_default_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"arms\[0\].name is missing"):
        from_dict(Study, {"arms": [{"config": {}}]})


def test_there_are_fields():
    assert {"training.num_steps", "optimizer.peak_lr", "model.rope_scaling.factor", "checkpoint.every"} <= {n for n, _ in FIELDS}


def test_the_largest_values_are_still_a_config():
    config = Config(training=dataclasses.replace(Config().training, num_steps=2**31 - 1, seed=2**63 - 1))
    assert config_from_dict(to_dict(config)) == config


def test_a_model_alone_is_checked_too():
    with pytest.raises(ConfigError, match=r"model.num_layers must lie between -2,147,483,647 and 2,147,483,647, got 100000"):
        ModelConfig(num_layers=10**20)
    with pytest.raises(ConfigError, match=r"model.rope_theta must be a finite number, got inf"):
        ModelConfig(rope_theta=float("inf"), rope_scaling=RopeScaling("linear"))


PLAIN = [name for name, command in COMMANDS.items() if command.parse is None and name not in ("clean", "tokenizer")]
OPTIONS = [(name, field, hint) for name in PLAIN
           for field, hint in typing.get_type_hints(COMMANDS[name].options).items() if hint in (int, float, int | None)]
NEEDED = {"eval": [], "generate": ["--checkpoint", "x"], "score": ["--checkpoint", "x", "--input", "a", "--output", "b"],
          "serve": ["--checkpoint", "x"], "convert": ["--source", "a", "--target", "b", "--to", "hf"],
          "inspect": ["--checkpoint", "x"], "prepare": ["--input", "a", "--tokenizer", "t", "--output", "o"]}


@pytest.mark.parametrize("command, option, hint", OPTIONS, ids=[f"{command}-{option}" for command, option, _ in OPTIONS])
def test_options_of_commands_have_bounds(command, option, hint):
    parse = partial(parse_options, COMMANDS[command].options, prog=command)
    parse([*NEEDED[command], f"--{option}", "1"])
    with pytest.raises(ConfigError, match=option):
        parse([*NEEDED[command], f"--{option}", "1e999" if hint is float else "9" * 20])
