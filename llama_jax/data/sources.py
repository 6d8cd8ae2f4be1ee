"""Raw text in: documents of .txt, .jsonl and .parquet files, plain or compressed, one at a time."""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from functools import partial
from importlib import resources
from pathlib import Path

import pyarrow
import pyarrow.parquet

from llama_jax.errors import DataError

EMBEDDED = "embedded:"
"""Prefix of the texts that come with the package."""

FORMATS = (".txt", ".jsonl", ".parquet")
OPENERS = {
    ".gz": partial(gzip.open, mode="rb"),
    ".xz": partial(lzma.open, mode="rb"),
    ".zst": partial(pyarrow.input_stream, compression="zstd"),  # `zstandard` reads half a file without a word
    "": partial(open, mode="rb"),
}
DAMAGE = (EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What the readers of the formats raise about bytes they cannot read, beside OSErrors without a number."""


def files_of(path: str) -> list[Path]:
    """The readable files that `path` names: itself, a folder's (sorted, recursive), or an embedded text.

    Raises DataError where there are none.
    """
    if path.startswith(EMBEDDED):
        file = Path(str(resources.files("llama_jax.data") / f"{path.removeprefix(EMBEDDED)}.txt.xz"))
        if not file.is_file():
            raise DataError(f"no embedded text {path!r}.")
        return [file]
    root = Path(path)
    if not root.exists():
        raise DataError(f"data source {path} does not exist.")
    files = [root] if root.is_file() else sorted(f for f in root.rglob("*") if format_of(f) and f.is_file())
    unknown = [file for file in files if not format_of(file)]
    if unknown or not files:
        raise DataError(f"{path} holds nothing to read; known are .txt, .jsonl and .parquet, also with .gz .xz .zst.")
    return files


def format_of(file: Path) -> str:
    """".txt", ".jsonl" or ".parquet" below any compression, or "" for others."""
    name = file.name.removesuffix(compression_of(file))
    return next((f for f in FORMATS if name.endswith(f)), "")


def compression_of(file: Path) -> str:
    """The compression suffix of a file name, or ""."""
    return file.suffix if file.suffix in OPENERS else ""


def documents(file: Path, *, text_key: str = "text") -> Iterator[str]:
    """Documents of a file that are not blank: a whole .txt, the `text_key` of every JSON line or Parquet row.

    Raises DataError, naming file and place, for bytes that are not UTF-8, broken JSON or compression, a missing key.
    """
    reader = {".txt": _text, ".jsonl": _jsonl, ".parquet": _parquet}[format_of(file)]
    try:
        yield from (text for text in reader(file, text_key) if text and not text.isspace())
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not a format's
            raise DataError(f"cannot read {file}: {error.strerror}.") from None
        raise DataError(f"{file} is damaged or not what its name says ({_reason(error)}); make it again.") from None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _text(file: Path, text_key: str) -> Iterator[str]:
    with OPENERS[compression_of(file)](file) as stream:
        yield _decode(stream.read(), file, 0)


def _jsonl(file: Path, text_key: str) -> Iterator[str]:
    with OPENERS[compression_of(file)](file) as raw, io.BufferedReader(raw, 1 << 20) as lines:
        offset = 0
        for number, line in enumerate(lines, 1):
            text = _decode(line, file, offset)
            offset += len(line)
            if text.strip():
                yield _field(text, text_key, f"{file}, line {number}")


def _field(line: str, text_key: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else _reason(error)
        raise DataError(f"{where}: not JSON ({reason}); mend or remove the line.") from None
    if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
        keys = ", ".join(list(record)[:10]) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise DataError(f"{where}: no string under {text_key!r} (found {keys}); name another with --text_key.")
    try:
        record[text_key].encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {text_key!r} holds half a surrogate pair, {error.object[error.start]!a}, which no "
                        "text can; mend or remove the line.") from None
    return record[text_key]


def _parquet(file: Path, text_key: str) -> Iterator[str]:
    with pyarrow.parquet.ParquetFile(file) as table:
        schema = table.schema_arrow
        if text_key not in schema.names:
            raise DataError(f"{file}: no column {text_key!r} (found {', '.join(schema.names)}); name another "
                            "with --text_key.")
        kind = schema.field(text_key).type
        if not _is_text(kind):
            raise DataError(f"{file}: column {text_key!r} holds {kind}, not strings; name another with --text_key.")
        for batch in table.iter_batches(batch_size=1024, columns=[text_key]):
            yield from batch.column(0).to_pylist()


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _decode(data: bytes, file: Path, offset: int) -> str:
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")  # a byte order mark is no text
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start}; "
                        "convert it first, for example with iconv.") from None
