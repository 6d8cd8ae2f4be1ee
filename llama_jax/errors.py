"""Errors meant for people: one sentence that says what was wanted, what came and what to do."""

import sys
from collections.abc import Callable


class LlamaError(Exception):
    """A mistake the user can mend; doors print it without a traceback and leave with `exit_code`.

    No ValueError: tyro and argument parsers like it take those for their own and dress them up.
    """

    exit_code = 1


class ConfigError(LlamaError):
    """Bad usage or configuration."""

    exit_code = 2


class DataError(LlamaError):
    """Bad data, tokenizer or checkpoint."""

    exit_code = 3


def exit_code_of(action: Callable[[], object]) -> int:
    """Run a door's `action`: 0, or the code of the LlamaError it raised, whose sentence goes to stderr."""
    try:
        action()
    except LlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
