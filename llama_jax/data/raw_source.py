"""Raw text as a source of a run: it is prepared into the run directory, and the end of it can be held out."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from llama_jax.data.inputs import fingerprint_inputs
from llama_jax.data.manifest import MANIFEST_FILE, read_manifest
from llama_jax.data.prepare import write_shards
from llama_jax.data.sources import EMBEDDED_PREFIX, find_text_files, read_documents
from llama_jax.errors import DataError
from llama_jax.files.atomic import write_atomic
from llama_jax.tokenizer.base import Tokenizer

_SMALL_SOURCE = 16 << 20
"""Bytes of raw text below which starting worker processes costs more than it saves."""
_SHARD_TOKENS = 1 << 26
"""Fewest tokens of every shard but the last."""
_ORIGIN_FILE = "source.txt"
"""File beside the shards of a raw source with the path that the config named it by; earlier versions wrote none."""


class RawSource:
    """Raw text whose last `fraction` of bytes is held out; the cut is made at the last line end before that place."""

    def __init__(self, path: str, fraction: float, *, separator: str = ""):
        self.path, self.fraction, self.separator = path, fraction, separator
        self.files = find_text_files(path)

    @cached_property
    def size(self) -> int:
        """UTF-8 bytes of the text."""
        size = sum(len(text.encode()) for text in self._texts())
        if size == 0:
            raise DataError(f"{self.path} holds no text: its documents are blank.")
        return size

    def _texts(self) -> Iterator[str]:
        for file in self.files:
            yield from read_documents(file, separator=self.separator)

    def _split_texts(self) -> Iterator[tuple[str, str]]:
        """Each document as (what is trained on, what is held out); at most one document has text in both."""
        train_bytes = self.size - int(self.size * self.fraction)  # that are left
        for text in self._texts():
            data = text.encode()
            if len(data) > train_bytes > 0:
                head = data[:train_bytes]
                first = head[: head.rfind(b"\n") + 1 or train_bytes].decode(errors="ignore")
                yield first, text[len(first):]
            elif train_bytes > 0:
                yield text, ""
            else:
                yield "", text
            train_bytes -= len(data)

    def part(self, name: str) -> Iterator[str]:
        """Documents of the "train" or the "heldout" part. One document may be cut in two; no text is in both parts."""
        found = False
        for train, heldout in self._split_texts():
            text = heldout if name == "heldout" else train
            if text:
                found = True
                yield text
        if not found:
            raise DataError(f"data.heldout_fraction {self.fraction} of {self.path} ({self.size:,} bytes) leaves "
                            f"nothing for the {name} part; choose another fraction.")

    def settings(self, part: str) -> dict:
        """The settings that the manifest of the "train" or "heldout" part records, by which its shards are recognised."""
        separated = {"document_separator": self.separator} if self.separator else {}
        return self._fingerprint | separated | {"heldout_fraction": self.fraction, "part": part}

    @cached_property
    def _fingerprint(self) -> dict:
        return fingerprint_inputs(self.files)

    def has_made(self, folder: Path) -> bool:
        """Whether `folder` holds the shards of this source's "train" part; raises DataError if they are damaged."""
        return (folder / MANIFEST_FILE).is_file() and read_manifest(folder).settings == self.settings("train")

    def prepare_part(self, part: str, tokenizer: Tokenizer, *, folder: Path) -> None:
        """Write the shards of the "train" or "heldout" part into `folder`, unless they are there, and note their origin."""
        settings = self.settings(part)
        big = sum(size for _, size, _ in settings["files"]) >= _SMALL_SOURCE
        write_shards(self.part(part), tokenizer, output=folder, settings=settings, workers=0 if big else 1,
                     shard_tokens=_SHARD_TOKENS)
        origin = folder.parent / _ORIGIN_FILE
        if not origin.is_file() or origin.read_bytes() != os.fsencode(self.path):
            write_atomic(origin, os.fsencode(self.path))


def name_sources(paths: Iterable[str], raw: Mapping[str, RawSource], *, workdir: Path) -> dict[str, str]:
    """Short names of sources, by path and in the order of `paths`, which are all different.

    A raw source that the run has prepared keeps its name, whatever sources are now added; a new one never takes the name of
    another, even if their files have the same name.
    """
    names: dict[str, str] = {}
    for path in raw:
        free = [name for name in _given_names(path, workdir) if name not in names.values()]
        made = [name for name in free if raw[path].has_made(workdir / "data" / name / "train")]
        if made:
            names[path] = made[0]
    for path in paths:
        if path not in names:
            name, number = _stem(path), 2
            while name in names.values() or (path in raw and _is_of_another(path, workdir / "data" / name / _ORIGIN_FILE)):
                name, number = f"{_stem(path)}-{number}", number + 1
            names[path] = name
    return {path: names[path] for path in paths}


def _stem(path: str) -> str:
    """The name of a file or folder without its suffixes; of a part that a run prepared, such as data/wiki/train, the source's."""
    place = Path(path.removeprefix(EMBEDDED_PREFIX))
    if (place.parent / _ORIGIN_FILE).is_file():
        place = place.parent
    return place.name.split(".")[0] or "source"


def _is_of_another(path: str, origin: Path) -> bool:
    """Whether an origin file names another path than `path`."""
    return origin.is_file() and origin.read_bytes() != os.fsencode(path)


def _given_names(path: str, workdir: Path) -> list[str]:
    """The names that a run gave to sources whose stem is that of `path`, in the order in which they were given."""
    folders = (workdir / "data").iterdir() if (workdir / "data").is_dir() else ()
    names = [folder.name for folder in folders if folder.name == _stem(path) or folder.name.startswith(f"{_stem(path)}-")]
    return sorted(names, key=lambda name: (len(name), name))
