"""JSON lines in and out, with sentences for what is wrong in them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.atomic import atomic_stream, make_folder
from llama_jax.files.encoding import BYTE_ORDER_MARK, check_unicode, is_utf16


def read_jsonl(file: Path, keys: tuple[str, ...]) -> list[dict]:
    """The objects of a file; `keys` must be there and be text. Raises DataError that names the line."""
    rows = []
    try:
        with file.open("rb") as stream:
            for number, row in parse_json_lines(_decoded(stream, file), file):
                for key in keys:
                    check_text_field(row, key, where=f"{file}, line {number}")
                rows.append(row)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    return rows


def _decoded(lines: Iterable[bytes], file: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number == 1 and is_utf16(line):
            raise DataError(f"{file}, line {number}: not UTF-8 but UTF-16.")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise DataError(f"{file}, line {number}: not UTF-8.") from None


def parse_json_lines(lines: Iterable[str], file: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of every line that is not blank; raises DataError for what is not JSON.

    A byte order mark is left out before any line: files are also joined end to end.
    """
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BYTE_ORDER_MARK)
        if text.strip():
            yield number, parse_json(text, f"{file}, line {number}")


def parse_json(text: str, where: str) -> Any:
    """A JSON value; raises DataError that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond what Python takes
        reason = str(error).splitlines()[0].rstrip(".")
    raise DataError(f"{where}: not JSON ({reason}); mend or remove the line.")


def check_text_field(row: Any, key: str, *, where: str) -> None:
    """Raise DataError, which begins with `where`, unless `row` is an object with a text under `key`."""
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(f"{where}: expected an object with the text {key!r}.")
    check_unicode(row[key], key, where=where)


def write_jsonl(file: Path, rows: Iterable[dict]) -> None:
    """One object per line, written as the rows come; the file appears when it is whole."""
    make_folder(file.parent)
    with atomic_stream(file) as stream:
        for row in rows:
            stream.write(json_line(row).encode())


def json_line(row: dict) -> str:
    """A row and its line end. Half a surrogate pair, which UTF-8 cannot say, is written as the JSON escape it came from."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"
