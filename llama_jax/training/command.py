"""The command line of training: a config file, then any field by its dotted name."""

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from llama_jax.allocator import keep_freed_memory
from llama_jax.config import Config, from_dict, nearest
from llama_jax.errors import ConfigError, exit_code_of

USAGE = ("usage: python train.py --config FILE[.py|.json] [--workdir DIR] [--any.field VALUE]... "
         "(--help after a config lists the fields)")

MakeEvaluators = Callable[[Config, Path], Sequence[Callable[[Any], dict[str, float]]]]
"""(config, run directory) -> functions of the live parameters; evaluation stands above training, so the door brings it."""


@dataclass(frozen=True)
class Arguments:
    """Train a LLaMA. The same command again resumes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: str = ""
    """Run directory; default runs/<config name>."""


def main(arguments: list[str], evaluators: MakeEvaluators = lambda config, workdir: ()) -> int:
    """Parse, train, and return the exit code; `evaluators` are what the config's `eval` asks for."""
    return exit_code_of(lambda: run(arguments, evaluators))


def run(arguments: list[str], evaluators: MakeEvaluators) -> None:
    """Read the config, apply overrides, `fit`."""
    path, rest = split_config(arguments)
    config, workdir = parse(load_config(path), rest)
    from llama_jax.runtime import join, set_flags  # jax starts only once the command line is known to be good

    set_flags()
    join()
    import jax

    from llama_jax.training.loop import fit

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    fit(config, workdir, evaluators(config, workdir))


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
    if path.suffix not in (".py", ".json"):
        raise ConfigError(f"--config wants a .py or .json file, got {path}.")
    try:
        config = from_dict(Config, json.loads(path.read_bytes())) if path.suffix == ".json" else run_config(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from None
    return config if config.name else replace(config, name=path.stem)


def run_config(path: Path) -> Config:
    """What `get_config()` of a Python file returns; whatever goes wrong in it becomes one sentence."""
    spec = importlib.util.spec_from_file_location("llama_jax_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config() if hasattr(module, "get_config") else None
    except ConfigError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        raise ConfigError(f"line {line} raises {type(error).__name__}: {error}") from None
    if not isinstance(config, Config):
        raise ConfigError("it should define get_config() that returns a llama_jax.config.Config.")
    return config


def parse(config: Config, arguments: list[str]) -> tuple[Config, Path]:
    """Overrides applied to `config`, and the run directory."""
    parsed, unknown = tyro.cli(
        Arguments,
        prog="train.py --config FILE",
        args=arguments,
        default=Arguments(config),
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
        return_unknown_args=True,
    )
    if unknown:
        if not unknown[0].startswith("--"):
            raise ConfigError(f"unexpected argument {unknown[0]!r}; overrides read --any.field VALUE.")
        name = unknown[0].removeprefix("--").partition("=")[0]
        raise ConfigError(f"unknown argument {unknown[0]}{nearest(name, ['workdir', *field_names(Config)])}")
    return parsed.config, Path(parsed.workdir or Path("runs") / parsed.config.name)


def field_names(cls: type, prefix: str = "") -> list[str]:
    """Dotted names of all fields below a config class."""
    names = []
    for field in fields(cls):
        inner = field.default_factory
        names += field_names(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]
    return names
