"""JSON files that hold one object: read up to a size, without two values for one key."""

import json
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.bounded import MAX_JSON_BYTES, read_bounded
from llama_jax.files.json_kinds import show_value


def read_json_object(file: Path, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a file of at most `most` bytes that holds one JSON object.

    Raises DataError where it does not, or is too large, or gives a key two values.
    """
    return parse_json_object(read_bounded(file, most), file)


def parse_json_object(data: bytes, file: Path) -> dict[str, Any]:
    """The JSON object in `data`, the content of `file`; raises DataError as `read_json_object` does."""
    try:
        values = json.loads(data, object_pairs_hook=lambda pairs: _object_of(pairs, file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({str(error)[:100]}); correct it, or get it again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} should hold an object, got {show_value(values)}.")
    return values


def _object_of(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    """The pairs as a dict; raises DataError where one key has two values, of which `json` would silently take the last."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            raise DataError(f"{file} says {show_value(key)[1:-1]} twice, {show_value(values[key])} and {show_value(value)}; "
                            "remove one of them.")
        values[key] = value
    return values
