"""A file that grows record by record, and waits with records in memory while the storage takes none."""

import os
from pathlib import Path

from llama_jax.files.storage import reason_of


class AppendedFile:
    """Appends whole records to a file; a record that cannot be written is written before the next one that can.

    The file is opened for each write, so that nothing stays lost where storage went away and came back. A record that was
    written in part is cut off first.
    """

    def __init__(self, file: Path):
        self.file = file
        self.failure = ""
        """Why the last write failed, in the system's words; empty where everything is written."""
        self._waiting = b""
        self._torn_at: int | None = None
        """Size of the file before the write that failed."""

    def append(self, records: bytes) -> None:
        """Add records at the end, in the file where that succeeds, else in memory."""
        self._waiting += records
        self.flush()

    def flush(self, *, durable: bool = False) -> None:
        """Write what waits; with `durable` it also survives a power failure when this returns. `failure` says how it went."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "ab", buffering=0) as stream:
                if self._torn_at is not None:
                    stream.truncate(self._torn_at)
                self._torn_at = os.fstat(stream.fileno()).st_size
                left = self._waiting
                while left:
                    left = left[stream.write(left) :]
                if durable:
                    os.fsync(stream.fileno())
        except OSError as error:
            self.failure = reason_of(error)
        else:
            self._waiting, self._torn_at, self.failure = b"", None, ""

    def close(self) -> None:
        """Try once more to write what waits."""
        self.flush()
