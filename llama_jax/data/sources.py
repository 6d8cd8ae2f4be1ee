"""Raw text: the documents of .txt, .jsonl and .parquet files, plain or compressed, read one at a time."""

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

from llama_jax.data.hub import HUB_PREFIX
from llama_jax.data.parquet import check_text_column, texts_of_column
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.bounded import ExpandedFile, check_expansion
from llama_jax.files.encoding import check_unicode, is_utf16
from llama_jax.files.jsonl import lines_of, parse_json_lines

LOG = logging.getLogger(__name__)

EMBEDDED_PREFIX = "embedded:"
"""Prefix of the names of texts that come with the package, as in `embedded:tinyshakespeare`."""

_MOST_NAMED = 5
"""How many of the skipped files a message names."""
_LONG_WINDOW = "requires too much memory"
"""Part of zstd's error for a frame whose window is above 128 MiB."""
_FORMATS = (".txt", ".jsonl", ".parquet")
_DECOMPRESSORS = {
    ".gz": partial(gzip.open, mode="rb"),
    ".xz": partial(lzma.open, mode="rb"),
    ".zst": partial(pyarrow.input_stream, compression="zstd"),  # `zstandard` reads half a file without an error
}
_DAMAGE = (EOFError, MemoryError, lzma.LZMAError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What the readers of the formats raise for bytes that they cannot read, apart from an OSError without an error number."""
_BESIDE_DOCUMENTS = (".work", "report.json", "settings.json", "perplexity.npz", "reference.npz")
"""What an output folder of `llama_jax clean` holds beside its documents."""


def find_text_files(*paths: str) -> list[Path]:
    """The files that `paths` name: a file, the readable files of a folder and all folders below it, or an embedded text.

    The files of a folder are sorted. What is hidden (its name begins with a dot), is a link to a folder, or is of another format
    is skipped, and logged as a warning.

    Raises:
        DataError: a path does not exist, or there is nothing to read at it.
        ConfigError: a file is named twice, directly or through links.
    """
    files = [file for path in paths for file in _files_at(path)]
    twice = [str(file) for file, times in Counter(file.resolve() for file in files).items() if times > 1]
    if twice:
        raise ConfigError(f"the inputs name {', '.join(twice)} twice; name every file once.")
    return files


def _files_at(path: str) -> list[Path]:
    if path.startswith(EMBEDDED_PREFIX):
        file = Path(str(resources.files("llama_jax.data") / f"{path.removeprefix(EMBEDDED_PREFIX)}.txt.xz"))
        if not file.is_file():
            raise DataError(f"no embedded text {path!r}.")
        return [file]
    if path.startswith(HUB_PREFIX):
        raise DataError(f"{path} is not read here; `llama-jax prepare` streams it from the hub into a folder of token shards.")
    root = Path(path)
    if not os.path.exists(root):
        raise DataError(f"data source {path} does not exist.")
    files, skipped = ([root], []) if root.is_file() else _files_below(root)
    unknown = [file for file in files if not _format_of(file)]
    named = ", ".join(skipped[:_MOST_NAMED])
    if len(skipped) > _MOST_NAMED:
        named += f" and {len(skipped) - _MOST_NAMED} more"
    if unknown or not files:
        raise DataError(f"{path} holds nothing to read{f' (left out: {named})' if named else ''}; known are .txt, .jsonl and "
                        ".parquet, also with .gz .xz .zst.")
    if skipped:
        LOG.warning("%s: %d left out (hidden, a link to a folder, or of another format): %s", path, len(skipped), named)
    return files


def _files_below(root: Path) -> tuple[list[Path], list[str]]:
    """(files to read, names of what is skipped) of a folder and all folders in it, both sorted.

    What `llama_jax clean` leaves beside its documents is not named. Links to folders are skipped: they can lead back to the
    folder that holds them, and to files that are read already.
    """
    def stop(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}.")

    files, skipped = [], []
    for folder, subfolders, names in os.walk(root, onerror=stop):
        known = _BESIDE_DOCUMENTS if {"report.json", "settings.json"} <= set(names) else ()
        for name in list(subfolders):
            if _is_hidden(name) or os.path.islink(os.path.join(folder, name)):
                subfolders.remove(name)
                if name not in known:
                    skipped.append(f"{Path(folder, name).relative_to(root)}/")
        for file in (Path(folder, name) for name in names):
            if _format_of(file) and file.is_file() and not _is_hidden(file.name):
                files.append(file)
            elif file.name not in known:
                skipped.append(str(file.relative_to(root)))
    return sorted(files), sorted(skipped)


def _is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a program rather than to the text: .git, .ipynb_checkpoints, ._x of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def _format_of(file: Path) -> str:
    """The format of a file by its name, whatever its compression: one of _FORMATS, or "" for any other file."""
    name = file.name.removesuffix(_compression_of(file))
    return next((f for f in _FORMATS if name.endswith(f)), "")


def _compression_of(file: Path) -> str:
    """The suffix of a file's name that stands for a compression, or ""."""
    return file.suffix if file.suffix in _DECOMPRESSORS else ""


def read_documents(file: Path, *, text_key: str = "text", separator: str = "") -> Iterator[str]:
    """Yield the documents of a file that are not blank.

    A .txt file is one document, or several with `separator` between them where that is not empty; in the other formats, each
    JSON line or Parquet row holds one under `text_key`. A Parquet column may hold strings, or bytes that are UTF-8.

    Raises:
        DataError: there are bytes that are not UTF-8, broken JSON, a damaged compression, or no `text_key`; it names the place.
    """
    reader = {".txt": _read_text, ".jsonl": _read_json_lines, ".parquet": _read_parquet}[_format_of(file)]
    try:
        documents = (text for text in reader(file, text_key) if text)
        if separator and _format_of(file) == ".txt":
            documents = (part for text in documents for part in text.split(separator))
        yield from (text for text in documents if text and not text.isspace())
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # raised by the system, not by the reader of a format
            raise DataError(f"cannot read {file}: {error.strerror}.") from None
        if _LONG_WINDOW in str(error):
            raise DataError(f"{file} was compressed with a window above 128 MiB, as by zstd --long=31, and is not read; compress "
                            f"it again: zstd -dc --long=31 {file.name} | zstd -o NEW{file.suffix}.") from None
        raise DataError(f"{file} is damaged or not what its name says ({_reason(error)}); make it again.") from None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _open(file: Path) -> io.BufferedIOBase:
    """A stream of the file's content, decompressed up to what text may become."""
    decompress = _DECOMPRESSORS.get(_compression_of(file))
    return io.BufferedReader(ExpandedFile(decompress(file), file) if decompress else io.FileIO(file), 1 << 20)


def _read_text(file: Path, text_key: str) -> Iterator[str]:
    with _open(file) as stream:
        yield _decode(stream.read(), file)


def _read_json_lines(file: Path, text_key: str) -> Iterator[str]:
    with _open(file) as lines:
        for number, record in parse_json_lines(_decode_lines(lines_of(lines, file), file), file):
            where = f"{file}, line {number}"
            if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
                keys = ", ".join(list(record)[:10]) if isinstance(record, dict) else f"a {type(record).__name__}"
                raise DataError(f"{where}: no string under {text_key!r} (found {keys}); name another with --text_key.")
            check_unicode(record[text_key], text_key, where=where)
            yield record[text_key]


def _decode_lines(lines: Iterable[bytes], file: Path) -> Iterator[str]:
    offset = 0
    for line in lines:
        yield _decode(line, file, offset=offset)
        offset += len(line)


def _read_parquet(file: Path, text_key: str) -> Iterator[str]:
    with pyarrow.parquet.ParquetFile(file) as table:
        check_text_column(table.schema_arrow, text_key, where=str(file))
        check_expansion(sum(table.metadata.row_group(n).total_byte_size for n in range(table.num_row_groups)), file)
        rows = 0
        for batch in table.iter_batches(batch_size=1024, columns=[text_key]):
            # taken by name, because a request for the column "a.b" also returns the field b of a struct column a
            yield from texts_of_column(batch.column(text_key), where=str(file), first=rows)
            rows += len(batch)


def _decode(data: bytes, file: Path, *, offset: int = 0) -> str:
    """Decode bytes that begin at `offset` of `file`, dropping a byte order mark at offset 0; raises DataError if not UTF-8."""
    if offset == 0 and is_utf16(data):
        raise DataError(f"{file} is not UTF-8 but UTF-16; convert it first, for example with iconv -f UTF-16 -t UTF-8.")
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start}; "
                        "convert it first, for example with iconv.") from None
