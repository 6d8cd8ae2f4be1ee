"""From the words of a command line to options; every mistake is one sentence, or usage, and exit code 2."""

import dataclasses
import re
import sys
import typing
from pathlib import Path
from typing import Any

import tyro

from llama_jax.cli.find_config import find_config, list_of_configs, nearest_and_all
from llama_jax.cli.options import AblateOptions, PlanOptions, TrainOptions
from llama_jax.config import Config, Study
from llama_jax.config.fields import check_choice, check_numbers, choices_of
from llama_jax.config.file import MOVED_FIELDS, field_names, load_config
from llama_jax.errors import ConfigError, nearest

USAGE_OF_TRAIN = ("usage: {prog} --config FILE[.py|.json]|NAME [--workdir DIR] [--any.field VALUE]... "
                  "(--help after a config lists the fields)")

FRONT = """LLaMA as a JAX/Flax research codebase.

COMMAND --help lists the options of a command, --version prints the version, and --tyro-write-completion SHELL FILE writes shell
completion (bash, zsh, fish)."""

_OWN_OPTIONS_OF_TRAIN = ("workdir", "stop_after", "stop_exit_code")

FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
"""A group of options or a subcommand puts no prefix before the names of its options."""


def parse_options(options: type, arguments: list[str], *, prog: str) -> Any:
    """An instance of the dataclass `options`.

    Args:
        options: A class of llama_jax.cli.options.
        arguments: The command line after the name of the command.
        prog: How the command was called, for usage lines.

    Raises:
        ConfigError: There is an option that `options` does not have.
        SystemExit: tyro printed help (code 0), or a value is missing or cannot be read (code 2).
    """
    known = _option_names(options)
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in ("", "help", *known) and name.removeprefix("no_") not in known:
            raise _unknown_argument(argument, known)
    asked = tyro.cli(options, prog=prog, args=arguments, use_underscores=True, config=FLAT)
    check_numbers(asked)
    return asked


def parse_train(arguments: list[str], *, prog: str) -> TrainOptions:
    """The options of `train`; the config is read first because its fields are the other options. Raises as `parse_options`."""
    usage = USAGE_OF_TRAIN.format(prog=prog)
    name, rest = _split_config(arguments)
    if name is not None:
        asked = TrainOptions(name, fields=load_config(find_config(name)))
        return _parse_fields(asked, rest, prog=f"{prog} --config FILE")
    if {"--help", "-h"} & set(arguments):
        print(f"{usage}\n\nNAME is a config that comes with the package:\n{list_of_configs()}")
        sys.exit(0)
    raise ConfigError(f"--config is missing. {usage}")


def parse_plan(arguments: list[str], *, prog: str) -> PlanOptions:
    """The options of `plan`, with the overrides of config fields apart. Raises as `parse_options`."""
    own, overrides = split_overrides(arguments)
    return dataclasses.replace(parse_options(PlanOptions, own, prog=prog), overrides=tuple(overrides))


def parse_ablate(arguments: list[str], *, prog: str) -> AblateOptions:
    """The options of `ablate`, with the overrides of config fields apart. Raises as `parse_options`."""
    own, overrides = split_overrides(arguments)
    return dataclasses.replace(parse_options(AblateOptions, own, prog=prog), overrides=tuple(overrides))


def apply_overrides(config: Config, overrides: typing.Sequence[str]) -> Config:
    """`config` with fields replaced as in ["--model.dim", "64"]; raises ConfigError for a field that it does not have."""
    return _parse_fields(TrainOptions("", fields=config), list(overrides), prog="--config FILE").fields


