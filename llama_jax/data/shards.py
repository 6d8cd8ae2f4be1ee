"""A prepared folder in the making: encoded documents in, token shards out, going on after those that an earlier call finished."""

import dataclasses
import hashlib
import itertools
import json
from array import array
from pathlib import Path

import numpy as np

from llama_jax.data.manifest import (
    MANIFEST_FILE,
    PREPARE_PROGRESS,
    START_DTYPE,
    Manifest,
    Shard,
    damaged_file,
    file_size,
    read_manifest,
    shards_from_json,
    token_dtype,
)
from llama_jax.data.workers import EncodedChunk
from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer


class ShardWriter:
    """Writes the documents of one folder, in the order in which they are added, as shards of at least `shard_tokens` tokens."""

    def __init__(self, output: Path, tokenizer: Tokenizer, *, settings: dict, shard_tokens: int):
        """Find what an earlier call with the same settings and tokenizer finished.

        Raises:
            DataError: `output` holds other work, or cannot be made.
        """
        self.output, self._tokenizer, self._settings, self._shard_tokens = output, tokenizer, settings, shard_tokens
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._tokens, self._starts, self._bytes = bytearray(), array("q"), 0  # of the shard that is being filled
        make_folder(output)
        self.manifest = self._finished_folder()
        """What the folder holds, where all of it was finished; nothing may be added then."""
        self._done = list(self.manifest.shards) if self.manifest else self._finished_shards()

    @property
    def documents(self) -> int:
        """Documents that are in the folder or were added."""
        return sum(shard.documents for shard in self._done) + len(self._starts)

    def add(self, chunk: EncodedChunk) -> None:
        """Add the documents of a chunk."""
        documents = np.split(chunk.tokens, np.cumsum(chunk.counts[:-1])) if len(chunk.counts) else []
        for document, num_bytes in zip(documents, chunk.num_bytes.tolist(), strict=True):
            self._starts.append(len(self._tokens) // self._dtype.itemsize)
            self._tokens += document.tobytes()
            self._bytes += num_bytes
            if len(self._tokens) >= self._shard_tokens * self._dtype.itemsize:
                self._write_shard()

    def finish(self) -> Manifest:
        """Write the last shard, the tokenizer and the manifest, which is returned."""
        if self.manifest:
            return self.manifest
        if self._starts:
            self._write_shard()
        tokenizer = self._tokenizer
        self.manifest = Manifest(tokenizer.sha256, tokenizer.vocab_size, self._dtype.str, tokenizer.bos_id, tokenizer.eos_id,
                                 self._settings, tuple(self._done))
        tokenizer.save(self.output)
        write_atomic(self.output / MANIFEST_FILE, self.manifest.to_json().encode())
        (self.output / PREPARE_PROGRESS).unlink(missing_ok=True)
        return self.manifest

    def _write_shard(self) -> None:
        """Write what was added as the next shard, and list it as finished."""
        name = f"shard_{len(self._done):05d}"
        starts = np.array(self._starts, START_DTYPE).tobytes()
        shard = Shard(f"{name}.bin", len(self._tokens) // self._dtype.itemsize, len(self._starts), self._bytes, f"{name}.starts",
                      hashlib.sha256(self._tokens).hexdigest(), hashlib.sha256(starts).hexdigest())
        write_atomic(self.output / shard.file, self._tokens)
        write_atomic(self.output / shard.starts, starts)
        self._done.append(shard)
        progress = {"settings": self._settings_of_progress, "shards": [dataclasses.asdict(done) for done in self._done]}
        write_atomic(self.output / PREPARE_PROGRESS, json.dumps(progress).encode())
        self._tokens, self._starts, self._bytes = bytearray(), array("q"), 0

    @property
    def _settings_of_progress(self) -> dict:
        return self._settings | {"tokenizer": self._tokenizer.sha256}

    def _finished_folder(self) -> Manifest | None:
        """The manifest where there is one; raises DataError if it, or a tokenizer in its place, is of other work."""
        output, tokenizer = self.output, self._tokenizer
        if (output / MANIFEST_FILE).exists():
            manifest = read_manifest(output)
            made_by = manifest.tokenizer_sha256, manifest.bos_id, manifest.eos_id
            if (manifest.settings, made_by) != (self._settings, (tokenizer.sha256, tokenizer.bos_id, tokenizer.eos_id)):
                raise DataError(f"{output} already holds data made from other text, settings or tokenizer; remove it or "
                                "name another place.")
            return manifest
        if holds_tokenizer(output) and (held := load_tokenizer(output)).sha256 != tokenizer.sha256:
            raise DataError(f"{output} holds another tokenizer ({held.FILE}), which would be overwritten; name another output.")
        return None

    def _finished_shards(self) -> list[Shard]:
        """Shards that an earlier call finished, up to the first that is damaged or, from an early version, has no `starts`.

        Their files are read and compared with their checksums, which those of earlier versions lack.
        """
        file = self.output / PREPARE_PROGRESS
        if not file.exists():
            return []
        try:
            progress = json.loads(file.read_bytes())
            shards = shards_from_json(progress["shards"])
            begun = progress["settings"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return []  # a damaged list is treated as none: all shards are made again
        if begun != self._settings_of_progress:
            raise DataError(f"{self.output} holds the beginning of other work (see {file}); remove it or name another output.")
        return list(itertools.takewhile(self._is_whole, shards))

    def _is_whole(self, shard: Shard) -> bool:
        starts_size = shard.documents * np.dtype(START_DTYPE).itemsize
        tokens_size = shard.tokens * self._dtype.itemsize
        sizes = file_size(self.output / shard.file), file_size(self.output / shard.starts)
        return bool(shard.starts) and sizes == (tokens_size, starts_size) and not damaged_file(self.output, shard)
