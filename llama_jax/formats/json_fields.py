"""JSON objects from other projects' folders: one value per key, each checked for the type that is asked for."""

import json
from pathlib import Path
from typing import Any

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, DataError

_MAX_SHOWN = 100
"""Characters of a value that an error message shows."""


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; raises DataError where it does not, or gives a key two values."""
    try:
        values = json.loads(file.read_bytes(), object_pairs_hook=lambda pairs: _object_of(pairs, file))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({str(error)[:100]}); get it again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} should hold an object, got {str(values)[:60]!r}.")
    return values


def _object_of(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    """The pairs as a dict; raises DataError where one key has two values, of which `json` would silently take the last."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise DataError(f"{file} says {key} twice, {shorten_value(values[key])} and {shorten_value(value)}; remove one of "
                            "them.")
        values[key] = value
    return values


def shorten_value(value: Any) -> str:
    """The repr of a value from a file, cut to what fits into an error message."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + " ..."


class JsonFields:
    """The values of a JSON object by key, checked for their types."""

    def __init__(self, values: dict[str, Any], file: Path):
        self.values, self.file = values, file

    def get(self, key: str, kind: type, *, default: Any = ...) -> Any:
        """The value of a key, or `default` where it is absent or null.

        An int is taken for a float. Raises DataError where the type is not `kind`, or there is neither value nor default.
        """
        value = self.values.get(key)
        if value is None and default is not ...:
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            what = f"got {value!r}" if key in self.values else "it is missing"
            raise DataError(f"{self.file}: {key} should be {kind.__name__}, {what}.")
        return value


def model_config_from(file: Path, **fields: Any) -> ModelConfig:
    """A ModelConfig with these fields; where it refuses them, raises DataError that names the file they came from."""
    try:
        return ModelConfig(**fields)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None
