"""Exceptions for mistakes that a user can correct: each message says what was expected, what was given and what to do."""

import difflib
import errno
import sys
from collections.abc import Callable, Iterable

_MAX_MESSAGE = 2000
"""Characters of an error message."""


class LlamaError(Exception):
    """A mistake that the user can correct: commands print its message without a traceback and exit with `exit_code`.

    It is not a ValueError, because tyro and other argument parsers catch those and print them as errors of their own.
    """

    exit_code = 1

    def __str__(self) -> str:
        """The message, cut where it quotes very much of a damaged file."""
        message = super().__str__()
        return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]} ..."


class ConfigError(LlamaError):
    """The command line or the configuration is wrong (exit code 2)."""

    exit_code = 2


class DataError(LlamaError):
    """Data, a tokenizer or a checkpoint is missing, damaged or does not fit (exit code 3)."""

    exit_code = 3


class DamagedError(DataError):
    """Files are not what was written: bits, or whole files, are lost. An error of reading them, which may pass, is none."""


def nearest(name: str, known: Iterable[str]) -> str:
    """End an error message about an unknown name with the most similar known ones, or with all of them."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(sorted(known))}."


def exit_code_of(action: Callable[[], object]) -> int:
    """Run the work of a command; returns 0, or prints the message of the LlamaError it raised to stderr and returns its code."""
    try:
        action()
    except LlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        # whichever option it came from: no file can have such a name, and no caller asks for one
        print(f"error: {error.strerror}: {str(error.filename)[:100]}...; name another file or folder.", file=sys.stderr)
        return ConfigError.exit_code
    return 0
