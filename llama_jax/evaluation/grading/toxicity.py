"""Who scores generated text: any Python function, or any command."""

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


def toxicity_scorer(name: str) -> ToxicityScorer | None:
    """The function that --scorer names; None for the empty name.

    MODULE:FUNCTION is imported and called with a list of texts; it returns a number from 0 to 1 for each. Anything else is
    a command: it gets lines {"text": ...} and prints as many lines {"toxicity": ...}. Raises ConfigError for a name that is
    neither, and the scorer raises DataError where what came back is no such number for each text.
    """
    if not name:
        return None
    if re.fullmatch(r"[\w.]+:\w+", name):
        function = _import_function(name)
        return lambda texts: _checked_scores(name, texts, function(list(texts)))
    words = shlex.split(name)
    if not shutil.which(words[0]):
        raise ConfigError(f"scorer {name!r} is neither MODULE:FUNCTION nor a command that can be found.")
    return lambda texts: _checked_scores(name, texts, _run_command(words, texts))


def _import_function(name: str) -> Callable[[list[str]], Sequence[float]]:
    """MODULE:FUNCTION."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"scorer {name!r} cannot be imported: {error}.") from None
    if not callable(function):
        raise ConfigError(f"scorer {name!r} is no function.")
    return function


def _run_command(words: list[str], texts: Sequence[str]) -> list[object]:
    """What a command prints about texts."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run(words, input=lines, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"scorer {shlex.join(words)!r} ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    try:
        return [json.loads(line)["toxicity"] for line in done.stdout.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError):
        raise DataError(f'scorer {shlex.join(words)!r} should print lines {{"toxicity": number}}, got '
                        f"{done.stdout[:200]!r}.") from None


def _checked_scores(name: str, texts: Sequence[str], values: Sequence[object]) -> list[float]:
    """A number from 0 to 1 for each text."""
    numbers = [float(value) if isinstance(value, int | float) or hasattr(value, "__float__") else math.nan for value in values]
    if len(numbers) != len(texts) or not all(0 <= value <= 1 for value in numbers):
        raise DataError(f"scorer {name!r} should give {len(texts)} numbers from 0 to 1, got {len(numbers)}: {list(values)[:3]}.")
    return numbers
