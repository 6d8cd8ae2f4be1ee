"""`llama-jax COMMAND` and `python -m llama_jax COMMAND`: which command has which options, and which function does its work."""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from llama_jax.interruption import end_when_stopped, watch_stop_signals

if __name__ == "__main__":
    watch_stop_signals()  # before the imports that take longer

from llama_jax.cli import data_options, options
from llama_jax.cli.buckets import local_options
from llama_jax.cli.clean_options import CleanOptions
from llama_jax.cli.parsing import parse_ablate, parse_front, parse_options, parse_plan, parse_train
from llama_jax.errors import StorageError, exit_code_of
from llama_jax.files.storage import flush_stdout
from llama_jax.version import VERSION


class Command(NamedTuple):
    """One subcommand of `llama-jax`: its options, its parser and the function that does its work."""

    options: type
    """The dataclass whose fields are its command-line options."""
    worker: str
    """MODULE.FUNCTION below llama_jax.cli that does the work; it is imported only when the command runs."""
    parse: Callable[..., Any] | None = None
    """(arguments, prog=...) -> options, for a command line that the dataclass alone does not describe; None: tyro parses it."""
    interrupted: str = "what was finished stays"
    """The end of the message after Ctrl-C or SIGTERM: what the interrupted command has left behind."""


COMMANDS = {
    "train": Command(options.TrainOptions, "train.run_train", parse_train, "the same command resumes"),
    "eval": Command(options.EvaluateOptions, "evaluate.run_eval", None, "the same command goes on from what was answered"),
    "generate": Command(options.GenerateOptions, "generate.run_generate"),
    "score": Command(options.ScoreOptions, "score.run_score"),
    "serve": Command(options.ServeOptions, "serve.run_serve"),
    "convert": Command(options.ConvertOptions, "convert.run_convert"),
    "inspect": Command(options.InspectOptions, "inspect.run_inspect"),
    "plan": Command(options.PlanOptions, "plan.run_plan", parse_plan),
    "ablate": Command(options.AblateOptions, "ablate.run_ablate", parse_ablate, "the same command goes on"),
    "clean": Command(CleanOptions, "clean.run_clean", None, "the same command goes on"),
    "prepare": Command(data_options.PrepareOptions, "prepare.run_prepare"),
    "tokenizer": Command(data_options.TokenizerOptions, "tokenizer.run_tokenizer"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that `arguments` (or those of this process) begin with, and return the exit code."""
    if arguments is None:
        watch_stop_signals()
        arguments = sys.argv[1:]
    prog = "python -m llama_jax" if sys.argv[0] == __file__ else "llama-jax"
    if arguments[:1] == ["--version"]:
        print(f"llama_jax {VERSION}")
        return 0
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:], prog=f"{prog} {arguments[0]}")
    known = {name: command.options for name, command in COMMANDS.items()}
    return exit_code_of(lambda: parse_front(known, arguments, prog=prog))


def run_command(name: str, arguments: list[str], *, prog: str) -> int:
    """Run one command and return the exit code.

    Args:
        name: A name of COMMANDS.
        arguments: The command line after that name.
        prog: How the command was called, for usage lines.

    Raises:
        SystemExit: tyro printed help (code 0), or a value that cannot be read (code 2).
    """
    command = COMMANDS[name]
    parse = command.parse or partial(parse_options, command.options)

    def parse_and_work() -> None:
        asked = parse(arguments, prog=prog)
        end_when_stopped(command.interrupted, code=getattr(asked, "stop_exit_code", None))
        module, function = command.worker.split(".")
        with local_options(asked) as local:
            getattr(import_module(f"llama_jax.cli.{module}"), function)(local)
        if reason := flush_stdout():
            raise StorageError(f"cannot write to the standard output: {reason}.", reason)

    try:
        return exit_code_of(parse_and_work)
    except KeyboardInterrupt:
        print(f"interrupted; {command.interrupted}", file=sys.stderr)
        return 130
    finally:
        flush_stdout()


if __name__ == "__main__":
    sys.exit(main())
