"""Raw text in: documents of .txt, .jsonl and .parquet files, plain or compressed, one at a time."""

import gzip
import io
import logging
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path

import pyarrow
import pyarrow.parquet

from llama_jax.errors import ConfigError, DataError
from llama_jax.files.encoding import check_unicode, is_utf16
from llama_jax.files.jsonl import parse_json_lines

LOG = logging.getLogger(__name__)

EMBEDDED_PREFIX = "embedded:"
"""Prefix of the texts that come with the package."""

_MOST_NAMED = 5
"""How many of the files that are left out are named."""
_LONG_WINDOW = "requires too much memory"
"""What zstd says of a frame whose window is above 128 MiB."""
_FORMATS = (".txt", ".jsonl", ".parquet")
_OPENERS = {
    ".gz": partial(gzip.open, mode="rb"),
    ".xz": partial(lzma.open, mode="rb"),
    ".zst": partial(pyarrow.input_stream, compression="zstd"),  # `zstandard` reads half a file without a word
    "": partial(open, mode="rb"),
}
_DAMAGE = (EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What the readers of the formats raise about bytes they cannot read, beside OSErrors without a number."""


def find_text_files(*paths: str) -> list[Path]:
    """The readable files that `paths` name: themselves, a folder's (sorted, with all folders below), or an embedded text.

    What begins with a dot is left out, and what is left out is logged. Raises DataError where there are none, ConfigError
    where a file is named twice, also through a link.
    """
    files = [file for path in paths for file in _files_of(path)]
    if twice := [str(file) for file, times in Counter(file.resolve() for file in files).items() if times > 1]:
        raise ConfigError(f"the inputs name {', '.join(twice)} twice; name every file once.")
    return files


def _files_of(path: str) -> list[Path]:
    if path.startswith(EMBEDDED_PREFIX):
        file = Path(str(resources.files("llama_jax.data") / f"{path.removeprefix(EMBEDDED_PREFIX)}.txt.xz"))
        if not file.is_file():
            raise DataError(f"no embedded text {path!r}.")
        return [file]
    root = Path(path)
    if not os.path.exists(root):
        raise DataError(f"data source {path} does not exist.")
    files, left_out = ([root], []) if root.is_file() else _below(root)
    unknown = [file for file in files if not _format_of(file)]
    named = ", ".join(left_out[:_MOST_NAMED])
    if len(left_out) > _MOST_NAMED:
        named += f" and {len(left_out) - _MOST_NAMED} more"
    if unknown or not files:
        raise DataError(f"{path} holds nothing to read{f' (left out: {named})' if named else ''}; known are .txt, .jsonl and "
                        ".parquet, also with .gz .xz .zst.")
    if left_out:
        LOG.warning("%s: %d left out (hidden, a link to a folder, or of another format): %s", path, len(left_out), named)
    return files


def _below(root: Path) -> tuple[list[Path], list[str]]:
    """(files to read, names of what is left out) of a folder and all folders in it, both sorted.

    Links to folders are left out: they can lead back to where they lie, and to what is read already.
    """
    def stop(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}.")

    files, left_out = [], []
    for folder, subfolders, names in os.walk(root, onerror=stop):
        for name in list(subfolders):
            if _is_hidden(name) or os.path.islink(os.path.join(folder, name)):
                subfolders.remove(name)
                left_out.append(f"{Path(folder, name).relative_to(root)}/")
        for file in (Path(folder, name) for name in names):
            if _format_of(file) and file.is_file() and not _is_hidden(file.name):
                files.append(file)
            else:
                left_out.append(str(file.relative_to(root)))
    return sorted(files), sorted(left_out)


def _is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a program rather than to the text: .git, .ipynb_checkpoints, ._x of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def _format_of(file: Path) -> str:
    """".txt", ".jsonl" or ".parquet" below any compression, or "" for others."""
    name = file.name.removesuffix(_compression_of(file))
    return next((f for f in _FORMATS if name.endswith(f)), "")


def _compression_of(file: Path) -> str:
    """The compression suffix of a file name, or ""."""
    return file.suffix if file.suffix in _OPENERS else ""


def read_documents(file: Path, *, text_key: str = "text") -> Iterator[str]:
    """Documents of a file that are not blank: a whole .txt, the `text_key` of every JSON line or Parquet row.

    Raises DataError, naming file and place, for bytes that are not UTF-8, broken JSON or compression, a missing key.
    """
    reader = {".txt": _text, ".jsonl": _jsonl, ".parquet": _parquet}[_format_of(file)]
    try:
        yield from (text for text in reader(file, text_key) if text and not text.isspace())
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not a format's
            raise DataError(f"cannot read {file}: {error.strerror}.") from None
        if _LONG_WINDOW in str(error):
            raise DataError(f"{file} was compressed with a window above 128 MiB, as by zstd --long=31, and is not read; compress "
                            f"it again: zstd -dc --long=31 {file.name} | zstd -o NEW{file.suffix}.") from None
        raise DataError(f"{file} is damaged or not what its name says ({_reason(error)}); make it again.") from None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _text(file: Path, text_key: str) -> Iterator[str]:
    with _OPENERS[_compression_of(file)](file) as stream:
        yield _decode(stream.read(), file)


def _jsonl(file: Path, text_key: str) -> Iterator[str]:
    with _OPENERS[_compression_of(file)](file) as raw, io.BufferedReader(raw, 1 << 20) as lines:
        for number, record in parse_json_lines(_decoded(lines, file), file):
            where = f"{file}, line {number}"
            if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
                keys = ", ".join(list(record)[:10]) if isinstance(record, dict) else f"a {type(record).__name__}"
                raise DataError(f"{where}: no string under {text_key!r} (found {keys}); name another with --text_key.")
            check_unicode(record[text_key], text_key, where=where)
            yield record[text_key]


def _decoded(lines: Iterable[bytes], file: Path) -> Iterator[str]:
    offset = 0
    for line in lines:
        yield _decode(line, file, offset=offset)
        offset += len(line)


def _parquet(file: Path, text_key: str) -> Iterator[str]:
    with pyarrow.parquet.ParquetFile(file) as table:
        schema = table.schema_arrow
        if text_key not in schema.names:
            raise DataError(f"{file}: no column {text_key!r} (found {', '.join(schema.names)}); name another "
                            "with --text_key.")
        if schema.names.count(text_key) > 1:
            raise DataError(f"{file}: {schema.names.count(text_key)} columns are called {text_key!r}; rename all but one.")
        kind = schema.field(text_key).type
        if not _is_text(kind):
            raise DataError(f"{file}: column {text_key!r} holds {kind}, not strings; name another with --text_key.")
        for batch in table.iter_batches(batch_size=1024, columns=[text_key]):
            yield from batch.column(text_key).to_pylist()  # by name: "a.b" also asks for b in a struct a


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    types = pyarrow.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _decode(data: bytes, file: Path, *, offset: int = 0) -> str:
    """UTF-8 bytes of `file` that begin at `offset`, without a byte order mark at its begin; raises DataError."""
    if offset == 0 and is_utf16(data):
        raise DataError(f"{file} is not UTF-8 but UTF-16; convert it first, for example with iconv -f UTF-16 -t UTF-8.")
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start}; "
                        "convert it first, for example with iconv.") from None
