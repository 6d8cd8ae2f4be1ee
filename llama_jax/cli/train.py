"""The command line of training: a config file, then any field by its dotted name."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from llama_jax.config import Config, nearest
from llama_jax.config.file import field_names, load_config
from llama_jax.errors import ConfigError, exit_code_of
from llama_jax.parallel.malloc import keep_freed_memory

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
    from llama_jax.parallel.distributed import join_processes  # jax starts only once the command line is known to be good
    from llama_jax.parallel.xla_flags import set_xla_flags  # jax starts only once the command line is known to be good

    set_xla_flags()
    join_processes()
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
