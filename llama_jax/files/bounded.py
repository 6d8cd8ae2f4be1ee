"""Reading what others wrote without trusting its size: files up to a limit, and compressed files up to a ratio."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from llama_jax.errors import DataError

MAX_JSON_BYTES = 16 << 20
"""Largest JSON file that describes something. The longest known, the index of a model of 400 billion parameters, has 0.2 MB;
parsed, a byte becomes 24 bytes of memory at most."""
MAX_TOKENIZER_BYTES = 256 << 20
"""Largest file of a tokenizer; the longest known has 33 MB."""
MAX_JSON_LINE = 64 << 20
"""Longest line of JSON."""

_MOST_EXPANSION, _ALWAYS_EXPANDED = 100, 64 << 20
"""A compressed file may become so many times as large, or so many bytes. Text becomes 3 to 20 times as large; what becomes a
thousand times as large was made to exhaust whoever reads it."""


def read_bounded(file: Path, most: int = MAX_JSON_BYTES) -> bytes:
    """Read a file of at most `most` bytes; raises DataError where it is larger, or cannot be read."""
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            size = status.st_size if stat.S_ISREG(status.st_mode) else most  # pipes and devices do not tell theirs
            content = stream.read(size + 1) if size <= most else b""
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    if size > most or len(content) > most:
        raise DataError(f"{file} has {max(size, len(content)):,} bytes, and a file of this kind at most {most:,}; it is another, "
                        "get it again.")
    return content


def check_expansion(size: int, file: Path) -> None:
    """Raise DataError where `size` bytes are far more than texts become that are compressed in `file`."""
    if size > max(_MOST_EXPANSION * file.stat().st_size, _ALWAYS_EXPANDED):
        raise DataError(f"{file} becomes more than {_MOST_EXPANSION} times as large when it is decompressed, which no text does, "
                        "and is not read further; get it again.")


class ExpandedFile(io.RawIOBase):
    """What `stream` decompresses of a file; raises DataError where it is far more than texts become."""

    def __init__(self, stream: BinaryIO, file: Path):
        self._stream, self._file, self._read = stream, file, 0

    def readable(self) -> bool:
        """True: it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with what comes next."""
        data = self._stream.read(len(buffer))
        self._read += len(data)
        check_expansion(self._read, self._file)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream too."""
        self._stream.close()
        super().close()
