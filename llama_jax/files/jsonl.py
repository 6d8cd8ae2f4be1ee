"""JSON lines in and out, with sentences for what is wrong in them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.atomic import atomic_stream, make_folder

BYTE_ORDER_MARK = "\ufeff"
"""What some editors write before a text; it is not part of it."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""How UTF-16 writes a byte order mark (UTF-32 begins with it too)."""


def read_jsonl(file: Path, keys: tuple[str, ...]) -> list[dict]:
    """The objects of a file; `keys` must be there and be text. Raises DataError that names the line."""
    rows = []
    try:
        with file.open("rb") as stream:
            for number, row in json_lines(_decoded(stream, file), file):
                for key in keys:
                    check_text(row, key, where=f"{file}, line {number}")
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


def is_utf16(begin: bytes) -> bool:
    """Whether a file that begins so is UTF-16: by its mark, or by a zero after every letter, which would pass for UTF-8."""
    head = begin[:1024]
    return head.startswith(UTF16) or 3 * head.count(0) > len(head)


def json_lines(lines: Iterable[str], file: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of every line that is not blank; raises DataError for what is not JSON.

    A byte order mark is left out before any line: files are also joined end to end.
    """
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BYTE_ORDER_MARK)
        if text.strip():
            yield number, parse(text, f"{file}, line {number}")


def parse(text: str, where: str) -> Any:
    """A JSON value; raises DataError that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond what Python takes
        reason = str(error).splitlines()[0].rstrip(".")
    raise DataError(f"{where}: not JSON ({reason}); mend or remove the line.")


def check_text(row: Any, key: str, *, where: str) -> None:
    """Raise DataError, which begins with `where`, unless `row` is an object with a text under `key`."""
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(f"{where}: expected an object with the text {key!r}.")
    check_whole(row[key], key, where=where)


def check_whole(text: str, key: str, *, where: str) -> None:
    """Raise DataError where a JSON escape left half a surrogate pair in `text`, the value of `key`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {key!r} holds half a surrogate pair, {error.object[error.start]!a}, which no text can; "
                        "mend or remove the line.") from None


def write_jsonl(file: Path, rows: Iterable[dict]) -> None:
    """One object per line, written as the rows come; the file appears when it is whole."""
    make_folder(file.parent)
    with atomic_stream(file) as stream:
        for row in rows:
            stream.write(json_line(row).encode())


def json_line(row: dict) -> str:
    """A row and its line end. Half a surrogate pair, which UTF-8 cannot say, is written as the JSON escape it came from."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"
