"""Scores generated text by whatever the user names: a Python function, or a command."""

import importlib
import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence

from llama_jax.errors import ConfigError, DataError

ToxicityScorer = Callable[[Sequence[str]], list[float]]
"""texts -> a number from 0 to 1 for each."""


def toxicity_scorer(name: str) -> ToxicityScorer | None:
    """The scorer that --scorer names; None for the empty name.

    MODULE:FUNCTION is imported and called with a list of texts; it returns a number from 0 to 1 for each. Anything else is a
    command: it gets lines {"text": ...} on its standard input and prints as many lines {"toxicity": ...}. Raises ConfigError
    for a name that is neither; the scorer raises DataError where it does not get such a number for each text.
    """
    if not name:
        return None
    if re.fullmatch(r"[\w.]+:\w+", name):
        function = _import_function(name)
        return lambda texts: _checked_scores(function(list(texts)), name, count=len(texts))
    words = shlex.split(name)
    if not shutil.which(words[0]):
        raise ConfigError(f"scorer {name!r} is neither MODULE:FUNCTION nor a command that can be found.")
    return lambda texts: _checked_scores(_run_command(words, texts), name, count=len(texts))


def _import_function(name: str) -> Callable[[list[str]], Sequence[float]]:
    """The function of MODULE:FUNCTION."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"scorer {name!r} cannot be imported: {error}.") from None
    if not callable(function):
        raise ConfigError(f"scorer {name!r} is no function.")
    return function


def _run_command(words: list[str], texts: Sequence[str]) -> list[object]:
    """The toxicities that a command prints for texts."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run(words, input=lines, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"scorer {shlex.join(words)!r} ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    try:
        return [json.loads(line)["toxicity"] for line in done.stdout.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError):
        raise DataError(f'scorer {shlex.join(words)!r} should print lines {{"toxicity": number}}, got '
                        f"{done.stdout[:200]!r}.") from None


def _checked_scores(values: Sequence[object], name: str, *, count: int) -> list[float]:
    """`count` numbers from 0 to 1, or DataError."""
    numbers = [_as_float(value) for value in values]
    if len(numbers) != count or not all(0 <= value <= 1 for value in numbers):
        raise DataError(f"scorer {name!r} should give {count} numbers from 0 to 1, got {len(numbers)}: {list(values)[:3]}.")
    return numbers


def _as_float(value: object) -> float:
    """A number of any library as a float; NaN for what is not a number."""
    return float(value) if isinstance(value, int | float) or hasattr(value, "__float__") else math.nan
