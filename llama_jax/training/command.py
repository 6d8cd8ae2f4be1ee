"""The command line of training: a config file, then any field by its dotted name."""

import importlib.util
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from llama_jax.config import Config, from_dict
from llama_jax.errors import ConfigError, exit_code_of

USAGE = "usage: python train.py --config FILE[.py|.json] [--workdir DIR] [--any.field VALUE]... (--help after a config lists the fields)"


@dataclass(frozen=True)
class Arguments:
    """Train a LLaMA. The same command again resumes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: str = ""
    """Run directory; default runs/<config name>."""


def main(arguments: list[str]) -> int:
    """Parse, train, and return the exit code."""
    return exit_code_of(lambda: run(arguments))


def run(arguments: list[str]) -> None:
    """Read the config, apply overrides, `fit`."""
    path, rest = split_config(arguments)
    config, workdir = parse(load_config(path), rest)
    from llama_jax.training.loop import fit  # jax starts only once the command line is known to be good

    fit(config, workdir)


def split_config(arguments: list[str]) -> tuple[Path, list[str]]:
    """The value of --config, and the other arguments."""
    for at, argument in enumerate(arguments):
        if argument == "--config" and at + 1 < len(arguments):
            return Path(arguments[at + 1]), arguments[:at] + arguments[at + 2:]
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), arguments[:at] + arguments[at + 1:]
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        sys.exit(0)
    raise ConfigError(f"--config is missing. {USAGE}")


def load_config(path: Path) -> Config:
    """The Config that `get_config()` of a .py file returns, or that a .json file holds; named after the file."""
    if not path.is_file():
        raise ConfigError(f"no config file {path}.")
    if path.suffix == ".json":
        try:
            config = from_dict(Config, json.loads(path.read_text()))
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
    elif path.suffix == ".py":
        spec = importlib.util.spec_from_file_location("llama_jax_config", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config") or not isinstance(config := module.get_config(), Config):
            raise ConfigError(f"{path} should define get_config() that returns a llama_jax.config.Config.")
    else:
        raise ConfigError(f"--config wants a .py or .json file, got {path}.")
    return config if config.name else replace(config, name=path.stem)


def parse(config: Config, arguments: list[str]) -> tuple[Config, Path]:
    """Overrides applied to `config`, and the run directory."""
    parsed = tyro.cli(
        Arguments,
        prog="train.py --config FILE",
        args=arguments,
        default=Arguments(config),
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )
    return parsed.config, Path(parsed.workdir or Path("runs") / parsed.config.name)
