"""Text to ids and back: what every tokenizer does, and which one lies in a folder."""

import codecs
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.tokenizer.special_tokens import SpecialTokens

LOG = logging.getLogger(__name__)

REPLACE_EACH_BYTE = "llama_jax.replace_each"
"""Error handler of codecs: U+FFFD for every byte that is not UTF-8, where "replace" gives one for the part of a character."""
codecs.register_error(REPLACE_EACH_BYTE, lambda error: ("\ufffd" * (error.end - error.start), error.end))

TokenContent = str | bytes | None
"""What one id stands for: text, bytes that can be a part of a character, or nothing at all (None)."""


class Tokenizer(ABC):
    """Text to ids and back. BOS and EOS are added by whoever builds a sequence, never by `encode`."""

    KIND: str
    """For people."""
    FILE: str
    """Of FILES."""
    vocab_size: int
    bos_id: int
    """Begins a document; where a tokenizer has none of its own, the id that ends one."""
    eos_id: int
    """Ends a document."""
    errors = "replace"
    """How bytes that are not UTF-8 are decoded: the name of an error handler of codecs."""

    def __init__(self, model: bytes, special_tokens: SpecialTokens):
        self.model, self.special_tokens = model, special_tokens
        self._contents: dict[tuple[int, bool], TokenContent] = {}

    def __reduce__(self):
        return type(self), (self.model, self.special_tokens)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the model and the rules beside it into `folder`, which is made where it is missing."""
        make_folder(Path(folder))
        for name, data in (self.special_tokens.files | {self.FILE: self.model}).items():
            write_atomic(Path(folder) / name, data)

    def __str__(self) -> str:
        return f"{self.KIND} ({self.FILE}), {self.vocab_size:,} pieces"

    @property
    def sha256(self) -> str:
        """Hash of the model file: shards made by another tokenizer are refused."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def begin(self) -> tuple[int, ...]:
        """What stands before a text that a model reads: BOS, but where the rules say otherwise nothing."""
        return () if self.special_tokens.adds_bos is False else (self.bos_id,)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end what a model writes; `eos_id` is one of them."""
        return tuple(sorted({self.eos_id, *self.special_tokens.eos_ids}))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; control pieces written in the text are text."""

    def encode_array(self, text: str) -> np.ndarray:
        """int32 ids of `text`."""
        return np.asarray(self.encode(text), np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control pieces, and ids outside of the vocabulary, leave no trace.

        Bytes that make no character become U+FFFD and spoil no character beside them.
        """
        return IncrementalDecoder(self).push(ids, last=True)

    def content(self, token: int, *, first: bool = False) -> TokenContent:
        """What an id adds to a text, and to an empty one (`first`), where a space set before every text is taken away."""
        if not 0 <= token < self.vocab_size:
            return None
        if (token, first) not in self._contents:
            self._contents[token, first] = self._read_content(token, first)
        return self._contents[token, first]

    def begins(self, token: int) -> bool:
        """Whether a text has begun with an id, so that none after it is the first."""
        return bool(self.content(token))

    @abstractmethod
    def _read_content(self, token: int, first: bool) -> TokenContent:
        """`content` of an id of the vocabulary."""

    @abstractmethod
    def piece(self, token: int) -> str:
        """Text of one id by itself; bytes that are no character as bytes:\\xNN."""

    def is_byte(self, token: int) -> bool:
        """Whether an id stands for bytes rather than for characters."""
        return self.piece(token).startswith("bytes:")


class IncrementalDecoder:
    """Turns ids into text a few at a time; what its calls return, joined, is the text of all ids at once.

    `Tokenizer.decode` is one call of it. The bytes of an unfinished character wait for the next ids, so the work per id
    does not depend on how many came before.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._begun = tokenizer, False
        self._bytes = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)

    def push(self, ids: Iterable[int], last: bool = False) -> str:
        """Text that is certain with `ids`; `last` says that no more will come."""
        parts = []
        for token in ids:
            token = int(token)
            content = self._tokenizer.content(token, first=not self._begun)
            self._begun = self._begun or self._tokenizer.begins(token)
            if isinstance(content, bytes):
                parts.append(self._bytes.decode(content))
            elif content is not None:
                parts += self._bytes.decode(b"", final=True), content  # text ends a character that lacks bytes
        parts.append(self._bytes.decode(b"", final=last))
        return "".join(parts)

    @property
    def pending(self) -> str:
        """What the bytes of an unfinished character are as text, if no more ids come."""
        return self._bytes.getstate()[0].decode("utf-8", self._tokenizer.errors)


def show_bytes(data: bytes) -> str:
    """A piece's bytes as `Tokenizer.piece` shows them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
