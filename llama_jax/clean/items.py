"""What cleaning works on: items read from raw files, in bounded memory whatever the files hold."""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

MAX_BYTES = 64 << 20
"""Longest line, page or file, in bytes, that is read into memory; a longer one is counted as dropped."""
_BLOCK = 1 << 20

VENDORED = {"node_modules", "bower_components", "jspm_packages", "vendor", "vendors", "third_party", "thirdparty", "3rdparty",
            "site-packages", "__pycache__", "_vendor"}
"""Folders of a source tree that hold other people's code, or what a program made."""

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)
"""What the readers of compressed files raise where these are damaged."""


class Dropped(Exception):
    """Raised by a reader or an edit for a document that is not kept; its text is the reason in a few words ("no section")."""

    def __init__(self, reason: str, *, id: str = ""):
        """`id` identifies the item within its file, for examples."""
        super().__init__(reason)
        self.id = id


class DamagedInput(Exception):
    """Raised by a reader for a file whose rest cannot be read; its text says what is wrong with it."""


@dataclass(frozen=True)
class InputFile:
    """One input to clean: a file, or for source code a folder with all that is in it."""

    path: Path
    name: str
    """Its path below the folder that was asked for; names of documents begin with it."""

    @property
    def bytes(self) -> int:
        """Its size, or that of all files in it."""
        if not self.path.is_dir():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in walk_tree(self.path))


@dataclass
class RawDocument:
    """One raw document of an input file."""

    text: str
    """The raw text: HTML, wikitext, LaTeX, code ..."""
    id: str
    """Identifies the item within its file; the file's name is put before it."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the format says of it: title, url, language, score ..., as JSON values."""


Read = Callable[[Path], Iterator[RawDocument | Dropped]]
"""A reader of one format: yields the items of a file, and a `Dropped` for an item that cannot be read. Raises DamagedInput where
the rest of the file cannot be read; the items before stay."""
Edit = Callable[[str, dict[str, Any]], str]
"""(text, metadata) -> the text that is kept. Raises Dropped for a document that is not kept; may add to the metadata."""


_raw_files: list[BinaryIO] = []


@contextmanager
def open_raw(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed by the end of its name (.gz, .bz2, .xz, .zst).

    Raises DamagedInput where the compression is damaged, also from reads inside the `with` block.
    """
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zstd}
    suffix = file.suffix.lower()
    try:
        with file.open("rb") as raw:
            _raw_files.append(raw)
            try:
                with openers[suffix](raw) if suffix in openers else raw as stream:
                    yield stream
            finally:
                _raw_files.remove(raw)
    except DAMAGE as error:
        raise DamagedInput(f"damaged {suffix or 'text'}: {str(error) or type(error).__name__}") from None
    except OSError as error:
        if error.strerror:
            raise
        raise DamagedInput(f"damaged {suffix}: {error}") from None  # what gzip, bz2 and pyarrow raise for other bytes


def _open_zstd(raw: BinaryIO) -> BinaryIO:
    # `zstandard` reads half a file without an error
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), _BLOCK)


def raw_position() -> int:
    """How many bytes, before decompression, are read of the files that `open_raw` holds open."""
    return sum(raw.tell() for raw in _raw_files if not raw.closed)


def walk_tree(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of all folders in it, sorted, without hidden ones, links and what others' code is kept in.

    Raises OSError for a folder that cannot be read.
    """
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if is_hidden(entry.name) or entry.is_symlink():
            continue
        if entry.is_file():
            yield Path(entry.path)
        elif entry.is_dir() and entry.name.lower() not in VENDORED:
            yield from walk_tree(Path(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a program rather than to the data: .git, ._x of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def read_lines(stream: BinaryIO) -> Iterator[bytes | Dropped]:
    """Yield the lines of a stream without their ends; a line of more than MAX_BYTES is a Dropped and never held in memory."""
    while line := stream.readline(MAX_BYTES):
        if line.endswith(b"\n") or len(line) < MAX_BYTES:
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_BLOCK)
        yield Dropped(f"a line of more than {MAX_BYTES >> 20} MiB")


def decode_text(data: bytes) -> str:
    """Decode bytes of unknown encoding: UTF-8 or UTF-16 with a byte order mark, else Windows-1252 where every byte has a meaning.

    Raises Dropped for what is no text: a NUL byte, or bytes that no encoding explains.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in data:
        raise Dropped("binary")
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Dropped("unknown encoding")
