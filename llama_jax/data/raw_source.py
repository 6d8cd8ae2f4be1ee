"""Raw text as a source of a run: prepared into the run directory, the end of it held out."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from llama_jax.data.manifest import MANIFEST_FILE, read_manifest
from llama_jax.data.prepare import fingerprint_files, write_shards
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import DataError
from llama_jax.tokenizer.base import Tokenizer

SMALL = 16 << 20
"""Bytes of raw text below which starting worker processes costs more than it saves."""


class RawSource:
    """Raw text whose last `fraction` of bytes is held out; the cut falls at the last line end before it."""

    def __init__(self, path: str, fraction: float):
        self.path, self.fraction = path, fraction
        self.files = find_text_files(path)

    @cached_property
    def size(self) -> int:
        """UTF-8 bytes of text."""
        size = sum(len(text.encode()) for text in self._texts())
        if size == 0:
            raise DataError(f"{self.path} holds no text: its documents are blank.")
        return size

    def _texts(self) -> Iterator[str]:
        for file in self.files:
            yield from read_documents(file)

    def _halves(self) -> Iterator[tuple[str, str]]:
        room = self.size - int(self.size * self.fraction)
        for text in self._texts():
            data = text.encode()
            if len(data) > room > 0:
                head = data[:room]
                first = head[: head.rfind(b"\n") + 1 or room].decode(errors="ignore")
                yield first, text[len(first):]
            else:
                yield (text, "") if room > 0 else ("", text)
            room -= len(data)

    def part(self, name: str) -> Iterator[str]:
        """Documents of the "train" or the "heldout" part, one of them perhaps cut in two; no text is in both."""
        found = False
        for halves in self._halves():
            if text := halves[name == "heldout"]:
                found = True
                yield text
        if not found:
            raise DataError(f"data.heldout_fraction {self.fraction} of {self.path} ({self.size:,} bytes) leaves "
                            f"nothing for the {name} part; choose another fraction.")

    def settings(self, part: str) -> dict:
        """What the shards of the "train" or "heldout" part are known by."""
        return self._fingerprint | {"heldout_fraction": self.fraction, "part": part}

    @cached_property
    def _fingerprint(self) -> dict:
        return fingerprint_files(self.files)

    def made(self, folder: Path) -> bool:
        """Whether the shards of `folder` are this source's "train" part; raises DataError where they are damaged."""
        return (folder / MANIFEST_FILE).is_file() and read_manifest(folder).settings == self.settings("train")

    def prepare(self, part: str, tokenizer: Tokenizer, *, folder: Path) -> Path:
        """`folder` with the shards of the "train" or "heldout" part."""
        settings = self.settings(part)
        big = sum(size for _, size, _ in settings["files"]) >= SMALL
        write_shards(self.part(part), tokenizer, output=folder, settings=settings, workers=0 if big else 1, shard_tokens=1 << 26)
        return folder
