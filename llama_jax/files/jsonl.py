"""JSON lines, read and written as a stream; an error names the file, the line and what is wrong in it."""

import json
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.atomic import atomic_stream, make_folder
from llama_jax.files.bounded import MAX_JSON_LINE
from llama_jax.files.encoding import BYTE_ORDER_MARK, check_unicode, is_utf16


def read_jsonl(file: Path, keys: tuple[str, ...]) -> list[dict]:
    """Read a file of one JSON object per line.

    Raises:
        DataError: a line is not a JSON object in UTF-8, or lacks a text under one of `keys`.
    """
    rows = []
    try:
        with file.open("rb") as stream:
            for number, row in parse_json_lines(_decode_lines(lines_of(stream, file), file), file):
                for key in keys:
                    _check_text_field(row, key, where=f"{file}, line {number}")
                rows.append(row)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    return rows


def lines_of(stream: BufferedIOBase, file: Path) -> Iterator[bytes]:
    """The lines of a stream, their ends included; raises DataError for one of more than MAX_JSON_LINE bytes."""
    number = 0
    while line := stream.readline(MAX_JSON_LINE + 1):
        number += 1
        if len(line) > MAX_JSON_LINE:
            raise DataError(f"{file}, line {number}: longer than {MAX_JSON_LINE >> 20} MiB, which no line of JSON should be; "
                            "divide the document.")
        yield line


def _decode_lines(lines: Iterable[bytes], file: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number == 1 and is_utf16(line):
            raise DataError(f"{file}, line {number}: not UTF-8 but UTF-16.")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise DataError(f"{file}, line {number}: not UTF-8.") from None


def parse_json_lines(lines: Iterable[str], file: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) of every line that is not blank; numbers begin at 1, and `file` is named in errors.

    A byte order mark is skipped at the begin of any line, because files with one are also joined end to end. Raises DataError
    where a line is not JSON.
    """
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BYTE_ORDER_MARK)
        if text.strip():
            yield number, parse_json(text, f"{file}, line {number}")


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; raises DataError, which begins with `where`, if it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # numbers too long, or nesting too deep, for Python
        reason = str(error).splitlines()[0].rstrip(".")
    raise DataError(f"{where}: not JSON ({reason}); mend or remove the line.")


def _check_text_field(row: Any, key: str, *, where: str) -> None:
    """Raise DataError, which begins with `where`, unless `row` is an object with a text under `key`."""
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(f"{where}: expected an object with the text {key!r}.")
    check_unicode(row[key], key, where=where)


def write_jsonl(file: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object per line, each as soon as it comes; the file appears only when it is whole."""
    make_folder(file.parent)
    with atomic_stream(file) as stream:
        for row in rows:
            stream.write(json_line(row).encode())


def json_line(row: dict) -> str:
    """A row as a line of JSON, line end included. Half a surrogate pair, which UTF-8 cannot encode, is written as an escape."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"
