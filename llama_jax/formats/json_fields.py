"""JSON objects from other projects' folders: one value per key, each checked for the type that is asked for."""

import math
from pathlib import Path
from typing import Any

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.json_kinds import json_fault, show_value


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
        if key not in self.values:
            raise DataError(f"{self.file}: {key} should be {kind.__name__}, it is missing.")
        if json_fault(value, kind) or (kind is float and not math.isfinite(value)):
            raise DataError(f"{self.file}: {key} should be {kind.__name__}, got {show_value(value)}.")
        return kind(value)


def model_config_from(file: Path, **fields: Any) -> ModelConfig:
    """A ModelConfig with these fields; where it refuses them, raises DataError that names the file they came from."""
    try:
        return ModelConfig(**fields)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None
