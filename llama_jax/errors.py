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


class StorageError(DataError):
    """Storage does not take a file, or does not give it: it is full, over quota, read-only, broken or away.

    Args:
        message: The sentence for the user.
        reason: What the system says, as "No space left on device".
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def nearest(name: str, known: Iterable[str]) -> str:
    """End an error message about an unknown name with the most similar known ones, or with all of them."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(sorted(known))}."


def exit_code_of(action: Callable[[], object]) -> int:
    """Run the work of a command and return its exit code; prints what went wrong to stderr as one sentence.

    An error of the operating system, as of a disk or a socket, counts as one of the data.
    """
    try:
        action()
    except LlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            # whichever option it came from: no file can have such a name, and no caller asks for one
            print(f"error: {error.strerror}: {str(error.filename)[:100]}...; name another file or folder.", file=sys.stderr)
            return ConfigError.exit_code
        # storage that fails where nothing expects it
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}.", file=sys.stderr)
        return DataError.exit_code
    return 0