def override_study(study: Study, overrides: typing.Sequence[str]) -> Study:
    """`study` with fields of every arm's config replaced as in ["--model.dim", "64"]; raises ConfigError as `apply_overrides`."""
    arms = tuple(dataclasses.replace(arm, config=apply_overrides(arm.config, overrides)) for arm in study.arms)
    return dataclasses.replace(study, arms=arms) if overrides else study


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(a command's own arguments, overrides): an option with a dot in its name is an override, and its values follow it."""
    own, overrides = [], []
    target = own
    for argument in arguments:
        if argument.startswith("--"):
            target = overrides if "." in argument.partition("=")[0] else own
        target.append(argument)
    return own, overrides


def parse_front(commands: dict[str, type], arguments: list[str], *, prog: str) -> typing.NoReturn:
    """Handle the options of the program itself, --help and shell completion; raises ConfigError for an unknown command.

    Args:
        commands: The options of every command, by its name.
        arguments: The whole command line; it does not begin with a command.
        prog: How the program was called.
    """
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(f"unknown command {arguments[0]}{nearest_and_all(arguments[0], commands)}")
    members = []
    for name, options in commands.items():
        about = (options.__doc__ or "").partition("\n")[0]
        # the fields of a config keep their prefixes: --model.dim
        markers = (tyro.conf.FlagConversionOff,) if options is TrainOptions else FLAT
        members.append(typing.Annotated[(options, *markers, tyro.conf.subcommand(name, description=about))])
    try:
        tyro.cli(typing.Union[tuple(members)], prog=prog, args=arguments, use_underscores=True, description=FRONT)  # noqa: UP007
    finally:
        if len(arguments) == 3 and arguments[0] == "--tyro-write-completion":
            _join_lines_of_descriptions(Path(arguments[2]))
    sys.exit(0)


def _join_lines_of_descriptions(script: Path) -> None:
    """Mend a completion script of tyro, which offers every further line of an option's description as a completion."""
    if script.is_file():
        lines = script.read_text(encoding="utf-8").splitlines(keepends=True)
        joined = [re.sub(r"\\n *", " ", line) if line.startswith("COMPLETION_SPEC = ") else line for line in lines]
        script.write_text("".join(joined), encoding="utf-8")


def _split_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """(the value of --config, the other arguments); None where it is missing."""
    for at, argument in enumerate(arguments):
        if argument == "--config" and at + 1 < len(arguments):
            return arguments[at + 1], arguments[:at] + arguments[at + 2:]
        if argument.startswith("--config="):
            return argument.removeprefix("--config="), arguments[:at] + arguments[at + 1:]
    return None, arguments


def _parse_fields(asked: TrainOptions, arguments: list[str], *, prog: str) -> TrainOptions:
    """`asked` with what `arguments` say instead."""
    _check_choices(arguments)
    parsed, unknown = tyro.cli(TrainOptions, prog=prog, args=arguments, default=asked, config=(tyro.conf.FlagConversionOff,),
                               use_underscores=True, return_unknown_args=True)
    if unknown and not unknown[0].startswith("--"):
        raise ConfigError(f"unexpected argument {unknown[0]!r}; overrides read --any.field VALUE.")
    if unknown:
        name = unknown[0].removeprefix("--").partition("=")[0].replace("-", "_")
        if name in MOVED_FIELDS:
            raise ConfigError(f"--{name} is --{MOVED_FIELDS[name]} now.")
        raise _unknown_argument(unknown[0], [*_OWN_OPTIONS_OF_TRAIN, *field_names(Config)])
    return parsed


def _check_choices(arguments: list[str]) -> None:
    """Raise ConfigError where a field of the config that has a few possible values is given another one."""
    choices = choices_of(Config)
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        option, equals, value = argument.partition("=")
        name, value = option.removeprefix("--").replace("-", "_"), value if equals else following
        if option.startswith("--") and name in choices and not value.startswith("--"):
            check_choice(value, choices[name], where=name)


def _unknown_argument(argument: str, known: typing.Iterable[str]) -> ConfigError:
    """The sentence about an option that does not exist."""
    name = argument.removeprefix("--").partition("=")[0]
    if name == "quantize" and "dtype" in known:
        return ConfigError("--quantize int8 is --dtype int8 now.")
    return ConfigError(f"unknown argument {argument}{nearest(name, known)}")


def _option_names(options: type) -> list[str]:
    """The names of all options of a dataclass, those of its groups and subcommands included."""
    names = []
    written = typing.get_type_hints(options, include_extras=True)
    for name, kind in typing.get_type_hints(options).items():
        if tyro.conf.Fixed in getattr(written[name], "__metadata__", ()):
            continue  # filled in by other means
        groups = [group for group in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(group)]
        for group in groups:
            names += _option_names(group)
        if not groups:
            names.append(name)
    return names
