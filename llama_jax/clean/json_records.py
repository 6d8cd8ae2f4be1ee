"""JSON lines of raw data."""

import json
from typing import Any

from llama_jax.clean.items import Dropped


def parse_record(line: bytes) -> dict[str, Any]:
    """The object of one JSON line; raises Dropped for any other line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise Dropped("no JSON") from None
    if not isinstance(record, dict):
        raise Dropped("no JSON object")
    return record
