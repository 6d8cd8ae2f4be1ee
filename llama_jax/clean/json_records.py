"""JSON lines of raw data."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_jax.clean.items import Dropped, RawDocument, open_raw, read_lines


def read_records(file: Path, to_document: Callable[[dict[str, Any], int], RawDocument]) -> Iterator[RawDocument | Dropped]:
    """The documents of a file of JSON lines.

    `to_document` makes one of a line's object and the line's number, and raises Dropped for a line that holds none.
    """
    with open_raw(file) as stream:
        for number, line in enumerate(read_lines(stream)):
            try:
                yield line if isinstance(line, Dropped) else to_document(parse_record(line), number)
            except Dropped as dropped:
                yield Dropped(str(dropped), id=str(number))


def parse_record(line: bytes) -> dict[str, Any]:
    """The object of one JSON line; raises Dropped for any other line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise Dropped("no JSON") from None
    if not isinstance(record, dict):
        raise Dropped("no JSON object")
    return record
